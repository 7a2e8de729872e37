"""Build the module of a spec. Parameter names follow the rows: `rows.4.expand.conv.weight`."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from bneck.nets.ops import BneckRow, Conv2d, ConvBnAct, GlobalPool, initialise
from bneck.specs.network import NetSpec, layers
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.rows import Bneck, Pool
from bneck.specs.wrapper import PLAIN, Wrapper


class Net(nn.Module):
    """A network: `rows` as the spec lists them, dropout, classifier. `spec` says what it is.

    `normalisation` says what input its weights were made for; ImageNet's unless set. Weights are
    not initialised; `build` does that, `load_net` and `shrink` fill them.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.wrapper: Wrapper = PLAIN
        self.normalisation: Normalisation = IMAGENET
        self.rows = nn.ModuleList()
        for index, group in groupby(layers(spec), key=lambda layer: layer.row):
            walk = list(group)
            if index == len(spec.rows):
                self.dropout = nn.Dropout(spec.dropout)
                self.classifier = Conv2d(walk[0].width_in, walk[0].out, 1)
            elif isinstance(spec.rows[index], Bneck):
                self.rows.append(BneckRow(walk, spec))
            elif isinstance(spec.rows[index], Pool):
                self.rows.append(GlobalPool())
            else:
                self.rows.append(ConvBnAct(walk[0], spec))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> class scores (N, classes), before softmax."""
        for row in self.rows:
            x = row(x)
        scores: Tensor = self.classifier(self.dropout(x)).flatten(1)
        return scores


def build(spec: NetSpec, *, seed: int = 0) -> Net:
    """The module of a spec, freshly initialised; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net(spec)
        initialise(net)
    return net
