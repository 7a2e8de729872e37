"""Export a segmenter to a runtime's file, and keep the file only if it answers as the module does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.devices.models import wrapped_model
from bneck.devices.runtimes import Runtime, Session, runtime
from bneck.export.files import TOLERANCE, TOLERANCE_8_BIT, TOLERANCE_HALF, ExportError
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import Quantized, emulation
from bneck.specs.errors import InputError
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.text import to_text
from bneck.tasks.segment.module import SegmentNet

Array = np.ndarray[Any, np.dtype[Any]]


def export_segmenter(
    net: SegmentNet,
    path: Path,
    images: Tensor,
    *,
    labels: Mapping[str, Any],
    argmax: bool,
    engine: Runtime | None = None,
    half: bool = False,
    quantized: Quantized | None = None,
) -> dict[str, Any]:
    """Write a segmenter as a file for the size of `images`; see `Segmenter.answer`.

    Its metadata holds the task, the precision, class names, colours and ids, mean and std of pixels
    from 0 to 1, the size, the order of axes that comes out, the network and the head's settings.

    Args:
        net: in evaluation mode.
        path: the file to write.
        images: real images to check with, (N, channels, H, W) normalised.
        labels: "names" in the order of the scores; "colours" and "ids" where they are known.
        argmax: with the choice of the best class inside the file.
        engine: the runtime; None takes ONNX Runtime.
        half: keep the weights in half precision.
        quantized: the segmenter in 8 bits, in the form of that runtime.

    Returns:
        How many images were compared, the share of pixels with the module's class, and the largest
        difference of scores relative to the largest score (of the chosen classes' scores where the
        file chooses). Scores of an 8-bit file are compared with its emulation's.

    Raises:
        ExportError: the file does not answer as the module does; no file is left.
        InputError: the disk is full, or the runtime lacks something; no file is left.
    """
    engine = engine or runtime("onnxruntime")
    precision = "int8" if quantized else "fp16" if half else "fp32"
    size = (images.shape[2], images.shape[3])
    metadata = {
        "task": "segment",
        "precision": precision,
        "classes": json.dumps(list(labels["names"])),
        "labels": json.dumps(dict(labels)),
        "mean": json.dumps(IMAGENET.mean),
        "std": json.dumps(IMAGENET.std),
        "size": json.dumps(size),
        "axes": "NHW" if argmax else "NHWC" if engine.suffix == ".tflite" else "NCHW",
        "spec": to_text(net.seg.network),
        "segmenter": json.dumps(net.seg.settings()),
    }
    data = wrapped_model(
        net.seg,
        engine,
        size,
        precision,
        weights=quantized.weights if quantized else folded_weights(net),
        ranges=quantized.ranges if quantized else None,
        finished=argmax,
        metadata=metadata,
    )
    check = compare(net, data, images, argmax=argmax, engine=engine, half=half, quantized=quantized)
    engine.write(path, data)
    return check


@torch.inference_mode()
def compare(
    net: SegmentNet,
    model: bytes,
    images: Tensor,
    *,
    argmax: bool,
    engine: Runtime | None = None,
    half: bool = False,
    quantized: Quantized | None = None,
) -> dict[str, Any]:
    """Run a file's bytes beside the module, image by image.

    Raises:
        ExportError: they disagree: scores by more than 1e-4 of the largest, in half precision by a
            hundredth; in 8 bits their root mean square by more than a tenth of the emulation's.
    """
    session = (engine or runtime("onnxruntime")).load(model, threads=1)
    net.eval()
    module = emulation(net, quantized) if quantized else net
    equal, largest, squares, all_squares = [], 0.0, 0.0, 0.0
    for image in images:
        wanted = module(image[None]).numpy()
        got = answer(session, image[None].numpy(), argmax=argmax)
        chosen = got if argmax else got.argmax(1)
        best = net(image[None]).numpy().argmax(1) if quantized else wanted.argmax(1)
        equal.append(float((chosen == best).mean()))
        if argmax:  # another class may be chosen only where its score is as good
            gap = wanted.max(1) - np.take_along_axis(wanted, chosen[:, None], 1)[:, 0]
        else:
            gap = np.abs(got - wanted)
        largest = max(largest, float(gap.max() / max(np.abs(wanted).max(), 1e-9)))
        squares += float(np.square(gap, dtype=np.float64).mean())
        all_squares += float(np.square(wanted, dtype=np.float64).mean())
    if quantized:
        answers = (squares / max(all_squares, 1e-18)) ** 0.5 <= TOLERANCE_8_BIT
    else:
        answers = largest <= (TOLERANCE_HALF if half else TOLERANCE)
    if not answers:
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: scores differ "
            f"by {largest:.2g} of the largest; no file was kept"
        )
    return {
        "images": len(images),
        "equal_pixels": float(np.mean(equal)),
        "largest_difference": largest,
    }


def answer(session: Session, image: Array, *, argmax: bool) -> Array:
    """What a loaded file says of one image (1, C, H, W): classes (1, H, W), or scores (1, classes, H, W)."""
    found = session.run_all(image)[0]
    if argmax or session.metadata.get("axes") != "NHWC":
        return found
    return found.transpose(0, 3, 1, 2)


class FileSegmenter:
    """An exported segmenter that answers in its own runtime, on one thread.

    `size` is the (height, width) of the images that it takes, `labels` the classes' names, colours and
    ids, `chooses` whether classes come out, not scores.

    Raises:
        InputError: no segmenter's file of bneck's, or one that its runtime cannot load.
    """

    def __init__(self, path: Path, engine: Runtime) -> None:
        self.session = engine.load(engine.read(path), threads=1)
        told = self.session.metadata
        try:
            self.labels: dict[str, Any] = json.loads(told["labels"])
            self.size: tuple[int, int] = tuple(json.loads(told["size"]))
            self.chooses = told["axes"] == "NHW"
            self.normalisation = Normalisation(json.loads(told["mean"]), json.loads(told["std"]))
        except (KeyError, ValueError):
            raise InputError(
                f"{path} is no segmenter of this version of bneck: its metadata lacks something; export it "
                "again with bneck export"
            ) from None

    def answer(self, image: Tensor) -> Tensor:
        """A normalised image (1, C, *size) -> scores (1, classes, *size), or classes (1, *size)."""
        found = answer(self.session, image.contiguous().numpy(), argmax=self.chooses)
        return torch.from_numpy(np.ascontiguousarray(found))
