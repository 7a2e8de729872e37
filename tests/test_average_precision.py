"""COCO's numbers: by hand, and beside pycocotools where it is installed."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from bneck.tasks.detect.average_precision import NUMBERS, average_precision


def ground(*boxes: tuple[int, int, list[float], int]) -> dict[str, Any]:
    """Two images of 200 x 200; boxes are (image, category, bbox, crowd)."""
    return {
        "images": [{"id": i, "width": 200, "height": 200, "file_name": ""} for i in (1, 2)],
        "annotations": [
            {
                "id": i, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": crowd,
                "area": bbox[2] * bbox[3],
            }
            for i, (image, category, bbox, crowd) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }  # fmt: skip


def result(image: int, category: int, bbox: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": bbox, "score": score}


class TestByHand:
    def test_all_found(self) -> None:
        truth = ground((1, 3, [10, 10, 20, 20], 0), (2, 3, [10, 10, 120, 120], 0))
        found = average_precision(
            truth, [result(1, 3, [10, 10, 20, 20], 0.9), result(2, 3, [10, 10, 120, 120], 0.8)]
        )
        assert (found["AP"], found["AP50"], found["AP_small"], found["AP_large"]) == (1, 1, 1, 1)
        assert found["AP_medium"] is None  # nobody is of medium size
        assert found["classes"]["cat"]["objects"] == 2
        assert found["classes"]["dog"]["AP"] is None
        assert set(NUMBERS) < set(found)

    def test_a_shifted_box_counts_up_to_its_overlap(self) -> None:
        # 40 x 40 moved by 5: 35 / 45 = 0.778, so it hits at 0.5, 0.55, ... 0.75: six of ten thresholds.
        truth = ground((1, 7, [10, 10, 40, 40], 0))
        found = average_precision(truth, [result(1, 7, [15, 10, 40, 40], 0.5)])
        assert found["AP"] == pytest.approx(0.6)
        assert (found["AP50"], found["AP75"]) == (1, 1)

    def test_a_better_false_alarm_halves_it(self) -> None:
        truth = ground((1, 7, [10, 10, 40, 40], 0))
        wrong = result(2, 7, [10, 10, 40, 40], 0.9)
        found = average_precision(truth, [wrong, result(1, 7, [10, 10, 40, 40], 0.5)])
        assert found["AP50"] == pytest.approx(0.5)

    def test_what_lies_in_a_crowd_is_no_false_alarm(self) -> None:
        truth = ground((1, 3, [10, 10, 40, 40], 0), (1, 3, [100, 100, 90, 90], 1))
        hit = result(1, 3, [10, 10, 40, 40], 0.5)
        crowded = [result(1, 3, [110 + i, 110, 20, 20], 0.9) for i in range(3)]
        found = average_precision(truth, [hit, *crowded])
        assert found["AP"] == pytest.approx(1)
        assert found["classes"]["cat"]["objects"] == 1

    def test_nothing_found_and_nothing_there(self) -> None:
        truth = ground((1, 3, [10, 10, 40, 40], 0))
        assert average_precision(truth, [])["AP"] == 0
        empty = average_precision(ground(), [result(1, 3, [1, 1, 5, 5], 0.5)])
        assert [empty[name] for name in NUMBERS] == [None] * 12


def test_it_equals_pycocotools() -> None:
    """Random boxes and detections near them, crowds included."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    boxes, results = [], []
    for _ in range(120):
        image, category = int(rng.integers(1, 3)), int(rng.choice([3, 7]))
        x, y, w, h = (float(v) for v in rng.uniform((0, 0, 4, 4), (100, 100, 100, 100)))
        boxes.append((image, category, [x, y, w, h], int(rng.random() < 0.2)))
        for _ in range(int(rng.integers(0, 4))):
            moved = np.array([x, y, w, h]) + rng.normal(0, 4, 4)
            bbox = [float(v) for v in np.maximum(moved, 0.5)]
            results.append(result(image, category, bbox, float(rng.random())))
    truth = ground(*boxes)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes([dict(entry) for entry in results]), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    found = average_precision(truth, results)
    ours = [-1 if found[name] is None else found[name] for name in NUMBERS]
    assert ours == pytest.approx(judge.stats.tolist(), abs=1e-6)
