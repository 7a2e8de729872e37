"""A network under names of nobody known here: its tensors find their places by order and shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, permutations

from torch import Tensor

from bneck.imports.source import Place, Shape, places
from bneck.specs.network import NetSpec

STATISTICS = "running_mean"


@dataclass(frozen=True, slots=True)
class _Module:
    """A module of the file: its name, and the shape of its weight as a convolution's."""

    name: str
    shape: Shape
    bias: bool


Pairs = list[tuple[Place, str, str]]
MOST_PARTS = 5  # of a network whose order is tried out


def by_order(state: dict[str, Tensor], spec: NetSpec, *, ordered: bool) -> Pairs | None:
    """Which module of the file is at which place: (place, its convolution, its batch norm).

    Rows follow one another in the file as in the network. Inside a row, a convolution of a shape that
    no other one of the row has may stand anywhere; those of one shape must stand in the network's order.

    Args:
        state: the file's tensors.
        spec: the network; its number of classes does not matter.
        ordered: whether the file keeps the order in which modules were made, as torch's do. Else names
            are sorted, numbers by value, and the parts of the network (features, classifier) may follow
            one another in the one order that fits.

    Returns:
        None where that is not certain: another number of modules, a shape or a bias that does not fit.
    """
    if ordered:
        return _placed(state, list(state), spec)
    parts: dict[str, list[str]] = {}
    for name in sorted(state, key=_natural):
        parts.setdefault(name.partition(".")[0], []).append(name)
    if len(parts) > MOST_PARTS:
        return None
    orders = ([name for part in order for name in part] for order in permutations(parts.values()))
    fitting = [pairs for names in orders if (pairs := _placed(state, names, spec)) is not None]
    return fitting[0] if len(fitting) == 1 else None


def _placed(state: dict[str, Tensor], names: list[str], spec: NetSpec) -> Pairs | None:
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    convs = [
        _Module(name, _shape(weight), f"{name}.bias" in state)
        for name in modules
        if (weight := state.get(f"{name}.weight")) is not None and weight.ndim in (2, 4)
    ]
    norms = [name for name in modules if f"{name}.{STATISTICS}" in state]
    wanted = places(spec)
    if len(convs) != len(wanted) or len(norms) != sum(place.bn is not None for place in wanted):
        return None
    if len(state) != sum(1 for place in wanted for _ in place.names()) + _counters(state):
        return None
    found: Pairs = []
    held, following = iter(convs), iter(norms)
    position = {module.name: number for number, module in enumerate(convs)}
    for _, row in groupby(wanted, key=lambda place: place.layer.row):
        own = list(row)
        placed = _row(own, [next(held) for _ in own])
        if placed is None:
            return None
        # Batch norms stand in the order of the convolutions that they follow in the file.
        normed = sorted((p for p in own if p.bn), key=lambda p: position[placed[p.conv].name])
        norm = {place.conv: next(following) for place in normed}
        for place in own:
            bn = norm.get(place.conv, "")
            if bn and state[f"{bn}.{STATISTICS}"].shape != place.shape[:1]:
                return None
            found.append((place, placed[place.conv].name, bn))
    return found


def _row(own: list[Place], held: list[_Module]) -> dict[str, _Module] | None:
    """The modules of a row by the place's name."""
    if [place.part for place in own] == ["classifier"]:
        fits = held[0].shape[1:] == own[0].shape[1:] and held[0].bias
        return {own[0].conv: held[0]} if fits else None
    in_order = [place.shape for place in own] == [module.shape for module in held]
    placed: dict[str, _Module] = {}
    for number, place in enumerate(own):
        fitting = [module for module in held if module.shape == place.shape]
        if not in_order and len(fitting) != 1:
            return None
        module = held[number] if in_order else fitting[0]
        if module.bias == (
            place.bn is not None
        ):  # a bias where the network has none, or the reverse
            return None
        placed[place.conv] = module
    return placed


def _counters(state: dict[str, Tensor]) -> int:
    return sum(value.ndim == 0 for value in state.values())


def _shape(weight: Tensor) -> Shape:
    return tuple(weight.shape) if weight.ndim == 4 else (*weight.shape, 1, 1)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Words of a name so that 10 comes after 9."""
    return [(not word.isdigit(), int(word) if word.isdigit() else 0, word) for word in _words(name)]


def _words(name: str) -> Iterator[str]:
    return (word for word in re.split(r"(\d+)|\.", name) if word)
