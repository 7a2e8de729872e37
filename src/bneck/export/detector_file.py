"""Export a detector to an ONNX or TFLite file, and keep the file only if it finds what the module finds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.devices.runtimes import OnnxRuntime, Runtime, Session
from bneck.export.files import ExportError
from bneck.graphs.detector_graph import detector_graph
from bneck.graphs.onnx_graph import Weights, halved
from bneck.nets.detector import DetectorNet
from bneck.nets.fold import folded_weights
from bneck.records.files import write_bytes
from bneck.specs.detector import anchors
from bneck.specs.text import to_text
from bneck.tasks.boxes import Found, as_boxes, detections

TOLERANCE = 1e-3  # of scores, and of boxes in shares of the image
TOLERANCE_HALF = 0.02  # with weights in half precision
LEAST_COMPARED = 0.05  # scores below hardly order the boxes


def export_detector(
    net: DetectorNet,
    path: Path,
    images: Tensor,
    *,
    classes: Sequence[str],
    decode: bool,
    engine: Runtime | None = None,
    half: bool = False,
) -> dict[str, Any]:
    """Write a detector as a file and check it image by image; see `graphs.detector_graph`.

    Its metadata holds the task, whether it decodes, class names, resolution, mean and std of pixels
    from 0 to 1, the network and the anchors (centre x, centre y, width, height).

    Args:
        net: in evaluation mode.
        path: the file to write.
        images: real images to check with, (N, channels, H, W) normalised.
        classes: names, in the order of the labels.
        decode: with decoding and suppression inside the file; not in TFLite files.
        engine: ONNX Runtime or LiteRT; None takes the former.
        half: keep the weights in half precision.

    Returns:
        How many images and boxes were compared, and the largest difference.

    Raises:
        ExportError: the file does not find what the module finds; no file is left.
        InputError: the disk is full; no file is left.
    """
    detector, engine = net.detector, engine or OnnxRuntime()
    metadata = {
        "task": "detect",
        "decoded": json.dumps(decode),
        "classes": json.dumps(list(classes)),
        "mean": json.dumps(net.normalisation.mean),
        "std": json.dumps(net.normalisation.std),
        "resolution": str(detector.resolution),
        "spec": to_text(detector.network),
        "anchors": json.dumps(anchors(detector)),
    }
    weights: Weights = halved(folded_weights(net)) if half else folded_weights(net)
    if engine.suffix == ".tflite":
        from bneck.graphs.tflite_heads import tflite_detector

        data = tflite_detector(detector, weights, metadata=metadata)
    else:
        graph = detector_graph(detector, weights, decode=decode, metadata=metadata)
        data = graph.SerializeToString()
    check = compare(net, data, images, decode=decode, engine=engine, half=half)
    write_bytes(path, data)
    return check


@torch.inference_mode()
def compare(
    net: DetectorNet,
    model: bytes,
    images: Tensor,
    *,
    decode: bool,
    engine: Runtime | None = None,
    half: bool = False,
) -> dict[str, Any]:
    """Run a file's bytes beside the module, and compare what both find with scores above 0.05.

    Raises:
        ExportError: they disagree.
    """
    session = (engine or OnnxRuntime()).load(model, threads=1)
    places = np.array(anchors(net.detector), np.float32)
    offsets, logits = net.eval()(images)
    largest, boxes = 0.0, 0
    for image, one, scores in zip(images, offsets.numpy(), logits.numpy(), strict=True):
        wanted = detections(one, scores, places)
        found = found_by(session, image[None].numpy(), places, decode=decode)
        boxes += len(wanted.above(LEAST_COMPARED).scores)
        largest = max(largest, difference(wanted, found))
    if not largest <= (TOLERANCE_HALF if half else TOLERANCE):
        raise ExportError(
            f"the exported file does not find what the network finds on {len(images)} images: boxes or "
            f"scores differ by {largest:.2g}; no file was kept"
        )
    return {"images": len(images), "boxes": boxes, "largest_difference": largest}


def found_by(session: Session, image: Any, places: Any, *, decode: bool) -> Found:
    """What a loaded file finds in one image (1, C, H, W)."""
    if decode:
        boxes, scores, labels = session.run_all(image)
        return Found(as_boxes(boxes), scores, labels)
    offsets, logits = session.run_all(image)
    return detections(offsets[0], logits[0], places)


def difference(wanted: Found, found: Found) -> float:
    """Largest difference of box or score; infinite where one of both has a box that the other lacks.

    Each box is compared with the one of its label that is nearest: equal scores may come in either order.
    Boxes whose score is within the tolerance of the least compared may be in one of both only.
    """
    largest = 0.0
    for a, b in ((wanted, found), (found, wanted)):
        for box, score, label in zip(a.boxes, a.scores, a.labels, strict=True):
            if score < LEAST_COMPARED + TOLERANCE:
                continue
            same = b.labels == label
            if not same.any():
                return float("inf")
            gaps = np.maximum(np.abs(b.boxes[same] - box).max(1), np.abs(b.scores[same] - score))
            largest = max(largest, float(gaps.min()))
    return largest
