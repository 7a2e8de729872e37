"""A supernet: one set of weights for all networks of a space, each network a slice of it (weight sharing).

For every place of the space (a layer of a block) and every kind of operator there is one row of weights,
as wide and with as large a kernel as any network has it there. A network takes the first channels and the
middle of the kernel. Batch norm's statistics belong to a network, not to the space: while the supernet is
trained every batch gives its own, and a network that is taken out measures them on images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bneck.nas.blocks import BlockSpace
from bneck.nas.space import Tokens
from bneck.nets.batch_norm import reestimate
from bneck.nets.build import Net
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.rows import Bneck

SKELETONS = 256  # networks whose modules are kept; they hold no weights


class Supernet(nn.Module):
    """The shared weights of a space, whose networks are the sub-networks."""

    def __init__(self, space: BlockSpace, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        self.normalisation: Normalisation = IMAGENET
        shapes: dict[str, list[int]] = {}
        for tokens in extremes(space, max):
            self.spec = spec = space.decode(tokens)  # any, for what all of them share
            names = _names(space, tokens, spec)
            for name, parameter in _skeleton(spec).named_parameters():
                known = shapes.setdefault(names[name], list(parameter.shape))
                known[:] = map(max, known, parameter.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.weights = nn.ParameterDict(
                {name: nn.Parameter(_initial(name, shape)) for name, shape in shapes.items()}
            )

    def forward(self, images: Tensor, tokens: Tokens) -> Tensor:
        """Images (N, 3, H, W) -> class scores (N, classes) of one network, with the batch's statistics."""
        skeleton = _skeleton(self.space.decode(tokens))
        scores: Tensor = functional_call(skeleton.train(self.training), self.sliced(tokens), images)
        return scores

    def sliced(self, tokens: Tokens) -> dict[str, Tensor]:
        """The parameters of one network by their names in `Net`: views of the shared ones."""
        spec = self.space.decode(tokens)
        names = _names(self.space, tokens, spec)
        return {
            name: _slice(self.weights[names[name]], wanted.shape)
            for name, wanted in _skeleton(spec).named_parameters()
        }

    @torch.no_grad()
    def network(self, tokens: Tokens, batches: Iterable[Tensor]) -> Net:
        """One network by itself, its batch norms with the statistics of `batches` of normalised images."""
        net = Net(self.space.decode(tokens))
        net.normalisation = self.normalisation
        own = dict(net.named_parameters())
        for name, value in self.sliced(tokens).items():
            own[name].copy_(value)
        reestimate(net, batches)
        return net


def extremes(space: BlockSpace, pick: Callable[[Sequence[float]], float]) -> list[Tokens]:
    """One network for every operator, all else at its greatest (`pick` is max) or least (min).

    All blocks take their n-th operator, or their last where they have fewer. Together the greatest
    ones have every place and operator, each as large as it gets.
    """
    found = []
    for n in range(max(len(block.op) for block in space.blocks)):
        tokens = []
        for choice in space.choices:
            options = space.slots[choice.name]
            if choice.name.endswith(".op"):
                tokens.append(min(n, len(options) - 1))
                continue
            sizes = [o if isinstance(o, int | float) else getattr(o, "out", 0) for o in options]
            tokens.append(sizes.index(pick(sizes)))
        found.append(tuple(tokens))
    return list(dict.fromkeys(found))


def largest(space: BlockSpace) -> Tokens:
    """The network of the most parameters among the greatest."""
    return max(extremes(space, max), key=lambda tokens: _parameters(space.decode(tokens)))


def smallest(space: BlockSpace) -> Tokens:
    """The network of the fewest parameters among the least."""
    return min(extremes(space, min), key=lambda tokens: _parameters(space.decode(tokens)))


def _parameters(spec: NetSpec) -> int:
    return sum(parameter.numel() for parameter in _skeleton(spec).parameters())


def _names(space: BlockSpace, tokens: Tokens, spec: NetSpec) -> dict[str, str]:
    """The shared name of every parameter of a network."""
    places = space.row_places(tokens)
    found = {}
    for name, _ in _skeleton(spec).named_parameters():
        if not name.startswith("rows."):
            found[name] = name.replace(".", "/")
            continue
        _, index, part = name.split(".", 2)
        row = spec.rows[int(index)]
        kind = row.op
        if isinstance(row, Bneck):
            kind = "mbconv" if spec.expands(int(index)) else "dconv"
            if row.needs_expansion:  # the other universal inverted bottlenecks, each by itself
                kind = {(1, 1): "extradw", (1, 0): "convnext"}.get(
                    (bool(row.start), bool(row.kernel)), "ffn"
                )
        found[name] = f"{places[int(index)]}/{kind}/{part}".replace(".", "/")
    return found


@lru_cache(maxsize=SKELETONS)
def _skeleton(spec: NetSpec) -> Net:
    """The modules of a network without weights, whose batch norms keep no statistics."""
    with torch.device("meta"):
        net = Net(spec)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return net


def _initial(name: str, shape: Sequence[int]) -> Tensor:
    """As `nets.ops.initialise` has it for one network."""
    weight = torch.zeros(*shape)
    if len(shape) == 1:
        return weight.fill_(1.0) if name.endswith("bn/weight") else weight
    if name.startswith("classifier"):
        return nn.init.normal_(weight, std=0.01)
    return nn.init.kaiming_normal_(weight, mode="fan_out")


def _slice(shared: Tensor, shape: torch.Size) -> Tensor:
    """The first channels and the middle of the kernel."""
    part = shared[tuple(slice(size) for size in shape[:2])]
    for axis in range(2, len(shape)):
        start = (shared.shape[axis] - shape[axis]) // 2
        part = part.narrow(axis, start, shape[axis])
    return part
