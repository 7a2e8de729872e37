"""The one state dict of a checkpoint: what training scripts put around it and before its names is taken off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bneck.specs.errors import InputError, few

KINDS = ("raw", "ema")
# Where training scripts put the weights that they train, the likeliest first.
WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "student",
)  # fmt: skip
# The first tensor of the layouts that are known by name: torchvision's, timm's, bneck's own.
MARKERS = ("features.0.0.weight", "conv_stem.weight", "rows.0.conv.weight")
DEPTH = 3  # of dictionaries inside dictionaries
_AVERAGED = re.compile(
    r"(?:^|[._])(?:ema|swa|averaged?|shadow)(?:[._]|$)|^model_?ema|ema_?model", re.IGNORECASE
)
_COMPILED = "_orig_mod."
_SCALARS = (int, float, str, type(None))

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapped:
    """Tensors by the names of the network itself, and sentences on what was taken and left."""

    state: State
    notes: tuple[str, ...]


def unwrapped(path: Path, held: Any, wanted: str | None = None) -> Unwrapped:
    """The weights of one network in what a checkpoint holds.

    Args:
        path: of the file, for the refusals.
        held: what it holds: tensors by name, or dictionaries of such.
        wanted: the weights as trained or their moving average (EMA); None prefers the average.

    Raises:
        InputError: no state dict, several of which none is the usual one, or none of the kind wanted.
    """
    found = dict(_states(held)) or {"": held}
    taken, state, notes = _chosen(path, found, wanted)
    parts, rest = _by_prefix(_tensors(path, state))
    prefix, own, more = _chosen(path, parts, None if _AVERAGED.search(taken) else wanted)
    if wanted == "ema" and not _AVERAGED.search(f"{taken}.{prefix}"):
        raise InputError(
            f"{path} has no averaged (EMA) weights; leave bneck import --weights out to take those it has"
        )
    if not any(marker in own for marker in MARKERS):
        cut = _common(own)
        prefix, own = prefix + cut, {name[len(cut) :]: value for name, value in own.items()}
    notes = [*notes, *more]
    if prefix:
        notes = [*notes, f"the prefix {prefix} was taken off the names"]
    return Unwrapped(state=own | rest, notes=tuple(notes))


def _states(held: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every dictionary that has a matrix in it, by the keys that lead to it."""
    if not isinstance(held, Mapping) or len(keys) > DEPTH:
        return
    if any(isinstance(value, Tensor) and value.ndim > 1 for value in held.values()):
        yield ".".join(keys), held
        return
    for key, value in held.items():
        if isinstance(key, str):
            yield from _states(value, (*keys, key))


def _chosen(path: Path, found: Mapping[str, Any], wanted: str | None) -> tuple[str, Any, list[str]]:
    """The weights that are meant, of several by the keys or prefixes that they stand under."""
    averaged = [name for name in found if _AVERAGED.search(name)]
    raw = [name for name in found if name not in averaged]
    if wanted == "raw" and not raw:
        raise InputError(
            f"{path} has averaged (EMA) weights alone ({few(averaged)}); leave bneck import --weights out to "
            "take them"
        )
    candidates = raw if wanted == "raw" or not averaged else averaged
    names = [name.strip(".").rpartition(".")[2] for name in candidates]
    usual = [wrapper for wrapper in ("", *WRAPPERS) if wrapper in names]
    if len(candidates) == 1:
        taken = candidates[0]
    elif usual:
        taken = candidates[names.index(usual[0])]
    else:
        raise InputError(
            f"{path} holds {len(candidates)} networks ({few(candidates)}); save the one that is meant in a "
            "file of its own"
        )
    others = [name.strip(".") or "the weights without it" for name in found if name != taken]
    notes = []
    if taken and (others or not taken.endswith(".")):
        kind = "averaged (EMA) weights" if taken in averaged else "weights"
        left = f"; left out: {few(others)}" if others else ""
        how = " (--weights raw takes the others)" if taken in averaged and raw else ""
        notes.append(f"{kind} taken from {taken.strip('.')}{left}{how}")
    elif others:
        notes.append(f"left out: the weights under {few(others)}")
    return taken, found[taken], notes


def _tensors(path: Path, held: Any) -> State:
    if not isinstance(held, Mapping) or not held:
        raise InputError(
            f"{path} holds a {type(held).__name__}; it must hold a state dict, tensors by name"
        )
    counts = any(isinstance(value, Tensor) for value in held.values())
    state: State = {}
    for name, value in held.items():
        if counts and isinstance(name, str) and isinstance(value, _SCALARS):
            continue  # an epoch, a version
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path} holds a {type(value).__name__} under {name!r}; it must hold a state dict, "
                "tensors by name"
            )
        whole = not (value.is_floating_point() or value.is_complex() or value.is_meta)
        if value.is_quantized or (whole and name.endswith("weight")):
            raise InputError(
                f"{path} holds quantized tensors (its first: {name}), as torch's own int8 networks do; "
                "import the float weights that they were made from, or an int8 TFLite file"
            )
        if value.layout is not torch.strided:
            raise InputError(
                f"{path} holds sparse tensors (its first: {name}); save them again after value.to_dense()"
            )
        if value.is_meta or value.is_complex():
            kind = (
                "without values (on torch's device meta)" if value.is_meta else "of complex numbers"
            )
            raise InputError(
                f"{path} holds tensors {kind}, its first: {name}; save the network's real weights"
            )
        if not name.endswith("n_averaged"):  # torch's own counter of an average
            state[name.replace(_COMPILED, "")] = value
    return state


def _by_prefix(state: State) -> tuple[dict[str, State], State]:
    """The networks of a known layout in one dict, by their prefix; {"": all} where there is none."""
    prefixes = {
        name.removesuffix(marker)
        for name in state
        for marker in MARKERS
        if name == marker or name.endswith(f".{marker}")
    }
    parts: dict[str, State] = {prefix: {} for prefix in sorted(prefixes, key=len, reverse=True)}
    rest: State = {}
    for name, value in state.items():
        prefix = next((one for one in parts if name.startswith(one)), None)
        if prefix is None:
            rest[name] = value
        else:
            parts[prefix][name[len(prefix) :]] = value
    return (parts, rest) if parts else ({"": rest}, {})


def _common(state: State) -> str:
    """What all names begin with, whole words up to a dot; a name of its own stays."""
    first, *_ = words = [name.split(".")[:-1] for name in state]
    shared = 0
    while all(len(one) > shared + 1 and one[: shared + 1] == first[: shared + 1] for one in words):
        shared += 1
    return "".join(f"{word}." for word in first[:shared])
