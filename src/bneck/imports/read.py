"""Which kind of file published weights lie in, told by its content."""

from __future__ import annotations

from pathlib import Path

from bneck.imports.checkpoint import checkpoint_weights, is_safetensors
from bneck.imports.source import Source
from bneck.imports.tflite_file import MAGIC, tflite_weights
from bneck.specs.errors import InputError


def read_source(path: Path, *, port: bool | None = None, weights: str | None = None) -> Source:
    """What a file of published weights holds.

    `port` says whether a timm file is a port of TensorFlow weights; None goes by names. `weights` is
    "raw" or "ema" where a checkpoint has both; None prefers the average.

    Raises:
        InputError: no such file, a damaged one, one with code in it, or one of an unknown format.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except IsADirectoryError:
        raise InputError(
            f"{path} is a folder; name the file of weights in it (a run's folder is a network already)"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if start[4:8] == MAGIC:
        if weights is not None:
            raise InputError(
                f"bneck import --weights chooses among those of a torch or safetensors file, and {path} is a "
                "TFLite file; leave it out"
            )
        return tflite_weights(path)
    is_torch = start[:2] == b"PK" or start[:1] == b"\x80"
    if not is_torch and not is_safetensors(path):
        raise InputError(
            f"{path} is no torch, safetensors or TFLite file; these are the formats that can be imported"
        )
    return checkpoint_weights(path, port=port, weights=weights)
