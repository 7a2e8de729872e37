"""Colours against the standard library's HSV, crops against their definition."""

from __future__ import annotations

import colorsys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bneck.data import vary
from bneck.data.batches import train_batches
from bneck.data.folders import DataError
from bneck.data.pack import Split
from bneck.data.vary import Augment, distorted, draw_region

SHARES = st.floats(0, 1, width=32)
COLOURS = st.tuples(*[st.integers(0, 255)] * 3)


def one(colour: tuple[int, int, int]) -> Tensor:
    return torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1)


def draws(**values: float) -> np.ndarray[Any, Any]:
    """Draws of one image; a half changes nothing."""
    names = ("brightness", "saturation", "hue", "contrast", "order")
    return np.array([[values.get(name, 0.5) for name in names]], dtype=np.float32)


class TestDistorted:
    @given(COLOURS, SHARES)
    @settings(max_examples=50, deadline=None)
    def test_saturation_is_hsvs(self, colour: tuple[int, int, int], share: float) -> None:
        # Brightness unchanged, so the order does not matter.
        found = distorted(one(colour), draws(saturation=share), "fast")[0, :, 0, 0]
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
        wanted = colorsys.hsv_to_rgb(h, min(1.0, s * (0.5 + share)), v)
        assert (found / 255).tolist() == pytest.approx(wanted, abs=1e-4)

    @given(COLOURS, SHARES)
    @settings(max_examples=50, deadline=None)
    def test_hue_turns_by_a_fifth_of_the_circle_at_most(
        self, colour: tuple[int, int, int], share: float
    ) -> None:
        found = distorted(one(colour), draws(hue=share), "full")[0, :, 0, 0]
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
        wanted = colorsys.hsv_to_rgb((h + 0.2 * (2 * share - 1)) % 1.0, s, v)
        assert (found / 255).tolist() == pytest.approx(wanted, abs=1e-3)

    def test_brightness_is_added(self) -> None:
        found = distorted(one((100, 20, 250)), draws(brightness=0.0), "fast")
        assert found.flatten().tolist() == [68.0, 0.0, 218.0]  # 32 less, but not below 0
        found = distorted(one((100, 20, 250)), draws(brightness=1.0), "fast")
        assert found.flatten().tolist() == [132.0, 52.0, 255.0]

    def test_contrast_pulls_at_the_mean_of_each_channel(self) -> None:
        image = torch.tensor([[[[100.0, 200.0]], [[0.0, 0.0]], [[40.0, 60.0]]]])
        found = distorted(image, draws(contrast=0.0), "full")  # factor 0.5
        wanted = torch.tensor([[125.0, 175.0], [0.0, 0.0], [45.0, 55.0]])
        assert torch.allclose(found[0, :, 0], wanted, atol=1e-4)

    def test_every_order_is_drawn_and_matters(self) -> None:
        image = one((200, 60, 30))
        found = {
            tuple(
                distorted(
                    image, draws(brightness=1.0, saturation=1.0, order=order), "fast"
                ).flatten().tolist()
            )
            for order in (0.0, 0.3, 0.6, 0.99)
        }  # fmt: skip
        # Brighter first: 232 92 62, and saturated by 1.5: 232 22 -23, cut to 0. Else saturated first:
        # 200 -10 -55, no further than to 0 at a factor of 200 / 170, then 32 brighter.
        first, second = sorted(found, key=lambda colour: -colour[2])
        assert first == pytest.approx((232.0, 32.0 + 200 - 140 * 200 / 170, 32.0), abs=1e-3)
        assert second == pytest.approx((232.0, 232 - 140 * 232 / 170, 0.0), abs=1e-3)

    def test_an_image_depends_on_its_own_draws_alone(self) -> None:
        rng = np.random.default_rng(0)
        images = torch.from_numpy(rng.uniform(0, 255, (6, 3, 5, 5)).astype(np.float32))
        numbers = rng.random((6, 5), np.float32)
        together = distorted(images, numbers, "full")
        for i in range(6):
            alone = distorted(images[i : i + 1], numbers[i : i + 1], "full")
            assert torch.allclose(alone[0], together[i], atol=1e-4)
        assert together.min() >= 0
        assert together.max() <= 255

    def test_a_batch_has_all_orders(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (40, 3, 9, 9), dtype=np.uint8)
        split = Split(images, np.arange(40), tuple("x" * 40))
        plan: dict[str, Any] = {"resolution": 8, "batch": 40, "seed": 0, "epoch": 0}
        plain = Augment(area=(1, 1), aspect=(1, 1), flip=False)
        ((before, _),) = train_batches(split, np.arange(40), augment=plain, **plan)
        ((after, _),) = train_batches(
            split, np.arange(40), augment=replace(plain, distort="full"), **plan
        )
        assert (before - after).abs().flatten(1).mean(1).min() > 0.01
        assert len(set(vary._FULL)) == 4

    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(
            DataError, match="distort is 'wild'; it must be one of none, fast, full"
        ):
            Augment(distort="wild")  # type: ignore[arg-type]


class TestDrawRegion:
    @given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 2**32 - 1))
    @settings(max_examples=100, deadline=None)
    def test_it_lies_inside(self, width: int, height: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        left, top, w, h = draw_region((width, height), Augment(area=(0.05, 1.0)), rng)
        assert 0 <= left <= left + w <= width
        assert 0 <= top <= top + h <= height
        assert min(w, h) >= 1

    def test_area_and_aspect_are_those_asked_for(self) -> None:
        rng, augment = np.random.default_rng(0), Augment(area=(0.05, 0.5))
        found = np.array([draw_region((500, 375), augment, rng)[2:] for _ in range(500)])
        shares, aspects = found.prod(1) / (500 * 375), found[:, 0] / found[:, 1]
        assert shares.min() > 0.045
        assert shares.max() < 0.505
        assert 0.05 < shares.min() < 0.07
        assert aspects.min() == pytest.approx(3 / 4, abs=0.03)
        assert aspects.max() == pytest.approx(4 / 3, abs=0.03)
        assert shares.mean() == pytest.approx(0.275, abs=0.02)

    def test_where_nothing_fits_it_is_the_whole_image(self) -> None:
        narrow = draw_region((1000, 10), Augment(area=(0.9, 1.0)), np.random.default_rng(0))
        assert narrow == (0, 0, 1000, 10)
