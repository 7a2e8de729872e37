"""What a file of published weights holds, whatever its format: tensors, and how they were used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bneck.graphs.weights import weight_shapes
from bneck.specs.network import Layer, NetSpec, Padding, layers
from bneck.specs.normalisation import Normalisation

Shape = tuple[int, ...]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
SEEN = "num_batches_tracked"  # older files lack it, and no evaluation reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One convolution of a network, where published weights go: `rows.3.se.gate`, `classifier`.

    `conv` and `bn` are the names of its modules in a net; `bn` is None where it has a bias.
    `shape` is its weight's: (out, in, kernel, kernel). `part` says which of its row it is:
    conv, start, expand, depthwise, reduce, gate, project, classifier.
    """

    conv: str
    bn: str | None
    part: str
    shape: Shape
    layer: Layer

    def names(self) -> Iterator[str]:
        """Its tensors in a net's state."""
        yield f"{self.conv}.weight"
        if self.bn is None:
            yield f"{self.conv}.bias"
        else:
            yield from (f"{self.bn}.{name}" for name in BATCH_NORM)


def places(spec: NetSpec) -> list[Place]:
    """Every convolution of a network, in the order in which an image meets them."""
    found: list[Place] = []
    for layer in layers(spec, 1):
        for name, shape in weight_shapes(layer).items():
            module, _, tensor = name.rpartition(".")
            if tensor == "bias":
                continue
            words = module.split(".")
            bare = layer.kind == "squeeze" or module == "classifier"
            conv = module if bare else f"{module}.conv"
            bn = f"{module}.bn" if layer.bn else None
            part = words[-1] if bare or len(words) > 2 else "conv"
            found.append(Place(conv=conv, bn=bn, part=part, shape=shape, layer=layer))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A file's tensors under the names of a net's state.

    `origin` has the file's name for each of the net's, also for those that the file lacks; `left`
    are the file's names that the network has no place for. `notes` are sentences for the user.
    """

    tensors: dict[str, Tensor]
    origin: dict[str, str]
    left: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of published weights; None where the file and its format say nothing.

    `layout` names the format ("torchvision"). `filters` are the shapes of all its convolutions, as
    `Place.shape`. `named` gives its tensors a network's names. `notes` are sentences for the user.
    `takes` is the kind of number that a file which can be run takes as input ("float32", "uint8"),
    `softmax` whether its outputs went through one, `rounded` whether it computes in 8 bits.
    """

    layout: str
    filters: tuple[Shape, ...]
    named: Callable[[NetSpec], Named]
    padding: Padding | None = None
    bn_eps: float | None = None
    normalisation: Normalisation | None = None
    resolution: int | None = None
    notes: tuple[str, ...] = ()
    takes: str | None = None
    softmax: bool = False
    rounded: bool = False


Renamed = Iterable[tuple[Place, str, str]]  # a place, the file's conv and batch norm


def rename(state: dict[str, Tensor], pairs: Renamed) -> Named:
    """A state dict under a net's names; linear layers become 1x1 convolutions."""
    tensors: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for place, conv, bn in pairs:
        for name in place.names():
            module, _, tensor = name.rpartition(".")
            origin[name] = f"{conv if module == place.conv else bn}.{tensor}"
        if place.bn is not None and f"{bn}.{SEEN}" in state:
            origin[f"{place.bn}.{SEEN}"] = f"{bn}.{SEEN}"
    for name, foreign in origin.items():
        if foreign in state:
            value = state[foreign]
            is_linear = name.endswith(".weight") and value.ndim == 2
            tensors[name] = value[:, :, None, None] if is_linear else value
    known = set(origin.values())
    left = tuple(name for name in state if name not in known)
    return Named(tensors=tensors, origin=origin, left=left)


def filters(state: dict[str, Tensor]) -> tuple[Shape, ...]:
    """Shapes of a state dict's convolutions; a linear layer counts as a 1x1 one."""
    return tuple(
        tuple(value.shape) if value.ndim == 4 else (*value.shape, 1, 1)
        for name, value in state.items()
        if name.endswith(".weight") and value.ndim in (2, 4)
    )


def folded(place: Place, weight: Tensor, bias: Tensor, eps: float) -> dict[str, Tensor]:
    """The tensors of a place for a convolution whose batch norm was folded into it.

    Its batch norm becomes bias alone: variance 1 - eps, so that the square root of variance + eps
    is exactly 1.
    """
    if place.bn is None:
        return {f"{place.conv}.weight": weight, f"{place.conv}.bias": bias}
    one = torch.ones_like(bias)
    values = (weight, one, bias, torch.zeros_like(bias), one - eps)
    return dict(zip(place.names(), values, strict=True))
