"""COCO's twelve numbers, by faster-coco-eval."""

from __future__ import annotations

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


def check_evaluator() -> None:
    """Raise InputError where the package that computes COCO's numbers is missing."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError:
        raise InputError(
            "faster-coco-eval is not installed; install it with: pip install 'bneck[detect]'"
        ) from None


def average_precision(
    ground: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Score detections against ground truth, both as COCO's json has them.

    `ground` has images, annotations (bbox, area, iscrowd) and categories, each of `results` image_id,
    category_id, bbox [x, y, width, height] in pixels, and score.

    Returns:
        The twelve `NUMBERS`, from 0 to 1, None where no object is of such a size; and under "classes"
        by name AP, AP50, AP by size, and how many objects there are, crowds aside.

    Raises:
        InputError: faster-coco-eval is not installed.
    """
    check_evaluator()
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(dict(ground))
    # loadRes refuses an empty list.
    loaded = (
        truth.loadRes([*map(dict, results)]) if results else COCO({**ground, "annotations": []})
    )
    judge = COCOeval_faster(truth, loaded, iouType="bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    # (IoU thresholds, recall thresholds, classes, areas, boxes allowed)
    precision = np.asarray(judge.eval["precision"])
    return {
        **{name: _mean(np.asarray(v)) for name, v in zip(NUMBERS, judge.stats[:12], strict=True)},
        "classes": {
            category["name"]: _of_class(precision[:, :, place, :, -1], category["id"], ground)
            for place, category in enumerate(sorted(ground["categories"], key=lambda c: c["id"]))
        },
    }


def _of_class(precision: Any, category: int, ground: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: _mean(precision[:, :, area]) for area, name in enumerate(SIZES)}
    objects = sum(
        a["category_id"] == category and not a.get("iscrowd", 0) for a in ground["annotations"]
    )
    return {**found, "AP50": _mean(precision[0, :, 0]), "objects": objects}


def _mean(values: Any) -> float | None:
    known = values[values > -1]  # -1 stands for no objects, and NaN is not above it
    return float(known.mean()) if known.size else None
