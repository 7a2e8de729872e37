"""Export a detector to a runtime's file, and keep the file only if it finds what the module finds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bneck.devices.models import wrapped_model
from bneck.devices.runtimes import OnnxRuntime, Runtime, Session
from bneck.export.files import TOLERANCE_8_BIT, TOLERANCE_HALF, ExportError
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import Quantized, emulation
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation
from bneck.specs.text import from_text, to_text
from bneck.tasks.detect.boxes import Found, as_boxes, detections, overlaps
from bneck.tasks.detect.head import Detector, anchors
from bneck.tasks.detect.module import DetectorNet

TOLERANCE = 1e-3  # of scores, and of boxes in shares of the image
LEAST_COMPARED = 0.05  # scores below hardly order the boxes
# Of a file of fewer bits: the share of boxes that both find, and when two are one.
LEAST_ALIKE, LEAST_ALIKE_HALF = 0.8, 0.95
LEAST_ALIKE_SCORE, ALIKE_SCORE, ALIKE_IOU = 0.1, 0.1, 0.7


def export_detector(
    net: DetectorNet,
    path: Path,
    images: Tensor,
    *,
    classes: Sequence[str],
    decode: bool,
    engine: Runtime | None = None,
    half: bool = False,
    quantized: Quantized | None = None,
) -> dict[str, Any]:
    """Write a detector as a file and check it image by image; see `Detector.answer`.

    Its metadata holds the task, the precision, whether it decodes, class names, resolution, mean and std
    of pixels from 0 to 1, the network, the further maps and the anchors (centre x, centre y, width,
    height).

    Args:
        net: in evaluation mode.
        path: the file to write.
        images: real images to check with, (N, channels, H, W) normalised.
        classes: names, in the order of the labels.
        decode: with decoding and suppression inside the file; in ONNX alone.
        engine: the runtime; None takes ONNX Runtime.
        half: keep the weights in half precision.
        quantized: the detector in 8 bits, in the form of that runtime.

    Returns:
        How many images and boxes were compared, and how, see `compare`.

    Raises:
        ExportError: the file does not find what the module finds; no file is left.
        InputError: the disk is full, or the runtime lacks something; no file is left.
    """
    detector, engine = net.detector, engine or OnnxRuntime()
    precision = "int8" if quantized else "fp16" if half else "fp32"
    metadata = {
        "task": "detect",
        "decoded": json.dumps(decode),
        "precision": precision,
        "classes": json.dumps(list(classes)),
        "mean": json.dumps(net.normalisation.mean),
        "std": json.dumps(net.normalisation.std),
        "resolution": str(detector.resolution),
        "spec": to_text(detector.network),
        "extras": json.dumps(detector.extras),
        "anchors": json.dumps(anchors(detector)),
    }
    data = wrapped_model(
        detector,
        engine,
        (detector.resolution, detector.resolution),
        precision,
        weights=quantized.weights if quantized else folded_weights(net),
        ranges=quantized.ranges if quantized else None,
        finished=decode,
        metadata=metadata,
    )
    how: Any = {"decode": decode, "engine": engine, "half": half, "quantized": quantized}
    check = compare(net, data, images, **how)
    engine.write(path, data)
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
    quantized: Quantized | None = None,
) -> dict[str, Any]:
    """Run a file's bytes beside the module, and compare what both find with scores above 0.05.

    A file of fewer bits is compared by the share of boxes that both find, since a slightly moved box
    lets another one win where two overlap, and by what comes out before decoding; an 8-bit file with
    its emulation.

    Returns:
        images, boxes (the module's), and largest_difference of a box or score, or of a file of fewer
        bits the share of boxes `alike` with the float module's, see `alike_share`.

    Raises:
        ExportError: they disagree.
    """
    session = (engine or OnnxRuntime()).load(model, threads=1)
    places = np.array(anchors(net.detector), np.float32)
    wanted = _found(net.eval(), images, places)
    found = [found_by(session, image[None].numpy(), places, decode=decode) for image in images]
    boxes = sum(len(one.above(LEAST_COMPARED).scores) for one in wanted)
    how = {"images": len(images), "boxes": boxes}
    if not half and not quantized:
        largest = max(difference(a, b) for a, b in zip(wanted, found, strict=True))
        _answers(largest <= TOLERANCE, f"boxes or scores differ by {largest:.2g}", len(images))
        return {**how, "largest_difference": largest}
    module = emulation(net, quantized) if quantized else net
    alike = alike_share(_found(module, images, places) if quantized else wanted, found)
    least = LEAST_ALIKE if quantized else LEAST_ALIKE_HALF
    _answers(alike >= least, f"only {alike:.1%} of the boxes are alike", len(images))
    if not decode:
        apart = _apart(module, session, images)
        tolerance = TOLERANCE_8_BIT if quantized else TOLERANCE_HALF
        _answers(apart <= tolerance, f"its numbers are {apart:.2g} apart", len(images))
    return {**how, "alike": alike_share(wanted, found)}


def _answers(agree: bool, apart: str, images: int) -> None:
    """Raise unless they agree; a figure that is no number agrees with nothing."""
    if not agree:
        raise ExportError(
            f"the exported file does not find what the network finds on {images} images: {apart}; no file "
            "was kept"
        )


def _found(net: nn.Module, images: Tensor, places: Any) -> list[Found]:
    offsets, logits = net(images)
    return [
        detections(one, scores, places)
        for one, scores in zip(offsets.numpy(), logits.numpy(), strict=True)
    ]


def _apart(module: nn.Module, session: Session, images: Tensor) -> float:
    """Root mean square of what offsets or logits differ by, relative to theirs; the larger of both."""
    wanted = [part.numpy() for part in module(images)]
    answers = [session.run_all(image[None].numpy()) for image in images]
    found = [np.concatenate(part) for part in zip(*answers, strict=True)]
    return max(
        float(np.sqrt(np.square(a - b).mean() / max(np.square(a).mean(), 1e-18)))
        for a, b in zip(wanted, found, strict=True)
    )


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


def alike_share(wanted: Sequence[Found], found: Sequence[Found]) -> float:
    """The share of boxes that both find, of the boxes of either; 1 where nothing is found.

    Those with scores above 0.1 are asked for. A box is found if the other has one of its label that
    overlaps it by at least 0.7, with a score at most 0.1 away.
    """
    total = alike = 0
    for one, other in zip(wanted, found, strict=True):
        for a, b in ((one, other), (other, one)):
            asked = a.above(LEAST_ALIKE_SCORE)
            shares = overlaps(asked.boxes, b.boxes)
            near = np.abs(asked.scores[:, None] - b.scores[None, :]) <= ALIKE_SCORE
            same = asked.labels[:, None] == b.labels[None, :]
            alike += int(((shares >= ALIKE_IOU) & near & same).any(1).sum())
            total += len(asked.scores)
    return alike / total if total else 1.0


class FileDetector(nn.Module):
    """An exported detector as a module that answers in its own runtime, on one thread.

    Raises:
        InputError: no detector's file of bneck's without decoding inside, or one that its runtime
            cannot load.
    """

    def __init__(self, path: Path, engine: Runtime) -> None:
        super().__init__()
        self.session = engine.load(engine.read(path), threads=1)
        told = self.session.metadata
        try:
            self.classes: list[str] = list(json.loads(told["classes"]))
            self.detector = Detector(
                network=from_text(told["spec"]),
                classes=len(self.classes),
                resolution=int(told["resolution"]),
                extras=tuple(json.loads(told["extras"])),
            )
            self.normalisation = Normalisation(json.loads(told["mean"]), json.loads(told["std"]))
        except (KeyError, ValueError):
            raise InputError(
                f"{path} is no detector of this version of bneck: its metadata lacks something; export it "
                "again with bneck export"
            ) from None
        if json.loads(told["decoded"]):
            raise InputError(
                f"{path} decodes by itself; give the file that leaves that to bneck (model.onnx of a run)"
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (N, C, H, W) -> offsets (N, anchors, 4), logits (N, anchors, slots)."""
        inputs = np.ascontiguousarray(images.numpy())
        answers = [self.session.run_all(one[None]) for one in inputs]
        offsets, logits = (np.concatenate(part) for part in zip(*answers, strict=True))
        return torch.from_numpy(offsets), torch.from_numpy(logits)
