"""A trained net's weights in a narrower spec (section 4.2: "truncate").

Every width keeps the channels whose filters have the largest L2 norm, and all that follows a
channel is sliced with it: batch norm, depthwise filter, squeeze-and-excite, the next input. Rows
that a residual adds together keep the same channels.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from bneck.nets.build import Net
from bneck.nets.ops import BneckRow, ConvBnAct, SqueezeExcite
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool
from bneck.specs.transforms import stages


_T = TypeVar("_T")


class ShrinkError(InputError):
    """Two specs that are not a network and a narrower version of it."""


@torch.no_grad()
def shrink(net: Net, spec: NetSpec) -> Net:
    """A new net of the narrower `spec` that holds the strongest channels of `net`.

    Raises:
        ShrinkError: `spec` differs from the net's in more than narrower widths.
    """
    _check(net.spec, spec)
    narrow = Net(spec)
    channels = _kept_outputs(net, spec)
    kept_in = torch.arange(spec.channels)
    for index, (wide_row, narrow_row) in enumerate(zip(net.rows, narrow.rows, strict=True)):
        kept_out = channels.get(index, kept_in)
        if isinstance(wide_row, ConvBnAct):
            _slice_conv(wide_row, _as(ConvBnAct, narrow_row), kept_out, kept_in)
        elif isinstance(wide_row, BneckRow):
            _slice_bneck(wide_row, _as(BneckRow, narrow_row), spec.rows[index], kept_out, kept_in)
        kept_in = kept_out
    narrow.classifier.weight.copy_(net.classifier.weight[:, kept_in])
    assert net.classifier.bias is not None and narrow.classifier.bias is not None
    narrow.classifier.bias.copy_(net.classifier.bias)
    return narrow.train(net.training)


def strength(conv: ConvBnAct) -> Tensor:
    """L2 norm of every output filter, batch norm's scale folded in: (out,)."""
    norms: Tensor = conv.conv.weight.flatten(1).norm(dim=1)
    if isinstance(conv.bn, nn.BatchNorm2d):
        assert conv.bn.running_var is not None
        norms = norms * conv.bn.weight.abs() / (conv.bn.running_var + conv.bn.eps).sqrt()
    return norms


def _check(wide: NetSpec, narrow: NetSpec) -> None:
    same = (
        len(wide.rows) == len(narrow.rows)
        and wide.channels == narrow.channels
        and wide.classes == narrow.classes
    )
    if not same:
        raise ShrinkError(
            f"{narrow.name} is not a narrower {wide.name}: rows, image channels or classes differ in number"
        )
    for i, (a, b) in enumerate(zip(wide.rows, narrow.rows, strict=True)):
        if type(a) is not type(b) or wide.has_skip(i) != narrow.has_skip(i):
            raise ShrinkError(
                f"row {i} of {narrow.name} is of another kind, or its residual differs"
            )
        if isinstance(a, Pool) or isinstance(b, Pool):
            continue
        pairs = [(a.out, b.out), (a.kernel, a.kernel)]
        if isinstance(a, Bneck) and isinstance(b, Bneck):
            pairs += [(a.expanded, b.expanded), (a.se, b.se)]
            expands = a.expanded != wide.width_into(i)
            if expands != (b.expanded != narrow.width_into(i)) or bool(a.se) != bool(b.se):
                raise ShrinkError(f"row {i} of {narrow.name} has gained or lost an operator")
        if a.kernel != b.kernel or a.stride != b.stride or any(was < now for was, now in pairs):
            raise ShrinkError(
                f"row {i} of {narrow.name} is not a narrower row {i} of {wide.name}; "
                "shrinking can only drop channels"
            )


def _kept_outputs(net: Net, spec: NetSpec) -> dict[int, Tensor]:
    """Row index -> kept output channels; rows tied by residuals vote with the sum of squares."""
    kept: dict[int, Tensor] = {}
    for group in stages(net.spec):
        votes = torch.stack([strength(_last_conv(net.rows[i])).square() for i in group]).sum(0)
        row = spec.rows[group[0]]
        assert not isinstance(row, Pool)
        kept |= dict.fromkeys(group, strongest(votes, row.out))
    for i in range(spec.pool_at + 1, len(spec.rows)):
        row = spec.rows[i]
        assert not isinstance(row, Pool)
        kept[i] = strongest(strength(_last_conv(net.rows[i])), row.out)
    return kept


def strongest(votes: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` largest votes, in ascending order; of equal votes the first stay."""
    order = torch.argsort(votes, descending=True, stable=True)
    return order[:keep].sort().values


def _last_conv(row: nn.Module) -> ConvBnAct:
    return _as(ConvBnAct, row.get_submodule("project") if isinstance(row, BneckRow) else row)


def _slice_bneck(wide: BneckRow, narrow: BneckRow, row: object, out: Tensor, into: Tensor) -> None:
    assert isinstance(row, Bneck)
    parts, slim = dict(wide.named_children()), dict(narrow.named_children())
    if "expand" in parts:
        expand = _as(ConvBnAct, parts["expand"])
        kept = strongest(strength(expand), row.expanded)
        _slice_conv(expand, _as(ConvBnAct, slim["expand"]), kept, into)
    else:
        kept = into
    everything = torch.arange(1)  # a depthwise filter has one input
    _slice_conv(
        _as(ConvBnAct, parts["depthwise"]), _as(ConvBnAct, slim["depthwise"]), kept, everything
    )
    if "se" in parts:
        _slice_squeeze(
            _as(SqueezeExcite, parts["se"]), _as(SqueezeExcite, slim["se"]), kept, row.se
        )
    _slice_conv(_as(ConvBnAct, parts["project"]), _as(ConvBnAct, slim["project"]), out, kept)


def _slice_squeeze(wide: SqueezeExcite, narrow: SqueezeExcite, kept: Tensor, width: int) -> None:
    squeezed = strongest(wide.reduce.weight.flatten(1).norm(dim=1), width)
    assert wide.reduce.bias is not None and wide.gate.bias is not None
    assert narrow.reduce.bias is not None and narrow.gate.bias is not None
    narrow.reduce.weight.copy_(wide.reduce.weight[squeezed][:, kept])
    narrow.reduce.bias.copy_(wide.reduce.bias[squeezed])
    narrow.gate.weight.copy_(wide.gate.weight[kept][:, squeezed])
    narrow.gate.bias.copy_(wide.gate.bias[kept])


def _slice_conv(wide: ConvBnAct, narrow: ConvBnAct, out: Tensor, into: Tensor) -> None:
    narrow.conv.weight.copy_(wide.conv.weight[out][:, into])
    if wide.conv.bias is not None and narrow.conv.bias is not None:
        narrow.conv.bias.copy_(wide.conv.bias[out])
    if isinstance(wide.bn, nn.BatchNorm2d):
        for name, value in wide.bn.state_dict().items():
            target = (
                narrow.bn.get_buffer(name) if name in _BUFFERS else narrow.bn.get_parameter(name)
            )
            target.copy_(value if value.dim() == 0 else value[out])


_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def _as(kind: type[_T], module: nn.Module) -> _T:
    assert isinstance(module, kind)
    return module
