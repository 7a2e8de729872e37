"""Weights of a narrowed network that give what the wide one gave: least squares, layer by layer.

Where channels are cut, a 1x1 convolution reads fewer than it was trained on. From the first row to the
classifier its weights are solved anew, on what the rows before it give now, so that what comes out
before the nonlinearity is as near as can be to what the wide network has in the same channels (after He et
al. 2017, "Channel pruning"). The last convolution of a row also makes up for what its residual input lacks,
and for residual rows after it that are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from bneck.nets.build import Net, WrappedNet
from bneck.nets.ops import BneckRow, ConvBnAct
from bneck.nets.shrink import Kept

IMAGES, LEAST = 512, 64
PIXELS = 2**23  # of all images: what bounds the memory, some 500 MB
RIDGE = 0.01  # of the inputs' mean variance, what pulls towards the weights there were; more for few samples


@torch.no_grad()
def reconstruct(wide: WrappedNet, narrow: WrappedNet, kept: Kept, batches: Iterable[Tensor]) -> int:
    """Solve a narrowed network's 1x1 convolutions in its rows, and a classifier; how many images did it.

    Args:
        wide: the trained network. Both are left in evaluation mode.
        narrow: what `shrink_into` made of it; changed in place.
        kept: the channels that it kept, see `kept_channels`.
        batches: of normalised images (N, channels, H, W); after `IMAGES` images or `PIXELS` pixels no
            more are taken. What a row makes of them is held in memory.
    """
    wide.eval()
    narrow.eval()
    pairs = [(images, images) for images in _enough(batches)]  # inputs of a row: wide and narrow
    images = sum(len(one) for one, _ in pairs)
    ends = [*kept.rows[1 : len(narrow.rows)], kept.rows[len(narrow.rows) - 1] + 1]
    for index, row in enumerate(narrow.rows):
        source, end = kept.rows[index], ends[index]
        following = [wide.rows[i] for i in range(source, end)]
        if isinstance(row, BneckRow):
            _solve_bneck(row, following, pairs, kept, index)
        elif isinstance(row, ConvBnAct):
            before = wide.rows[source]
            assert isinstance(before, ConvBnAct)
            solve(row, ((x, _linear(before, t)[:, kept.out[index]]) for t, x in pairs))
        pairs = [(_through(following, t), row(x)) for t, x in pairs]
    if isinstance(narrow, Net) and isinstance(wide, Net):
        solve(narrow.classifier, ((x, wide.classifier(t)) for t, x in pairs))
    return images


def _enough(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    taken = 0
    for images in batches:
        most = max(LEAST, min(IMAGES, PIXELS // images[0, 0].numel()))
        yield images[: most - taken]
        taken += len(images)
        if taken >= most:
            break


def _solve_bneck(
    row: BneckRow, wide: Sequence[nn.Module], pairs: Sequence[tuple[Tensor, Tensor]], kept: Kept,
    index: int,
) -> None:  # fmt: skip
    """Solve the expansion and the last convolution of a row; `wide` are its source and rows left out."""
    source = wide[0]
    assert isinstance(source, BneckRow)
    if "expand" in dict(row.named_children()):
        (mine, its), inner = _parts(row, source, "expand"), kept.expanded[index]
        solve(
            mine,
            (
                (_until(row, mine, x), _linear(its, _until(source, its, t))[:, inner])
                for t, x in pairs
            ),
        )
    (mine, its), out = _parts(row, source, "project"), kept.out[index]

    def wanted(t: Tensor, x: Tensor) -> Tensor:
        if not isinstance(its.act, nn.Identity):
            return _linear(its, _until(source, its, t))[:, out]
        whole = _through(wide, t)[:, out]
        return whole - x if row.adds else whole

    solve(mine, ((_until(row, mine, x), wanted(t, x)) for t, x in pairs))


def _parts(row: BneckRow, source: BneckRow, name: str) -> tuple[ConvBnAct, ConvBnAct]:
    mine, its = row.get_submodule(name), source.get_submodule(name)
    assert isinstance(mine, ConvBnAct)
    assert isinstance(its, ConvBnAct)
    return mine, its


def _through(rows: Iterable[nn.Module], x: Tensor) -> Tensor:
    for row in rows:
        x = row(x)
    return x


def _until(row: BneckRow, layer: nn.Module, x: Tensor) -> Tensor:
    """What enters a layer of a row."""
    for part in row.children():
        if part is layer:
            break
        x = part(x)
    return x


def _linear(layer: ConvBnAct, x: Tensor) -> Tensor:
    """What enters a layer's nonlinearity."""
    found: Tensor = layer.bn(layer.conv(x))
    return found


def solve(layer: ConvBnAct | nn.Conv2d, samples: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give a 1x1 convolution the weights whose outputs before the nonlinearity are nearest to those wanted.

    Args:
        layer: with a batch norm, whose statistics are then those of the samples, or with a bias. Another
            kernel is left as it is.
        samples: its input (N, in, H, W) and the outputs wanted (N, out, H, W), batch by batch.
    """
    conv = layer.conv if isinstance(layer, ConvBnAct) else layer
    norm = layer.bn if isinstance(layer, ConvBnAct) else None
    if conv.kernel_size != (1, 1) or conv.groups != 1:
        return
    weight = conv.weight.flatten(1).double()
    count, mean_x, mean_y, inner, across = _moments(samples)
    ridge = (RIDGE + len(inner) / count) * inner.diagonal().mean().clamp_min(1e-12)
    now = weight
    if isinstance(norm, nn.BatchNorm2d):
        now = weight * _scale(norm)[:, None]
    inner_ridge = inner + ridge * torch.eye(len(inner), dtype=torch.float64, device=inner.device)
    solved = now + torch.linalg.solve(inner_ridge, across - inner @ now.T).T
    if not isinstance(norm, nn.BatchNorm2d):
        assert conv.bias is not None
        conv.weight.copy_(solved[:, :, None, None])
        conv.bias.copy_(mean_y - solved @ mean_x)
        return
    # Filters keep their norms, on which weight decay and learning rate act; batch norm has the rest.
    was, is_now = weight.norm(dim=1), solved.norm(dim=1)
    size = torch.where((was > 0) & (is_now > 0), was / is_now.clamp_min(1e-12), 1.0)
    filters = solved * size[:, None]
    variance = ((filters @ inner) * filters).sum(1).clamp_min(0)
    conv.weight.copy_(filters[:, :, None, None])
    norm.get_buffer("running_mean").copy_(filters @ mean_x)
    norm.get_buffer("running_var").copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt() / size)
    norm.bias.copy_(mean_y)


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    return (norm.weight / (norm.get_buffer("running_var") + norm.eps).sqrt()).double()


def _moments(
    samples: Iterable[tuple[Tensor, Tensor]],
) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
    """How many pixels; means (in,) and (out,), covariances (in, in) and (in, out)."""
    count, sums = 0, list[Tensor]()
    for x, y in samples:
        one, other = (v.double().permute(0, 2, 3, 1).flatten(0, 2) for v in (x, y))
        found = [one.sum(0), other.sum(0), one.T @ one, one.T @ other]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        count += len(one)
    mean_x, mean_y, inner, across = (one / count for one in sums)
    return (
        count, mean_x, mean_y, inner - torch.outer(mean_x, mean_x),
        across - torch.outer(mean_x, mean_y),
    )  # fmt: skip
