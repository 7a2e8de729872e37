"""COCO's twelve numbers, by faster-coco-eval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bneck.specs.errors import InputError

# As pycocotools prints them: average precision and recall over IoU 0.5 to 0.95, at 0.5 and at 0.75; of
# small (below 32 x 32 pixels), medium and large (above 96 x 96) objects; recall by boxes allowed.
NUMBERS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
SIZES = ("AP", "AP_small", "AP_medium", "AP_large")  # the evaluator's areas, in its order


def average_precision(
    ground: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Judge detections against ground truth, both as COCO's json has them.

    Args:
        ground: images, annotations (bbox, area, iscrowd) and categories.
        results: image_id, category_id, bbox [x, y, width, height] in pixels, and score.

    Returns:
        The twelve `NUMBERS`, from 0 to 1, None where no object is of such a size; and under "classes"
        by name AP, AP50, AP by size, and how many objects there are, crowds aside.

    Raises:
        InputError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise InputError(
            "faster-coco-eval is not installed; install it with: pip install 'bneck[detect]'"
        ) from None
    truth = COCO(dict(ground))
    judge = COCOeval_faster(truth, _loaded(COCO, truth, results), iouType="bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    found: dict[str, Any] = {
        name: _number(value) for name, value in zip(NUMBERS, judge.stats[:12], strict=True)
    }
    # (IoU thresholds, recall thresholds, classes, areas, boxes allowed)
    precision = np.asarray(judge.eval["precision"])
    found["classes"] = {
        category["name"]: _of_class(precision[:, :, place, :, -1], category["id"], ground)
        for place, category in enumerate(sorted(ground["categories"], key=lambda c: c["id"]))
    }
    return found


def _loaded(kind: Any, truth: Any, results: Sequence[Mapping[str, Any]]) -> Any:
    if results:
        return truth.loadRes([dict(entry) for entry in results])
    parts = ("images", "categories")
    return kind({**{part: truth.dataset[part] for part in parts}, "annotations": []})


def _of_class(precision: Any, category: int, ground: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: _mean(precision[:, :, area]) for area, name in enumerate(SIZES)}
    objects = sum(
        a["category_id"] == category and not a.get("iscrowd", 0) for a in ground["annotations"]
    )
    return {**found, "AP50": _mean(precision[0, :, 0]), "objects": objects}


def _mean(values: Any) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _number(value: float) -> float | None:
    return float(value) if value > -1 and math.isfinite(value) else None
