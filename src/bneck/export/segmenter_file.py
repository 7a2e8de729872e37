"""Export a segmenter to an ONNX file, and keep the file only if it answers as the module does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bneck.devices.runtimes import runtime
from bneck.export.files import TOLERANCE, ExportError
from bneck.graphs.segmenter_graph import segmenter_graph
from bneck.nets.fold import folded_weights
from bneck.nets.ops import Conv2d
from bneck.nets.segmenter import SegmentNet
from bneck.records.files import write_bytes
from bneck.specs.normalisation import IMAGENET
from bneck.specs.text import to_text


def export_segmenter(
    net: SegmentNet, path: Path, images: Tensor, *, classes: Sequence[str], argmax: bool
) -> dict[str, Any]:
    """Write a segmenter as an ONNX file for the size of `images`; see `graphs.segmenter_graph`.

    Its metadata holds the task, class names, mean and std of pixels from 0 to 1, the network and the
    head's settings.

    Args:
        net: in evaluation mode.
        path: the file to write.
        images: real images to check with, (N, channels, H, W) normalised.
        classes: names, in the order of the scores.
        argmax: with the choice of the best class inside the file.

    Returns:
        How many images were compared, the share of equal pixels, the largest difference of scores
        relative to the largest score (of the chosen classes' scores where the file chooses).

    Raises:
        ExportError: the file does not answer as the module does; no file is left.
        InputError: the disk is full; no file is left.
    """
    metadata = {
        "task": "segment",
        "classes": json.dumps(list(classes)),
        "mean": json.dumps(IMAGENET.mean),
        "std": json.dumps(IMAGENET.std),
        "spec": to_text(net.seg.network),
        "segmenter": json.dumps(net.seg.settings()),
    }
    size = (images.shape[2], images.shape[3])
    model = segmenter_graph(net.seg, shipped(net), size, argmax=argmax, metadata=metadata)
    data = model.SerializeToString()
    check = compare(net, data, images, argmax=argmax)
    write_bytes(path, data)
    return check


def shipped(net: SegmentNet) -> dict[str, npt.NDArray[np.float32]]:
    """Folded weights, with those of the head's plain convolutions."""
    weights = folded_weights(net)
    for name, part in net.head.named_children():
        if isinstance(part, Conv2d):
            for key, value in part.state_dict().items():
                weights[f"head.{name}.{key}"] = value.float().cpu().numpy()
    return weights


@torch.inference_mode()
def compare(net: SegmentNet, model: bytes, images: Tensor, *, argmax: bool) -> dict[str, Any]:
    """Run a file's bytes beside the module, image by image.

    Raises:
        ExportError: they disagree.
    """
    session = runtime("onnxruntime").load(model, threads=1)
    net.eval()
    largest, equal = 0.0, []
    for image in images:
        wanted = net(image[None]).numpy()
        got = session.run(image[None].numpy())
        best = wanted.argmax(1)
        chosen = got if argmax else got.argmax(1)
        equal.append(float((chosen == best).mean()))
        if argmax:  # another class may be chosen only where its score is as good
            gap = wanted.max(1) - np.take_along_axis(wanted, chosen[:, None], 1)[:, 0]
        else:
            gap = np.abs(got - wanted)
        largest = max(largest, float(gap.max() / max(np.abs(wanted).max(), 1e-9)))
    if not largest <= TOLERANCE:
        raise ExportError(
            f"the exported file does not answer as the network does on {len(images)} images: scores differ "
            f"by {largest:.2g} of the largest; no file was kept"
        )
    return {
        "images": len(images),
        "equal_pixels": float(np.mean(equal)),
        "largest_difference": largest,
    }
