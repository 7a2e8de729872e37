"""Build the module of a spec. Parameter names follow the rows: `rows.4.expand.conv.weight`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import TypeVar

import torch
from torch import Tensor, nn

from bneck.nets.ops import BneckRow, Conv2d, ConvBnAct, GlobalPool, initialise
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.rows import Bneck, Pool
from bneck.specs.wrapper import PlainNetwork, Wrapped

N = TypeVar("N", bound=nn.Module)
SIZE = 64  # pixels; the walk is taken at some size, and no width depends on it


class WrappedNet(nn.Module):
    """The rows of a network, with a head that a task adds; `wrapped` says what it is, `spec` its network.

    Parameter names are those of the walk over its layers. `normalisation` says what input its weights
    were made for; ImageNet's unless set. Weights are not initialised.
    """

    def __init__(self, wrapped: Wrapped) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.spec = spec = wrapped.network
        self.normalisation: Normalisation = IMAGENET
        self.rows = nn.ModuleList()
        own = (layer for layer in wrapped.layers(SIZE) if layer.name.startswith("rows."))
        for index, group in groupby(own, key=lambda layer: layer.row):
            walk = list(group)
            if isinstance(spec.rows[index], Pool):
                self.rows.append(GlobalPool())
            elif isinstance(spec.rows[index], Bneck):
                self.rows.append(BneckRow(walk, spec))
            else:
                self.rows.append(ConvBnAct(walk[0], spec))


class Net(WrappedNet):
    """A network: `rows` as the spec lists them, dropout, classifier. `spec` says what it is.

    `build` initialises its weights; `fill` and `shrink` load them.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(PlainNetwork(spec))
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = Conv2d(spec.width_into(len(spec.rows)), spec.classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> class scores (N, classes), before softmax."""
        for row in self.rows:
            x = row(x)
        scores: Tensor = self.classifier(self.dropout(x)).flatten(1)
        return scores


def build(spec: NetSpec, *, seed: int = 0) -> Net:
    """The module of a spec, freshly initialised; the same seed gives the same weights."""
    return seeded(lambda: Net(spec), seed)


def seeded(make: Callable[[], N], seed: int | None) -> N:
    """A module that is initialised from a seed; with None it waits for weights."""
    if seed is None:
        return make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = make()
        initialise(net)
    return net
