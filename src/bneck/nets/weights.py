"""Weights in safetensors files. Nothing pickled is ever read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bneck.nets.build import Net
from bneck.records.files import write_whole
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec


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


def load_net(spec: NetSpec, path: Path) -> Net:
    """A net of `spec` with the weights of a file, in evaluation mode.

    Raises:
        InputError: the file's tensors are not those of the spec; the first that differ are named.
    """
    net = Net(spec)
    fill(net, path, spec.name)
    return net.eval()


def fill(net: nn.Module, path: Path, name: str) -> None:
    """Load a file's tensors into a module; `name` is what a refusal calls it.

    Raises:
        InputError: the file's tensors are not the module's; the first that differ are named.
    """
    state, wanted = load_weights(path), net.state_dict()
    odd = [
        key
        for key in sorted(set(state) | set(wanted))
        if key not in state or key not in wanted or state[key].shape != wanted[key].shape
    ]
    if odd:
        raise InputError(
            f"{path} does not hold the weights of {name}: {len(odd)} tensors differ, "
            f"first {', '.join(odd[:3])}"
        )
    net.load_state_dict(state)
