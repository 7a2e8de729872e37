"""Annotated pictures as batches: boxes follow what is done to the pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bneck.data.folders import DataError
from bneck.specs.normalisation import IMAGENET
from bneck.tasks.detect.images import (
    BoxAugment,
    box_batches,
    covered,
    crop_window,
    cropped,
    eval_images,
    store,
    varied,
)
from bneck.tasks.detect.intake.coco import Annotated, read_coco

SIDE, INPUT = 80, 64


def draw(folder: Path, count: int = 6) -> Path:
    """Grey images 100 x 60, each with one white box; every third has none."""
    rng, images, boxes = np.random.default_rng(0), [], []
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        pixels = np.full((60, 100, 3), 60, np.uint8)
        if i % 3 < 2:
            x, y = int(rng.integers(5, 45)), int(rng.integers(5, 25))
            pixels[y : y + 30, x : x + 50] = 255
            boxes.append(
                {"id": i + 1, "image_id": i, "category_id": 1 + i % 2, "bbox": [x, y, 50, 30]}
            )
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 100, "height": 60})
    names = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    path = folder / "train.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": names}))
    return path


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Annotated:
    return read_coco(draw(tmp_path_factory.mktemp("drawn")))


def white(image: torch.Tensor) -> np.ndarray:
    """Corners of the white area of a normalised image, in shares."""
    pixels = image * torch.tensor(IMAGENET.std).view(3, 1, 1) + torch.tensor(IMAGENET.mean).view(
        3, 1, 1
    )
    rows, columns = np.nonzero((pixels.mean(0) > 0.62).numpy())
    side = image.shape[-1]
    return np.array((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)) / side


class TestAugmentation:
    @pytest.mark.parametrize("crop", [False, True])
    def test_boxes_are_where_the_objects_are(
        self, annotated: Annotated, tmp_path: Path, crop: bool
    ) -> None:
        stored = store(annotated, SIDE, tmp_path, name="train")
        augment, seen = BoxAugment(crop=crop, colour=0.0), 0
        for epoch in range(8):
            images, boxes, labels = varied(stored, np.arange(6), INPUT, augment, (0, epoch))
            assert images.shape == (6, 3, INPUT, INPUT)
            for i in (0, 1, 3, 4):
                if len(boxes[i]) == 0:
                    continue
                seen += 1
                assert boxes[i][0] == pytest.approx(white(images[i]), abs=0.05)
                assert labels[i].tolist() == [1 + i % 2]
            assert [len(boxes[i]) for i in (2, 5)] == [0, 0]
        assert seen >= 28

    def test_mirroring_happens_half_of_the_time(self, annotated: Annotated, tmp_path: Path) -> None:
        stored, augment = store(annotated, SIDE, tmp_path, name="train"), BoxAugment(crop=False)
        left = annotated.pictures[0].boxes[0, 0]
        found = [
            varied(stored, np.array([0]), INPUT, augment, (0, e))[1][0][0, 0] for e in range(40)
        ]
        same = sum(abs(x - left) < 1e-5 for x in found)
        assert 10 < same < 30

    def test_the_seed_decides(self, annotated: Annotated, tmp_path: Path) -> None:
        stored = store(annotated, SIDE, tmp_path, name="train")

        def first(seed: int, epoch: int) -> torch.Tensor:
            batches = box_batches(
                stored, resolution=32, batch=4, augment=BoxAugment(), seed=seed, epoch=epoch
            )
            (batch,) = batches  # 6 images, the last two are left out
            return batch[0]

        assert torch.equal(first(0, 1), first(0, 1))
        assert not torch.equal(first(0, 1), first(0, 2))
        assert not torch.equal(first(0, 1), first(1, 1))

    def test_colour_keeps_the_boxes(self, annotated: Annotated, tmp_path: Path) -> None:
        stored = store(annotated, SIDE, tmp_path, name="train")
        plain, bright = (
            varied(stored, np.arange(3), INPUT, BoxAugment(colour=c), (0, 0)) for c in (0.0, 0.5)
        )
        assert all(np.array_equal(a, b) for a, b in zip(plain[1], bright[1], strict=True))
        assert not torch.equal(plain[0], bright[0])

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10**6), st.integers(0, 5))
    def test_windows_lie_inside_and_show_a_box(self, seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        start = rng.uniform(0, 0.8, (count, 2))
        boxes = np.concatenate((start, start + rng.uniform(0.02, 0.2, (count, 2))), 1)
        boxes = boxes.astype(np.float32)
        window = crop_window(boxes, rng)
        assert (window >= -1e-9).all()
        assert (window <= 1 + 1e-9).all()
        area = (window[2] - window[0]) * (window[3] - window[1])
        assert 0.1 - 1e-6 <= area <= 1 + 1e-6
        left, labels = cropped(boxes, np.arange(count), window)
        assert (len(left) > 0) == (count > 0)
        assert ((left >= 0) & (left <= 1)).all()
        assert (left[:, 2:] > left[:, :2]).all()
        assert len(labels) == len(left)

    def test_crops_by_hand(self) -> None:
        boxes = np.array([[0.0, 0.0, 0.4, 0.4], [0.6, 0.6, 1.0, 1.0]], np.float32)
        window = np.array([0.2, 0.0, 0.7, 0.5])
        assert covered(boxes, window[None])[0] == pytest.approx([0.5, 0.0])
        left, labels = cropped(boxes, np.array([1, 2]), window)
        assert labels.tolist() == [1]
        assert left == pytest.approx(np.array([[0.0, 0.0, 0.4, 0.8]]))


class TestStore:
    def test_it_is_decoded_once(self, annotated: Annotated, tmp_path: Path) -> None:
        told: list[int] = []
        first = store(annotated, SIDE, tmp_path, name="train", on_image=told.append)
        second = store(annotated, SIDE, tmp_path, name="train", on_image=told.append)
        assert sum(told) == 6
        assert np.array_equal(first.images, second.images)
        assert (
            store(annotated, 40, tmp_path, name="train", on_image=told.append).images.shape[2] == 40
        )
        assert sum(told) == 12

    def test_too_many_unreadable(self, tmp_path: Path) -> None:
        found = read_coco(draw(tmp_path))
        image = tmp_path / "images" / "1.png"
        image.write_bytes(image.read_bytes()[:200])
        with pytest.raises(DataError, match=r"names 1 of 6 images that cannot be used.*1\.png"):
            store(found, SIDE, tmp_path / "store", name="train")

    def test_no_place(self, annotated: Annotated, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match="cannot be stored"):
            store(annotated, SIDE, tmp_path / "file", name="train")

    def test_evaluation_sees_whole_images(self, annotated: Annotated) -> None:
        found = list(eval_images(annotated, resolution=INPUT, batch=4))
        assert [len(images) for _, _, images in found] == [4, 2]
        pictures, bad, images = found[0]
        assert bad == {}
        assert white(images[0]) == pytest.approx(pictures[0].boxes[0], abs=0.03)

    def test_an_image_of_one_pixel(self, tmp_path: Path) -> None:
        Image.new("RGB", (1, 1), "white").save(tmp_path / "dot.png")
        path = tmp_path / "train.json"
        entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}
        image = {"id": 1, "file_name": "dot.png", "width": 1, "height": 1}
        data = {"images": [image], "annotations": [entry], "categories": [{"id": 1, "name": "x"}]}
        path.write_text(json.dumps(data))
        stored = store(read_coco(path), SIDE, tmp_path, name="train")
        images, boxes, _ = varied(stored, np.array([0]), INPUT, BoxAugment(), (0, 0))
        assert bool(images.isfinite().all())
        assert np.isfinite(boxes[0]).all()
