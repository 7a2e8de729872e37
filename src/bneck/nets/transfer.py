"""Begin a training from another net's weights: the same rows or narrower ones, other classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from bneck.nets.build import Net, build
from bneck.nets.importance import Importance
from bneck.nets.shrink import shrink
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.transforms import with_classes


def transferred(
    start: Net, spec: NetSpec, *, seed: int = 0, importance: Importance | None = None
) -> Net:
    """A net of `spec` with the weights of `start`, whose normalisation it takes over.

    Where `spec` is narrower, the most important channels are kept (see `shrink`). With another number of
    classes the classifier is initialised again; the same seed gives the same one.

    Raises:
        ShrinkError: `spec` differs from the start's in more than widths and classes.
    """
    # What does not touch the weights follows the new spec: classes, input side, dropout, statistics.
    free = {name: getattr(spec, name) for name in ("resolution", "dropout", "bn_momentum")}
    wanted = replace(with_classes(spec, start.spec.classes), bn_eps=start.spec.bn_eps)
    source = Net(replace(start.spec, **free))
    source.load_state_dict(start.state_dict())
    weights = shrink(source, wanted, importance).state_dict()
    net = build(replace(spec, bn_eps=start.spec.bn_eps), seed=seed)
    if spec.classes != start.spec.classes:
        weights = {name: v for name, v in weights.items() if not name.startswith("classifier.")}
    net.load_state_dict(weights, strict=False)
    net.normalisation = start.normalisation
    return net


@torch.no_grad()
def take_rows(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy a classification network's `weights` (named as in `Net`) into the rows of a net with another head.

    What the net does not have (the convolutions after the pool, the classifier) is left out. An error
    calls the weights `source`.

    Raises:
        InputError: a row is missing or of another shape; the first such tensor is named.
    """
    for name, value in net.state_dict().items():
        if not name.startswith("rows."):
            continue
        if name not in weights or weights[name].shape != value.shape:
            had = tuple(weights[name].shape) if name in weights else "nothing"
            raise InputError(
                f"{source} does not hold this network's backbone: {name} must have shape "
                f"{tuple(value.shape)}, it has {had}; take weights of the same network"
            )
        value.copy_(weights[name])


def is_folded(net: Net) -> bool:
    """Whether all batch norms are mere biases: weights of a file whose batch norm was folded."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    return bool(norms) and all(map(_is_bias, norms))


@torch.no_grad()
def restore_statistics(net: Net, batches: Iterable[Tensor]) -> None:
    """Give folded batch norms the statistics of real images; the net computes what it did.

    Args:
        net: with folded batch norms, see `is_folded`.
        batches: normalised images (N, channels, H, W), a few hundred in all.
    """
    # A folded batch norm is a bias: it neither centres nor scales. Trained further it would do both,
    # by the batch, and so begin as another function. With the mean m and deviation d of what enters
    # it, scale d and shift (bias + m) give the same values, and the batch's own m and d nearly so.
    sums = {
        norm: torch.zeros(3, norm.num_features, dtype=torch.float64)
        for norm in net.modules()
        if isinstance(norm, nn.BatchNorm2d)
    }

    def add(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double()
        first = values.sum((0, 2, 3))
        count = torch.full_like(first, values.numel() // values.shape[1])
        sums[norm] += torch.stack([count, first, values.square().sum((0, 2, 3))])

    handles = [norm.register_forward_pre_hook(add) for norm in sums]
    training = net.training
    net.eval()
    for images in batches:
        net(images)
    for handle in handles:
        handle.remove()
    for norm, (count, first, second) in sums.items():
        mean = first / count
        variance = (second / count - mean.square()).clamp(min=0).float()
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
        norm.bias.add_(mean.float())
        norm.weight.copy_((variance + norm.eps).sqrt())
    net.train(training)


def _is_bias(norm: nn.BatchNorm2d) -> bool:
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight / (variance + norm.eps).sqrt()
    return bool((mean == 0).all()) and bool(((scale - 1).abs() < 1e-6).all())
