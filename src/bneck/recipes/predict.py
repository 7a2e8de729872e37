"""Classify pictures with a run's exported file: no torch needed for it, only its runtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bneck.data.images import Pixels
from bneck.data.pack import decode, stored_side
from bneck.devices.runtimes import Array, file_runtimes, runtime
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError


def predict(
    run: str | Path, images: Sequence[str | Path], *, top: int = 5
) -> list[list[tuple[str, float]]]:
    """The `top` classes of every picture with their probabilities, best first.

    Args:
        run: a run's folder, or a file that export has written, in any format.
        images: picture files; the central square is looked at.
        top: how many classes.

    Raises:
        InputError: no exported model there, or a picture that cannot be read.
    """
    if top < 1:
        raise InputError(f"top is {top}; it must be at least 1")
    path = Path(run)
    model = RunFolder(path).model if path.is_dir() else path
    if not model.is_file():
        raise InputError(
            f"{path} has no model.onnx; give a finished run's folder or an exported file"
        )
    engine = runtime((file_runtimes(model) or ("onnxruntime",))[0])
    session = engine.load(engine.read(model), threads=1)
    if session.metadata.get("task") == "detect":
        raise InputError(f"{model} is a detector; use bneck.detect")
    if session.metadata.get("task") == "segment":
        raise InputError(f"{model} is a segmenter; use bneck.paint")
    try:
        classes = json.loads(session.metadata["classes"])
        resolution = int(session.metadata["resolution"])
        mean, std = (np.array(json.loads(session.metadata[k]), np.float32) for k in ("mean", "std"))
    except (KeyError, ValueError):
        raise InputError(
            f"{model} was not exported by bneck: its metadata lacks the classes"
        ) from None
    found = []
    for image in images:
        pixels = _central(decode(Path(image), stored_side(resolution)), resolution)
        x: Array
        if session.metadata.get("input") == "pixels":
            x = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        else:
            x = (pixels.astype(np.float32) / 255 - mean[:, None, None]) / std[:, None, None]
        scores = session.run(x[None])[0].astype(np.float64)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        best = np.argsort(-shares)[:top]
        found.append([(str(classes[i]), float(shares[i])) for i in best])
    return found


def _central(pixels: Pixels, side: int) -> Pixels:
    start = (pixels.shape[1] - side) // 2
    return pixels[:, start : start + side, start : start + side]
