"""State dicts of torch and safetensors files. Nothing in a file is ever executed."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bneck.imports.hub import preprocessing
from bneck.imports.order import by_order
from bneck.imports.source import Named, Source, filters, places, rename
from bneck.imports.timm_names import is_timm, timm_weights
from bneck.imports.torchvision_names import is_torchvision, torchvision_weights
from bneck.imports.unwrap import Unwrapped, unwrapped
from bneck.nets.weights import load_weights
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.rows import SpecError

FOREIGN = "foreign"  # the layout of names of nobody known here
_CODE = re.compile(r"GLOBAL ([\w.]+)")
BY_ORDER = (
    "the names are of no layout known here, so tensors were placed by order and shape; padding, epsilon, "
    "mean and std are assumed to be as usual in torch (bneck import --padding, --bn-eps, --mean and --std)"
)


def checkpoint_weights(
    path: Path, *, port: bool | None = None, weights: str | None = None
) -> Source:
    """What a state dict holds, by its names: torchvision's, timm's, this project's own, or by order.

    Args:
        path: the file.
        port: whether a timm file is a port of TensorFlow weights; None goes by the file's name and by a
            config.json next to it.
        weights: "raw" or "ema" where a file has both, see `unwrap.unwrapped`.

    Raises:
        InputError: the file is damaged, holds code, or no convolutions by name.
    """
    held = read_state(path, weights)
    state, ordered = held.state, not is_safetensors(path)
    if not filters(state):
        raise InputError(
            f"{path} has no convolutions or linear layers by name (it has {few([*state])}); there is "
            "nothing to import"
        )
    source = _source(path, state, port)

    def named(spec: NetSpec) -> Named:
        found = source.named(spec)
        if not found.left and found.origin.keys() == found.tensors.keys():
            return found
        pairs = by_order(state, spec, ordered=ordered)
        return found if pairs is None else replace(rename(state, pairs), notes=(BY_ORDER,))

    return replace(source, named=named, notes=(*source.notes, *held.notes))


def _source(path: Path, state: dict[str, Tensor], port: bool | None) -> Source:
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
    return Source(
        layout=FOREIGN,
        filters=filters(state),
        named=lambda spec: rename(
            state, ((p, f"(row {p.layer.row} {p.part})", "(its batch norm)") for p in places(spec))
        ),
        padding="symmetric",
        bn_eps=1e-5,
        normalisation=IMAGENET,
    )


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: eight bytes of length, then json."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_state(path: Path, weights: str | None = None) -> Unwrapped:
    """The tensors of a torch or safetensors file by name, as float32 where they are floats.

    Raises:
        InputError: the file is damaged, holds code, no tensors by name, or sparse or quantized ones.
    """
    held = unwrapped(
        path, load_weights(path) if is_safetensors(path) else _torch_load(path), weights
    )
    floats = {
        name: value.float() if value.is_floating_point() else value
        for name, value in held.state.items()
    }
    return replace(held, state=floats)


def _torch_load(path: Path) -> Any:
    try:
        # What scripts put next to weights, and what holds values alone.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "TorchScript" in str(error):
            raise InputError(
                f"{path} is a TorchScript program, which is never run here; ask for a file of tensors alone, "
                "as torch.save(model.state_dict(), ...) writes it"
            ) from None
        if isinstance(error, pickle.UnpicklingError) and (code := _CODE.search(str(error))):
            raise InputError(
                f"{path} holds code ({code[1]}), which is never run here; ask for a file of tensors alone, "
                "as torch.save(model.state_dict(), ...) or safetensors write it"
            ) from None
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"{path} is not a whole torch file: {reason}; fetch it again") from None


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
