"""Export a net to a runtime's file, and keep the file only if it answers as the module does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bneck.devices.models import network_model
from bneck.devices.runtimes import Runtime, Session, runtime
from bneck.graphs.forms import Precision
from bneck.nets.build import Net
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import Quantized, emulation
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation
from bneck.specs.text import from_text, to_text

TOLERANCE = 1e-4  # largest difference of scores, relative to the largest score
# Weights in half precision are off by up to 2^-11 of themselves.
TOLERANCE_HALF = 0.01
# Between an 8-bit file and its emulation: ties round differently, and that adds up over the layers; a
# single score may be far off, so this is the root mean square against that of the scores.
TOLERANCE_8_BIT = 0.1

FORMATS = {
    "onnx": "onnxruntime",
    "tflite": "litert",
    "openvino": "openvino",
    "pte": "executorch",
    "torch": "torch",
}
"""The formats of files and the runtime that each is made for."""


class ExportError(InputError):
    """An exported file that does not answer as the module does; the file is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How an exported file compared with the module on real images.

    `label_agreement` is the share of images with the same best class; `largest_difference` that of
    scores, relative to the largest score. An 8-bit file is compared with its emulation.
    """

    images: int
    label_agreement: float
    largest_difference: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return asdict(self)


def export_file(
    net: Net,
    path: Path,
    images: Tensor,
    *,
    classes: Sequence[str],
    engine: Runtime | None = None,
    quantized: Quantized | None = None,
    half: bool = False,
    pixels: bool = False,
) -> Check:
    """Write `net` as a file for a runtime and check it there.

    The file takes one input `image`, normalised as its metadata says (`mean` and `std` of pixels from
    0 to 1), and gives `scores` (N, classes). Its metadata also holds the class names, the resolution,
    the precision, the kind of input and the spec.

    Args:
        net: in evaluation mode.
        path: the file to write.
        images: real images to check with, (N, channels, H, W) normalised.
        classes: names, in the order of the scores.
        engine: the runtime; None takes ONNX Runtime.
        quantized: the network in 8 bits, in the form of that runtime; None writes float32.
        half: keep the float weights in half precision, which halves the file.
        pixels: fold the normalisation in, so that the file takes (N, H, W, channels) uint8 RGB.

    Raises:
        ExportError: a label differs, or a score by more than 1e-4 of the largest (in half precision
            only a score, by a hundredth; in 8 bits their root mean square by a tenth); no file is left.
        InputError: the disk is full, or the runtime lacks something; no file is left.
    """
    engine = engine or runtime("onnxruntime")
    precision: Precision = "int8" if quantized else "fp16" if half else "fp32"
    metadata = {
        "classes": json.dumps(list(classes)),
        "mean": json.dumps(net.normalisation.mean),
        "std": json.dumps(net.normalisation.std),
        "resolution": str(net.spec.resolution),
        "precision": precision,
        "input": "pixels" if pixels else "normalised",
        "spec": to_text(net.spec),
    }
    data = network_model(
        net.spec,
        engine,
        precision,
        weights=quantized.weights if quantized else folded_weights(net),
        ranges=quantized.ranges if quantized else None,
        pixels=net.normalisation if pixels else None,
        metadata=metadata,
    )
    check = compare(net, data, images, engine, quantized, half=half)
    engine.write(path, data)
    return check


def compare(
    net: Net,
    model: bytes,
    images: Tensor,
    engine: Runtime,
    quantized: Quantized | None = None,
    *,
    half: bool = False,
) -> Check:
    """Run a file's bytes beside the module, image by image as a device would.

    Raises:
        ExportError: they disagree.
    """
    net.eval()
    return _compare(
        emulation(net, quantized) if quantized else net,
        engine.load(model, threads=1),
        images,
        net.normalisation,
        "int8" if quantized else "fp16" if half else "fp32",
    )


@torch.inference_mode()
def _compare(
    module: nn.Module,
    session: Session,
    images: Tensor,
    normalisation: Normalisation,
    precision: Precision,
) -> Check:
    wanted = module(images).numpy()
    inputs = images.numpy()
    if session.metadata.get("input") == "pixels":
        inputs = as_pixels(images, normalisation)
    got = np.concatenate([session.run(image[None]) for image in inputs])
    largest = float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-9))
    agreement = float((got.argmax(1) == wanted.argmax(1)).mean())
    check = Check(images=len(images), label_agreement=agreement, largest_difference=largest)
    match precision:  # written so that a score that is not a number fails too
        case "fp32":
            answers = agreement == 1.0 and largest <= TOLERANCE
        case "fp16":
            answers = largest <= TOLERANCE_HALF
        case "int8":
            apart = float(np.sqrt(np.square(got - wanted).mean() / np.square(wanted).mean()))
            answers = apart <= TOLERANCE_8_BIT
    if not answers:
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: labels agree "
            f"on {agreement:.1%}, scores differ by {largest:.2g} of the largest; no file was kept"
        )
    return check


class FileNet(nn.Module):
    """An exported file as a module that answers in its own runtime, on one thread.

    Raises:
        InputError: no file of bneck's, or one that its runtime cannot load.
    """

    def __init__(self, path: Path, engine: Runtime) -> None:
        super().__init__()
        self.session = engine.load(engine.read(path), threads=1)
        told = self.session.metadata
        if (task := told.get("task", "classify")) != "classify":
            raise InputError(f"{path} is made to {task}; judge it with bneck.evaluate_{task}")
        try:
            self.spec = from_text(told["spec"])
            self.classes: list[str] = list(json.loads(told["classes"]))
            self.normalisation = Normalisation(json.loads(told["mean"]), json.loads(told["std"]))
        except (KeyError, ValueError):
            raise InputError(
                f"{path} was not exported by bneck: its metadata lacks the classes"
            ) from None

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) -> class scores (N, classes)."""
        inputs = images.numpy()
        if self.session.metadata.get("input") == "pixels":
            inputs = as_pixels(images, self.normalisation)
        return torch.from_numpy(np.concatenate([self.session.run(one[None]) for one in inputs]))


def as_pixels(images: Tensor, normalisation: Normalisation) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Normalised images (N, C, H, W) back to the pixels that they were, (N, H, W, C) uint8."""
    mean, std = (
        torch.tensor(values).view(-1, 1, 1) * 255
        for values in (normalisation.mean, normalisation.std)
    )
    pixels = (images * std + mean).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()
