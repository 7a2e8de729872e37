"""State dicts of torch and safetensors files. Nothing in a file is ever executed."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bneck.imports.hub import preprocessing
from bneck.imports.source import Source, filters, places, rename
from bneck.imports.timm_names import is_timm, timm_weights
from bneck.imports.torchvision_names import is_torchvision, torchvision_weights
from bneck.nets.weights import load_weights
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation
from bneck.specs.rows import SpecError

WRAPPERS = ("state_dict", "model")  # where training scripts put the tensors
_CODE = re.compile(r"GLOBAL ([\w.]+)")


def checkpoint_weights(path: Path, *, port: bool | None) -> Source:
    """What a state dict holds, by its names: torchvision's, timm's or this project's own.

    `port` says whether a timm file is a port of TensorFlow weights; None goes by the file's name
    and by a config.json next to it.

    Raises:
        InputError: the file is damaged, holds code, or has names of none of the three.
    """
    state = read_state(path)
    if is_torchvision(state):
        return torchvision_weights(state)
    if is_timm(state):
        config = config_next_to(path)
        if port is None:
            named = (path.name, str(config.get("architecture", "")))
            port = any(name.startswith("tf_") for name in named)
        return timm_weights(state, port=port, normalisation=_normalisation(config))
    if "rows.0.conv.weight" in state:
        return Source(
            layout="bneck",
            filters=filters(state),
            named=lambda spec: rename(state, ((p, p.conv, p.bn or "") for p in places(spec))),
        )
    raise InputError(
        f"{path} has names of no known layout (its first: {', '.join([*state][:3])}); known are "
        "torchvision's and timm's state dicts, TFLite files and bneck's own weights"
    )


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: eight bytes of length, then json."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch or safetensors file by name, as float32 where they are floats.

    Raises:
        InputError: the file is damaged, holds code, no tensors by name, or sparse or quantized ones.
    """
    state = load_weights(path) if is_safetensors(path) else _unwrapped(path, _torch_load(path))
    state = {name.removeprefix("module."): value for name, value in state.items()}
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }


def _torch_load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and (code := _CODE.search(str(error))):
            raise InputError(
                f"{path} holds code ({code[1]}), which is never run here; ask for a file of tensors alone, "
                "as torch.save(model.state_dict(), ...) or safetensors write it"
            ) from None
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"{path} is not a whole torch file: {reason}; fetch it again") from None


def _unwrapped(path: Path, held: Any) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
    if not isinstance(held, dict) or not held:
        raise InputError(
            f"{path} holds a {type(held).__name__}; it must hold a state dict, tensors by name"
        )
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path} holds a {type(value).__name__} under {name!r}; it must hold a state dict, "
                "tensors by name"
            )
        if value.is_quantized:
            raise InputError(
                f"{path} holds quantized tensors (its first: {name}), as torch's own int8 networks do; "
                "import the float weights that they were made from, or an int8 TFLite file"
            )
        if value.layout is not torch.strided:
            raise InputError(
                f"{path} holds sparse tensors (its first: {name}); save them again after value.to_dense()"
            )
    return held


def config_next_to(path: Path) -> dict[str, Any]:
    """The config.json that model hubs put next to weights: architecture, preprocessing; {} for none."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _normalisation(config: dict[str, Any]) -> Normalisation | None:
    try:
        return Normalisation.from_json(preprocessing(config))
    except (LookupError, TypeError, SpecError):
        return None
