"""A file's weights in a network: every name accounted for, or one sentence that says what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import log
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bneck.imports.source import Named, Shape, Source, places
from bneck.nets.build import Net, build
from bneck.specs import zoo
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.specs.rows import SpecError
from bneck.specs.transforms import scale_width, with_classes

IMAGENET_CLASSES = (1000, 1001)  # ImageNet's, and with a background class before them
CLASSIFIER = "classifier.weight"
_WIDTHS = (1.0, 0.75, 0.5, 0.35, 1.25, 1.4, *(round(0.05 * i, 2) for i in range(2, 51)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A net with a file's weights, the file's names that were allowed to stay unmatched, and notes."""

    net: Net
    excused: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Odd:
    """A name without a match: `kind` says on which side; `own` is the net's name for it, if any."""

    kind: Literal["left", "missing", "shape"]
    foreign: str
    own: str = ""
    note: str = ""

    def excused(self, patterns: Sequence[str]) -> bool:
        """Whether a pattern names it, on either side."""
        return any(fnmatchcase(name, p) for name in (self.foreign, self.own) for p in patterns)


def matched(
    spec: NetSpec, source: Source, *, path: Path, excuses: Sequence[str] = (), classes: int | None = None
) -> Matched:  # fmt: skip
    """Put a file's weights into a net of `spec`, in evaluation mode.

    The number of classes is the file's. `excuses` are patterns (`classifier.*`) of names that may
    stay unmatched: those of the file are dropped, those of the net keep fresh weights.

    Raises:
        InputError: the file holds another network, another width, another number of classes than
            `classes` (None: 1000, 1001 or the spec's own), names unmatched, or values that are no
            numbers.
    """
    named = source.named(spec)
    odd = list(_odd(spec, named))
    if left := [entry for entry in odd if not entry.excused(excuses)]:
        raise InputError(_refusal(spec, source, named, path, left))
    skipped = {entry.own for entry in odd}
    if CLASSIFIER not in skipped:
        held = int(named.tensors[CLASSIFIER].shape[0])
        _check_classes(spec, held, classes, path)
        spec = with_classes(spec, held)
    elif classes is not None:
        spec = with_classes(spec, classes)
    net = build(spec)
    state = net.state_dict()
    for name, value in named.tensors.items():
        if name in skipped:
            continue
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{path} holds values that are no numbers in {named.origin[name]}; fetch it again"
            )
        if name.endswith("running_var") and bool((value < 0).any()):
            raise InputError(
                f"{path} has negative variances in {named.origin[name]}, as no batch norm has; fetch it again"
            )
        state[name].copy_(value)  # the net's own memory
    excused = tuple(dict.fromkeys(entry.foreign for entry in odd))
    return Matched(net=net.eval(), excused=excused, notes=named.notes)


def _check_classes(spec: NetSpec, held: int, wanted: int | None, path: Path) -> None:
    if wanted is not None and held != wanted:
        raise InputError(
            f"{path} has {held} classes, not {wanted}; leave --classes out, or give the classifier fresh "
            f"weights for {wanted} with bneck import --allow-unmatched 'classifier.*'"
        )
    if wanted is None and held not in (*IMAGENET_CLASSES, spec.classes):
        raise InputError(
            f"{path} has {held} classes, published weights have 1000, or 1001 with the background; say "
            f"bneck import --classes {held} if it is meant to have them"
        )


def _odd(spec: NetSpec, named: Named) -> Iterator[Odd]:
    yield from (Odd("left", name) for name in named.left)
    wanted: dict[str, Shape] = {}
    for place in places(spec):
        wanted |= dict.fromkeys(place.names(), place.shape[:1])
        wanted[f"{place.conv}.weight"] = place.shape
    head = named.tensors.get(CLASSIFIER)
    for name, shape in wanted.items():
        foreign, value = named.origin[name], named.tensors.get(name)
        if name.startswith("classifier.") and head is not None:
            shape = (head.shape[0], *shape[1:])  # any number of classes
        if value is None:
            yield Odd("missing", foreign, name)
        elif tuple(value.shape) != shape:
            yield Odd("shape", foreign, name, f"{_text(value.shape)}, not {_text(shape)}")


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _refusal(spec: NetSpec, source: Source, named: Named, path: Path, odd: list[Odd]) -> str:
    held = which_network(source.filters, first=spec.name)
    if held not in (None, spec.name.partition("@")[0]):
        return f"{path} holds {held}, not {spec.name}; import it with bneck import --as {held}"
    if all(entry.kind == "shape" for entry in odd) and (share := _width(spec, named.tensors)) != 1:
        return (
            f"{path} is about {share:g} times as wide as {spec.name}, by no rule of width known here; write "
            f"its table as a spec file (bneck show {spec.name} --text prints one) and give that "
            "to bneck import --as"
        )
    parts = []
    for kind, what in (
        ("left", "names of the file have no place in the network"),
        ("missing", "names that the network needs are not in the file"),
        ("shape", "names have another shape"),
    ):
        names = [f"{e.foreign} ({e.note})" if e.note else e.foreign for e in odd if e.kind == kind]
        if names:
            parts.append(f"{len(names)} {what}: {few(list(dict.fromkeys(names)))}")
    return (
        f"{path} does not match {spec.name}: {'; '.join(parts)}; name what may differ with "
        "bneck import --allow-unmatched PATTERN"
    )


def _width(spec: NetSpec, tensors: dict[str, Tensor]) -> float:
    """The multiplier of the spec that comes nearest to a file's widths before the pool."""

    def distance(width: float) -> float:
        inside = [p for p in places(scale_width(spec, width)) if p.layer.row < spec.pool_at]
        pairs = [(p.shape[0], tensors.get(f"{p.conv}.weight")) for p in inside]
        return sum(abs(log(held.shape[0] / out)) for out, held in pairs if held is not None)

    return min(_WIDTHS, key=distance)


def which_network(filters: Sequence[Shape], *, first: str = "") -> str | None:
    """The zoo's network, at a width from 0.1 to 2.5, that has just these convolutions; None: none.

    The number of classes does not matter. The family that `first` belongs to is tried first.
    """
    held = Counter(filters)
    for family in sorted(zoo.NETWORKS, key=lambda name: (not first.startswith(name), -len(name))):
        if len(places(zoo.NETWORKS[family])) != len(filters):
            continue
        for width in _WIDTHS:
            name = family if width == 1 else f"{family}-{width}"
            with suppress(SpecError):
                if _holds(held, zoo.network(name)):
                    return name
    return None


def _holds(held: Counter[Shape], spec: NetSpec) -> bool:
    *inner, classifier = [place.shape for place in places(spec)]
    rest = held - Counter(inner)
    return (
        sum(rest.values()) == 1
        and sum(held.values()) == len(inner) + 1
        and next(iter(rest))[1:] == classifier[1:]
    )
