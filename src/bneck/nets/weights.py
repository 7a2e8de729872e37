"""Weights in safetensors files. Nothing pickled is ever read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bneck.records.files import write_whole
from bneck.specs.errors import InputError


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Raises:
        InputError: the disk is full.
    """

    def write(partial: Path) -> None:
        try:
            save_file({key: value.contiguous() for key, value in state.items()}, partial)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    write_whole(path, write)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        InputError: no such file, or not a whole safetensors file.
    """
    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from None


def fill(net: nn.Module, path: Path, name: str) -> None:
    """Load a file's tensors into a module; `name` is what an error calls it.

    Raises:
        InputError: the file's tensors are not the module's; the first that differ are named.
    """
    state = load_weights(path)
    found, wanted = ({(k, v.shape) for k, v in some.items()} for some in (state, net.state_dict()))
    if odd := sorted({key for key, _ in found ^ wanted}):
        raise InputError(
            f"{path} does not hold the weights of {name}: {len(odd)} tensors differ, "
            f"first {', '.join(odd[:3])}"
        )
    net.load_state_dict(state)
