"""A trained net's weights in a narrower spec (section 4.2: "truncate").

Every width keeps the channels whose filters have the largest L2 norm, and all that follows a
channel is sliced with it: batch norm, depthwise filter, squeeze-and-excite, the next input. Rows
that a residual adds together keep the same channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from bneck.nets.build import SIZE, Net, WrappedNet
from bneck.nets.ops import BneckRow, ConvBnAct, SqueezeExcite
from bneck.specs.errors import InputError
from bneck.specs.network import Layer, NetSpec, layers
from bneck.specs.rows import Bneck, Conv, Pool, Row
from bneck.specs.transforms import stages

_T = TypeVar("_T")
N = TypeVar("N", bound=WrappedNet)


class ShrinkError(InputError):
    """Two specs that are not a network and a narrower version of it."""


def shrink(net: Net, spec: NetSpec) -> Net:
    """A new net of the narrower `spec` that holds the strongest channels of `net`.

    Raises:
        ShrinkError: `spec` differs from the net's in more than narrower widths.
    """
    return shrink_into(net, Net(spec))


@torch.no_grad()
def shrink_into(net: WrappedNet, narrow: N) -> N:
    """Fill a module of the same kind round a narrower network with the strongest channels of `net`.

    The rows keep their strongest channels; what follows them keeps all of its own, and follows
    the channels of its input (`Wrapped.feeds`).

    Args:
        net: what to shrink; it stays as it is.
        narrow: changed in place, and given back.

    Raises:
        ShrinkError: they differ in more than narrower widths of their networks.
    """
    wide, slim = net.wrapped, narrow.wrapped
    for name, value in wide.settings().items():
        other = slim.settings().get(name)
        if other != value:
            raise ShrinkError(
                f"{name} is {value} in {wide.name} and {other} in {slim.name}; shrinking can only narrow "
                "the network"
            )
    narrow.normalisation = net.normalisation
    kept = shrink_rows(net.rows, narrow.rows, wide.network, slim.network)
    feeds, behind = slim.feeds(), dict[str, Tensor]()
    for layer in slim.layers(SIZE):
        if layer.name.startswith("rows.") or layer.kind == "pool":
            continue
        source = feeds.get(layer.name)
        if source is None:
            into = torch.arange(layer.width_in)
        else:
            into = behind[source] if source in behind else kept.behind(source)
        one, other = net.get_submodule(layer.name), narrow.get_submodule(layer.name)
        if layer.kind == "depthwise":
            behind[layer.name] = into
            slice_conv(_as(ConvBnAct, one), _as(ConvBnAct, other), into, torch.arange(1))
        elif isinstance(one, ConvBnAct):
            slice_conv(one, _as(ConvBnAct, other), torch.arange(layer.out), into)
        else:
            slice_scores(_as(nn.Conv2d, one), _as(nn.Conv2d, other), into)
    return narrow.train(net.training)


@dataclass(frozen=True, slots=True)
class Kept:
    """Indices of the channels that were kept: `out` behind every row, `inner` inside every bneck."""

    out: dict[int, Tensor] = field(default_factory=dict)
    inner: dict[int, Tensor] = field(default_factory=dict)

    def behind(self, layer: str) -> Tensor:
        """The channels behind a layer of the rows: `rows.3`, `rows.4.expand`, `rows.4.project`."""
        _, row, *part = layer.split(".")
        return self.inner[int(row)] if part and part[0] != "project" else self.out[int(row)]


def shrink_rows(
    wide_rows: nn.ModuleList, narrow_rows: nn.ModuleList, wide: NetSpec, spec: NetSpec
) -> Kept:
    """Fill rows of the narrower `spec` from those of `wide`; rows behind the last are left out.

    Raises:
        ShrinkError: `spec` differs from `wide` in more than narrower widths.
    """
    _check(wide, spec)
    kept, channels = Kept(), _kept_outputs(wide_rows, wide, spec)
    kept_in = torch.arange(spec.channels)
    for index, (wide_row, narrow_row) in enumerate(zip(wide_rows, narrow_rows, strict=True)):
        kept_out = channels.get(index, kept_in)
        if isinstance(wide_row, ConvBnAct):
            slice_conv(wide_row, _as(ConvBnAct, narrow_row), kept_out, kept_in)
        elif isinstance(wide_row, BneckRow):
            row = spec.rows[index]
            inner = _slice_bneck(wide_row, _as(BneckRow, narrow_row), row, kept_out, kept_in)
            kept.inner[index] = inner
        kept_in = kept.out[index] = kept_out
    return kept


def strength(conv: ConvBnAct) -> Tensor:
    """L2 norm of every output filter, batch norm's scale folded in: (out,)."""
    norms: Tensor = conv.conv.weight.flatten(1).norm(dim=1)
    if isinstance(conv.bn, nn.BatchNorm2d):
        assert conv.bn.running_var is not None
        norms = norms * conv.bn.weight.abs() / (conv.bn.running_var + conv.bn.eps).sqrt()
    return norms


