"""Batches: exact where nothing is drawn, reproducible where something is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bneck.data.batches import (
    Augment,
    eval_batches,
    holdout,
    normalise,
    stratified,
    train_batches,
)
from bneck.data.folders import DataError
from bneck.data.pack import Split
from bneck.specs.normalisation import IMAGENET

STILL = Augment(area=(1, 1), aspect=(1, 1), flip=False)
PLAN: dict[str, Any] = {"resolution": 8, "batch": 4, "augment": Augment(), "seed": 0, "epoch": 0}


def split_of(images: np.ndarray[Any, Any]) -> Split:
    count = len(images)
    return Split(images.astype(np.uint8), np.arange(count), tuple(map(str, range(count))))


def noise(count: int, side: int = 9) -> Split:
    return split_of(np.random.default_rng(0).integers(0, 256, (count, 3, side, side)))


def ramps(count: int) -> Split:
    """Red grows by 4 a column, green by 4 a row, of 64."""
    steps = np.broadcast_to(np.arange(64) * 4, (64, 64))
    return split_of(np.stack([np.stack([steps, steps.T, 0 * steps])] * count))


def pixels(batch: Tensor) -> Tensor:
    """Undo the normalisation: (N, 3, H, W) from 0 to 255."""
    return (
        batch * torch.tensor(IMAGENET.std).view(3, 1, 1) + torch.tensor(IMAGENET.mean).view(3, 1, 1)
    ) * 255


def by_label(split: Split, indices: list[int] | None = None, **plan: Any) -> dict[int, Tensor]:
    chosen = np.arange(len(split.labels)) if indices is None else np.array(indices)
    batches = train_batches(split, chosen, **{**PLAN, "drop_last": False, **plan})
    return {
        int(k): image for images, labels in batches for k, image in zip(labels, images, strict=True)
    }


class TestNormalise:
    def test_black_and_white(self) -> None:
        black, white = normalise(torch.tensor([[[[0, 255]]] * 3], dtype=torch.uint8))[0, :, 0].T
        # (0 - 0.485) / 0.229 and so on; (1 - 0.485) / 0.229 and so on.
        assert black.tolist() == pytest.approx([-2.11790, -2.03571, -1.80444], abs=1e-5)
        assert white.tolist() == pytest.approx([2.24891, 2.42857, 2.64000], abs=1e-5)
        assert black.dtype == torch.float32

    def test_its_input_is_left_alone(self) -> None:
        images = torch.full((1, 3, 2, 2), 9, dtype=torch.uint8)
        normalise(images)
        assert (images == 9).all()


class TestEvalBatches:
    @pytest.mark.parametrize(
        ("side", "resolution", "first"), [(9, 5, 2), (8, 7, 0), (32, 28, 2), (4, 4, 0)]
    )
    def test_the_crop_is_central_and_exact(self, side: int, resolution: int, first: int) -> None:
        split = noise(3, side)
        ((images, _),) = eval_batches(split, np.arange(3), resolution=resolution, batch=3)
        end = first + resolution
        assert torch.equal(
            images, normalise(torch.from_numpy(split.images[:, :, first:end, first:end]))
        )

    def test_in_order_and_nothing_dropped(self) -> None:
        indices = np.array([5, 0, 3, 6, 1, 4, 2])
        batches = list(eval_batches(noise(7), indices, resolution=8, batch=3))
        assert [len(images) for images, _ in batches] == [3, 3, 1]
        assert torch.cat([labels for _, labels in batches]).tolist() == indices.tolist()
        assert all(labels.dtype == torch.int64 for _, labels in batches)

    def test_a_resolution_above_the_stored_side(self) -> None:
        with pytest.raises(DataError, match="side 9, less than resolution 10; pack them again"):
            eval_batches(noise(2), np.arange(2), resolution=10, batch=1)


class TestOrder:
    def test_an_epoch_has_every_image_once(self) -> None:
        batches = list(train_batches(noise(12), np.arange(12), **PLAN))
        assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 8, 8)] * 3
        labels = torch.cat([labels for _, labels in batches])
        assert labels.dtype == torch.int64
        assert sorted(labels.tolist()) == list(range(12))
        assert labels.tolist() != list(range(12))

    def test_epoch_and_seed_change_the_order(self) -> None:
        def order(**plan: Any) -> list[int]:
            return list(by_label(noise(20), **plan))

        assert order() == order()
        assert len({tuple(order(epoch=e, seed=s)) for e in range(3) for s in range(3)}) == 9

    def test_the_last_small_batch(self) -> None:
        split, indices = noise(10), np.arange(10)
        assert [len(y) for _, y in train_batches(split, indices, **PLAN)] == [4, 4]
        kept = train_batches(split, indices, **PLAN, drop_last=False)
        assert [len(y) for _, y in kept] == [4, 4, 2]


class TestReproducible:
    @pytest.mark.parametrize("colour", [0.0, 0.4])
    def test_batch_size_does_not_matter(self, colour: float) -> None:
        plan: dict[str, Any] = {"augment": Augment(colour=colour), "resolution": 13}
        one = by_label(noise(45), batch=1, **plan)
        for batch in (7, 32, 45):
            other = by_label(noise(45), batch=batch, **plan)
            assert list(other) == list(one)
            assert all(torch.equal(one[k], other[k]) for k in one)

    def test_the_other_images_do_not_matter(self) -> None:
        everything = by_label(noise(20))
        few = by_label(noise(20), [3, 11, 5])
        assert all(torch.equal(few[k], everything[k]) for k in few)

    def test_epoch_and_seed_do(self) -> None:
        first = by_label(noise(4))
        for other in (by_label(noise(4), epoch=1), by_label(noise(4), seed=1)):
            assert not any(torch.allclose(first[k], other[k]) for k in first)


class TestAugment:
    def test_the_whole_image_comes_out_as_it_is(self) -> None:
        split = noise(5, side=11)
        for k, image in by_label(split, resolution=11, augment=STILL).items():
            assert torch.allclose(
                pixels(image), torch.from_numpy(split.images[k]).float(), atol=0.05
            )

    def test_half_of_the_images_are_mirrored(self) -> None:
        split = noise(400, side=4)
        augment = Augment(area=(1, 1), aspect=(1, 1), flip=True)
        mirrored = 0
        for k, image in by_label(split, resolution=4, augment=augment).items():
            stored = torch.from_numpy(split.images[k]).float()
            turned = torch.allclose(pixels(image), stored.flip(2), atol=0.05)
            assert turned or torch.allclose(pixels(image), stored, atol=0.05)
            mirrored += turned
        assert 160 < mirrored < 240  # four standard deviations

    def test_area_and_aspect_stay_in_their_ranges(self) -> None:
        augment = Augment(area=(0.3, 0.5), aspect=(0.8, 1.25), flip=False)
        seen = []
        for image in by_label(ramps(200), resolution=16, augment=augment).values():
            red, green = pixels(image)[0], pixels(image)[1]
            # Between two neighbours of the middle lie width / 16 of 64 columns of 4.
            width = float(red[8, 8] - red[8, 7]) / 16
            height = float(green[8, 8] - green[7, 8]) / 16
            seen.append((width * height, width / height))
            assert red.min() >= -0.1
            assert red.max() <= 252.1
        areas, aspects = np.array(seen).T
        assert 0.299 < areas.min() < 0.32
        assert 0.48 < areas.max() < 0.501
        assert 0.799 < aspects.min() < 0.85
        assert 1.2 < aspects.max() < 1.251

    def test_crops_lie_everywhere(self) -> None:
        augment = Augment(area=(0.25, 0.25), aspect=(1, 1), flip=False)
        images = torch.stack(list(by_label(ramps(200), resolution=8, augment=augment).values()))
        middle = pixels(images)[:, :2, 3:5, 3:5].mean(dim=(2, 3))
        # Centres lie between a quarter and three quarters: 4 x (64 / 4 - 1 / 2) = 62 and 190.
        assert middle.amin(dim=0).tolist() == pytest.approx([62, 62], abs=3)
        assert middle.amax(dim=0).tolist() == pytest.approx([190, 190], abs=3)
        assert abs(float(np.corrcoef(middle.T.numpy())[0, 1])) < 0.3

    def test_colour_keeps_grey_grey(self) -> None:
        split = split_of(np.full((50, 3, 6, 6), 100))
        augment = Augment(colour=0.5)
        greys = []
        for image in by_label(split, augment=augment).values():
            seen = pixels(image)
            assert float(seen.max() - seen.min()) < 0.01
            greys.append(float(seen.mean()))
        # Contrast and saturation leave an even grey alone; brightness takes it from 50 to 150.
        assert 49.9 < min(greys) < 60
        assert 140 < max(greys) < 150.1

    def test_colour_changes_contrast(self) -> None:
        image = np.full((3, 2, 2), 60)
        image[:, 1] = 120
        split = split_of(np.stack([image] * 200))
        seen = by_label(split, resolution=2, augment=replace(STILL, colour=0.5)).values()
        # On greys, brightness b and contrast c give 90 b -+ 30 b c; saturation does nothing.
        dark, bright = pixels(torch.stack(list(seen)))[:, 0, :, 0].T
        contrast = (bright - dark) / (bright + dark) * 3
        assert 0.499 < contrast.min() < 0.55
        assert 1.45 < contrast.max() < 1.501

    def test_colour_changes_saturation(self) -> None:
        image = np.full((3, 2, 2), 60)
        image[0] = 120
        split = split_of(np.stack([image] * 200))
        seen = by_label(split, resolution=2, augment=replace(STILL, colour=0.3)).values()
        red, green, _ = pixels(torch.stack(list(seen)))[:, :, 0, 0].T
        # The grey of it is 60 + 0.299 x 60 = 77.94. Contrast and saturation both scale what is
        # beyond grey, from 0.7 x 0.7 to 1.3 x 1.3; one alone would stay within 0.7 and 1.3.
        beyond = (red - green) / (0.299 * red + 0.701 * green) * 77.94 / 60
        assert 0.489 < beyond.min() < 0.6
        assert 1.5 < beyond.max() < 1.691

    def test_colours_stay_between_black_and_white(self) -> None:
        seen = torch.stack(list(by_label(noise(50), augment=Augment(colour=1.0)).values()))
        assert pixels(seen).min() > -0.01
        assert pixels(seen).max() < 255.01


class TestWrongInput:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"area": (0, 1)}, "area is"),
            ({"area": (0.5, 0.4)}, "area is"),
            ({"area": (0.5, 1.1)}, "area is"),
            ({"aspect": (0, 1)}, "aspect is"),
            ({"aspect": (2, 1)}, "aspect is"),
            ({"colour": -0.1}, "colour is"),
            ({"colour": 1.1}, "colour is"),
        ],
    )
    def test_augment(self, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(DataError, match=said):
            Augment(**settings)

    @pytest.mark.parametrize(
        ("plan", "said"),
        [
            ({"resolution": 0}, "resolution is 0"),
            ({"resolution": 8.0}, r"resolution is 8\.0"),
            ({"batch": 0}, "batch is 0"),
            ({"batch": True}, "batch is True"),
            ({"batch": 7}, "6 images do not fill one batch of 7; take a smaller batch"),
            ({"seed": -1}, "seed is -1"),
            ({"epoch": -1}, "epoch -1"),
        ],
    )
    def test_settings_are_refused_at_the_call(self, plan: dict[str, Any], said: str) -> None:
        with pytest.raises(DataError, match=said):
            train_batches(noise(6), np.arange(6), **{**PLAN, **plan})

    @pytest.mark.parametrize(
        ("indices", "said"),
        [([], "no indices"), ([0, 6], "from 0 to 6; .* from 0 to 5"), ([-1, 2], "from -1 to 2")],
    )
    def test_indices(self, indices: list[int], said: str) -> None:
        chosen = np.array(indices, dtype=np.int64)
        with pytest.raises(DataError, match=said):
            train_batches(noise(6), chosen, **PLAN)
        with pytest.raises(DataError, match=said):
            eval_batches(noise(6), chosen, resolution=8, batch=2)


class TestHoldout:
    @given(
        labels=st.lists(st.integers(0, 4), min_size=10, max_size=80),
        share=st.floats(0.01, 0.99),
        seed=st.integers(0, 2**40),
    )
    @settings(max_examples=60, deadline=None)
    def test_disjoint_complete_stratified(self, labels: list[int], share: float, seed: int) -> None:
        array = np.array(labels)
        fit, held = holdout(array, share, seed)
        assert sorted([*fit, *held]) == list(range(len(labels)))
        assert (np.diff(fit) > 0).all()
        assert (np.diff(held) > 0).all()
        for label in np.unique(array):
            count, out = int((array == label).sum()), int((array[held] == label).sum())
            assert abs(out - share * count) <= 1
            assert out == 0 if count == 1 else 1 <= out < count
        again = holdout(array, share, seed)
        assert (again[0] == fit).all()
        assert (again[1] == held).all()

    def test_by_hand(self) -> None:
        labels = np.array([0] * 10 + [1] * 20)
        fit, held = holdout(labels, 0.2, seed=3)
        assert (labels[held] == 0).sum() == 2
        assert (labels[held] == 1).sum() == 4
        assert len(fit) == 24
        assert not np.array_equal(held, holdout(labels, 0.2, seed=4)[1])

    def test_one_class_does_not_depend_on_another(self) -> None:
        alone = holdout(np.zeros(10, dtype=np.int64), 0.3, seed=0)[1]
        together = holdout(np.array([0] * 10 + [1] * 5), 0.3, seed=0)[1]
        assert alone.tolist() == [k for k in together.tolist() if k < 10]

    @pytest.mark.parametrize("share", [0, 1, -1, float("nan")])
    def test_share(self, share: float) -> None:
        with pytest.raises(DataError, match=r"share is .* above 0 and below 1"):
            holdout(np.zeros(9, dtype=np.int64), share, seed=0)

    def test_seed_and_single_images(self) -> None:
        with pytest.raises(DataError, match="seed is -1"):
            holdout(np.zeros(9, dtype=np.int64), 0.5, seed=-1)
        with pytest.raises(DataError, match="no class has two images"):
            holdout(np.arange(3), 0.5, seed=0)


class TestStratified:
    def test_by_hand(self) -> None:
        """Classes of 2, 4 and 8 of 14: of 7 images 1, 2 and 4; first one of every class."""
        labels = np.array([5, 5, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3, 3])
        found = stratified(labels, np.arange(14), 7, seed=0)
        assert len(set(found.tolist())) == 7
        assert sorted(labels[found[:3]]) == [0, 3, 5]
        assert sorted(labels[found]) == [0, 0, 3, 3, 3, 3, 5]
        assert not np.array_equal(found, stratified(labels, np.arange(14), 7, seed=1))

    def test_only_indices_given_and_no_more_than_there_are(self) -> None:
        labels = np.array([0, 0, 1, 1, 2, 2])
        found = stratified(labels, np.array([0, 3, 5]), 10, seed=0)
        assert sorted(found) == [0, 3, 5]
