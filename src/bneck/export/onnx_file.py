"""Export a net to an ONNX file, and keep the file only if it answers as the module does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.devices.runtimes import Runtime, runtime
from bneck.graphs.onnx_graph import network_graph
from bneck.nets.build import Net
from bneck.nets.fold import folded_weights
from bneck.records.files import write_bytes
from bneck.specs.errors import InputError
from bneck.specs.text import to_text

TOLERANCE = 1e-4  # largest difference of scores, relative to the largest score


class ExportError(InputError):
    """An exported file that does not answer as the module does; the file is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How an exported file compared with the module on real images.

    `label_agreement` is the share of images with the same best class; `largest_difference` that of
    scores, relative to the largest score.
    """

    images: int
    label_agreement: float
    largest_difference: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return asdict(self)


def export_onnx(net: Net, path: Path, images: Tensor, *, classes: Sequence[str]) -> Check:
    """Write `net` as an ONNX file and check it.

    The file takes `image` (N, channels, H, W) float32, normalised as its metadata says (`mean` and
    `std` of pixels from 0 to 1), and gives `scores` (N, classes). Its metadata also holds the class
    names, the resolution and the spec.

    Args:
        net: in evaluation mode.
        path: the file to write.
        images: real images to check with, (N, channels, H, W) normalised.
        classes: names, in the order of the scores.

    Raises:
        ExportError: a label differs, or a score by more than 1e-4 of the largest; no file is left.
        InputError: the disk is full; no file is left.
    """
    metadata = {
        "classes": json.dumps(list(classes)),
        "mean": json.dumps(net.normalisation.mean),
        "std": json.dumps(net.normalisation.std),
        "resolution": str(net.spec.resolution),
        "spec": to_text(net.spec),
    }
    model = network_graph(net.spec, folded_weights(net), metadata=metadata)
    data = model.SerializeToString()
    check = compare(net, data, images, runtime("onnxruntime"))
    write_bytes(path, data)
    return check


@torch.inference_mode()
def compare(net: Net, model: bytes, images: Tensor, engine: Runtime) -> Check:
    """Run a file's bytes beside the module, image by image as a device would.

    Raises:
        ExportError: they disagree.
    """
    session = engine.load(model, threads=1)
    net.eval()
    wanted = net(images).numpy()
    got = np.concatenate([session.run(image[None].numpy()) for image in images])
    largest = float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-9))
    agreement = float((got.argmax(1) == wanted.argmax(1)).mean())
    check = Check(images=len(images), label_agreement=agreement, largest_difference=largest)
    # Written so that a score that is not a number fails too.
    if not (agreement == 1.0 and largest <= TOLERANCE):
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: labels agree "
            f"on {agreement:.1%}, scores differ by {largest:.2g} of the largest; no file was kept"
        )
    return check