def _check(wide: NetSpec, narrow: NetSpec) -> None:
    for name in ("channels", "classes", "padding", "se_gate", "bn_eps"):
        if getattr(wide, name) != getattr(narrow, name):
            raise ShrinkError(
                f"{name} is {getattr(wide, name)} in {wide.name} and {getattr(narrow, name)} in "
                f"{narrow.name}; shrinking can only drop channels"
            )
    if len(wide.rows) != len(narrow.rows):
        raise ShrinkError(
            f"{wide.name} has {len(wide.rows)} rows and {narrow.name} {len(narrow.rows)}; shrinking can "
            "only drop channels"
        )
    operators = _operators(wide), _operators(narrow)
    for i, (was, now) in enumerate(zip(wide.rows, narrow.rows, strict=True)):
        same = operators[0][i] == operators[1][i]
        if not same or any(map(int.__lt__, _widths(was), _widths(now))):
            raise ShrinkError(
                f"row {i} of {narrow.name} is not a narrower row {i} of {wide.name}; "
                "shrinking can only drop channels"
            )


def _widths(row: Row) -> tuple[int, ...]:
    match row:
        case Bneck():
            return row.expanded, row.se, row.out
        case Conv():
            return (row.out,)
        case Pool():
            return ()


def _operators(spec: NetSpec) -> list[list[Layer]]:
    """The operators of every row, widths left out."""
    rows: list[list[Layer]] = [[] for _ in range(len(spec.rows) + 1)]
    for layer in layers(spec, 1):
        rows[layer.row].append(replace(layer, width_in=0, out=0, mid=0))
    return rows


def _kept_outputs(rows: nn.ModuleList, wide: NetSpec, spec: NetSpec) -> dict[int, Tensor]:
    """Row index -> kept output channels; rows tied by residuals vote with the sum of squares."""
    kept: dict[int, Tensor] = {}
    for group in stages(wide):
        if group[-1] >= len(rows):
            break
        votes = torch.stack([strength(_last_conv(rows[i])).square() for i in group]).sum(0)
        row = spec.rows[group[0]]
        assert not isinstance(row, Pool)
        kept |= dict.fromkeys(group, strongest(votes, row.out))
    for i in range(spec.pool_at + 1, len(rows)):
        row = spec.rows[i]
        assert not isinstance(row, Pool)
        kept[i] = strongest(strength(_last_conv(rows[i])), row.out)
    return kept


def strongest(votes: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` largest votes, in ascending order; of equal votes the first stay."""
    order = torch.argsort(votes, descending=True, stable=True)
    return order[:keep].sort().values


def _last_conv(row: nn.Module) -> ConvBnAct:
    return _as(ConvBnAct, row.get_submodule("project") if isinstance(row, BneckRow) else row)


def _slice_bneck(
    wide: BneckRow, narrow: BneckRow, row: object, out: Tensor, into: Tensor
) -> Tensor:
    """Fill a bneck; the kept channels of its expansion."""
    assert isinstance(row, Bneck)
    parts, slim = dict(wide.named_children()), dict(narrow.named_children())
    if "expand" in parts:
        expand = _as(ConvBnAct, parts["expand"])
        kept = strongest(strength(expand), row.expanded)
        slice_conv(expand, _as(ConvBnAct, slim["expand"]), kept, into)
    else:
        kept = into
    if "depthwise" in parts:
        one = torch.arange(1)  # a depthwise filter has one input
        slice_conv(_as(ConvBnAct, parts["depthwise"]), _as(ConvBnAct, slim["depthwise"]), kept, one)
    if "se" in parts:
        _slice_squeeze(
            _as(SqueezeExcite, parts["se"]), _as(SqueezeExcite, slim["se"]), kept, row.se
        )
    slice_conv(_as(ConvBnAct, parts["project"]), _as(ConvBnAct, slim["project"]), out, kept)
    return kept


def _slice_squeeze(wide: SqueezeExcite, narrow: SqueezeExcite, kept: Tensor, width: int) -> None:
    squeezed = strongest(wide.reduce.weight.flatten(1).norm(dim=1), width)
    narrow.reduce.weight.copy_(_taken(wide.reduce.weight, squeezed, kept))
    _bias(narrow.reduce).copy_(_taken(_bias(wide.reduce), squeezed))
    narrow.gate.weight.copy_(_taken(wide.gate.weight, kept, squeezed))
    _bias(narrow.gate).copy_(_taken(_bias(wide.gate), kept))


def slice_conv(wide: ConvBnAct, narrow: ConvBnAct, out: Tensor, into: Tensor) -> None:
    """Fill a conv from its wider version: output channels `out`, input channels `into`."""
    narrow.conv.weight.copy_(_taken(wide.conv.weight, out, into))
    if wide.conv.bias is not None and narrow.conv.bias is not None:
        narrow.conv.bias.copy_(_taken(wide.conv.bias, out))
    if isinstance(wide.bn, nn.BatchNorm2d):
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(narrow.bn, name).copy_(_taken(getattr(wide.bn, name), out))
        seen = "num_batches_tracked"
        narrow.bn.get_buffer(seen).copy_(wide.bn.get_buffer(seen))


def slice_scores(wide: nn.Conv2d, narrow: nn.Conv2d, into: Tensor) -> None:
    """Fill a 1x1 conv with a bias that keeps all its outputs."""
    narrow.weight.copy_(_taken(wide.weight, torch.arange(len(wide.weight)), into))
    _bias(narrow).copy_(_bias(wide))


def _taken(values: Tensor, out: Tensor, into: Tensor | None = None) -> Tensor:
    """Rows `out` of a tensor, then columns `into`; an axis of which all is kept is not copied."""
    if len(out) < values.shape[0]:
        values = values[out]
    if into is not None and len(into) < values.shape[1]:
        values = values[:, into]
    return values


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _as(kind: type[_T], module: nn.Module) -> _T:
    assert isinstance(module, kind)
    return module
