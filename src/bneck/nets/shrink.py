"""A trained net's weights in a narrower spec (section 4.2: "truncate").

Every width keeps its most important channels, or without an importance those whose filters have the
largest L2 norm, and all that follows a channel is sliced with it: batch norm, depthwise filter,
squeeze-and-excite, the next input. Rows that a residual adds together keep the same channels. A row
that adds to its input may be missing: its input goes on as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bneck.nets.build import SIZE, Net, WrappedNet
from bneck.nets.importance import Array, Importance, channels
from bneck.nets.ops import BneckRow, ConvBnAct, SqueezeExcite
from bneck.specs.errors import InputError
from bneck.specs.network import Layer, NetSpec, layers
from bneck.specs.rows import Bneck, Conv, Pool, Row
from bneck.specs.transforms import stages
from bneck.specs.wrapper import Wrapped

_T = TypeVar("_T")
N = TypeVar("N", bound=WrappedNet)
ROWS = ("tap",)  # settings that are numbers of rows


class ShrinkError(InputError):
    """Two specs that are not a network and a narrower version of it."""


def shrink(net: Net, spec: NetSpec, importance: Importance | None = None) -> Net:
    """A new net of the narrower `spec` that holds the most important channels of `net`.

    Raises:
        ShrinkError: `spec` differs from the net's in more than narrower widths and missing residual
            rows, or the importance is another network's.
    """
    return shrink_into(net, Net(spec), importance)


@torch.no_grad()
def shrink_into(net: WrappedNet, narrow: N, importance: Importance | None = None) -> N:
    """Fill a module of the same kind round a narrower network with the best channels of `net`.

    The rows keep their most important channels; what follows them keeps all of its own, and follows
    the channels of its input (`Wrapped.feeds`).

    Args:
        net: what to shrink; it stays as it is.
        narrow: changed in place, and given back.
        importance: of the channels of `net`; None goes by L2 norms.

    Raises:
        ShrinkError: they differ in more than narrower widths and missing residual rows of their
            networks, or the importance is another network's.
    """
    wide, slim = net.wrapped, narrow.wrapped
    _check_settings(wide, slim)
    narrow.normalisation = net.normalisation
    kept = kept_channels(net, slim, importance)
    _check_feeds(wide, slim, kept.rows)
    _fill_rows(net.rows, narrow.rows, kept, slim.network.channels)
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


def kept_channels(net: WrappedNet, narrow: Wrapped, importance: Importance | None) -> Kept:
    """The channels of `net` that `shrink_into` keeps in a narrower network.

    Raises:
        ShrinkError: as `shrink_into`.
    """
    votes = _Norms(net) if importance is None else _Measured(net.wrapped, importance)
    return _selected(net.wrapped, narrow, votes)


def importance_of_kept(importance: Importance, wide: Wrapped, slim: Wrapped) -> Importance:
    """The importance of what `shrink_into` keeps of a network by this one, as it was in the wide network.

    Raises:
        ShrinkError: as `shrink_into`.
    """
    kept = _selected(wide, slim, _Measured(wide, importance))
    groups: dict[str, Array] = {}
    for key, values in importance.groups.items():
        _, source, part = key.split(".")
        if int(source) in kept.rows:  # a residual row may be missing
            row = kept.rows.index(int(source))
            taken = values if part == "branch" else values[getattr(kept, part)[row].numpy()]
            groups[f"rows.{row}.{part}"] = taken
    return Importance(groups, importance.images)


class _Votes(Protocol):
    """What channels of a net are kept by: the larger, the sooner. Keys are those of `Importance`."""

    def of(self, key: str, width: int, rows: Sequence[int]) -> Tensor:
        """Votes of a group of `width` channels: (width,). `rows` are those whose outputs it is."""

    def branch(self, row: int) -> float:
        """How much a residual row counts as a whole."""


@dataclass(frozen=True, slots=True)
class _Norms:
    """L2 norms of a net's filters; no residual row counts more than another."""

    net: WrappedNet

    def of(self, key: str, width: int, rows: Sequence[int]) -> Tensor:
        _, row, part = key.split(".")
        if part == "out":
            # Rows tied by residuals vote with the sum of squares.
            convs = [_last_conv(self.net.rows[i]) for i in rows]
            return torch.stack([strength(conv).square() for conv in convs]).sum(0)
        if part == "expanded":
            return strength(_as(ConvBnAct, self.net.get_submodule(f"rows.{row}.expand")))
        reduce = _as(SqueezeExcite, self.net.get_submodule(f"rows.{row}.se")).reduce
        norms: Tensor = reduce.weight.flatten(1).norm(dim=1)
        return norms

    def branch(self, row: int) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class _Measured:
    """The importance of a network's channels; ShrinkError where it is another network's."""

    wide: Wrapped
    importance: Importance

    def of(self, key: str, width: int, rows: Sequence[int]) -> Tensor:
        found = self.importance.groups.get(key, np.zeros(0))
        if len(found) != width:
            raise ShrinkError(
                f"{key} has {width} channels in {self.wide.network.name} and {len(found)} in the importance; "
                "measure the importance of this network"
            )
        return torch.from_numpy(found)

    def branch(self, row: int) -> float:
        return float(self.importance.groups[f"rows.{row}.branch"][0])


@dataclass(frozen=True, slots=True)
class Kept:
    """Indices of the channels that are kept, by the narrower network's rows.

    `out` of every row, `expanded` inside every bneck, its squeezed ones (`se`) if it has any. `rows`
    are the wide network's that they come from.
    """

    rows: tuple[int, ...]
    out: dict[int, Tensor] = field(default_factory=dict)
    expanded: dict[int, Tensor] = field(default_factory=dict)
    se: dict[int, Tensor] = field(default_factory=dict)

    def within(self, wider: Kept) -> Kept:
        """The same channels by their indices in a wider network, of which `wider` was kept before."""
        rows = self.rows

        def of(part: str) -> dict[int, Tensor]:
            whole: dict[int, Tensor] = getattr(wider, part)
            return {i: whole[rows[i]][chosen] for i, chosen in getattr(self, part).items()}

        return Kept(tuple(wider.rows[i] for i in rows), of("out"), of("expanded"), of("se"))

    def behind(self, layer: str) -> Tensor:
        """The channels behind a layer of the rows: `rows.3`, `rows.4.expand`, `rows.4.project`."""
        _, row, *part = layer.split(".")
        return self.expanded[int(row)] if part and part[0] != "project" else self.out[int(row)]


def _selected(whole: Wrapped, narrow: Wrapped, votes: _Votes) -> Kept:
    """What a narrower network keeps of a wide one; rows behind the last that take part are left out.

    Raises:
        ShrinkError: it differs in more than narrower widths and missing residual rows.
    """
    wide, spec = whole.network, narrow.network
    kept = Kept(_matched(wide, spec, votes))
    out = {i: group for group in stages(wide) for i in group}
    channels_out: dict[int, Tensor] = {}  # by the first row of a stage
    kept_in = torch.arange(spec.channels)
    last = max(layer.row for layer in narrow.layers(SIZE) if layer.name.startswith("rows."))
    for index, row in enumerate(spec.rows):
        source = kept.rows[index]
        was = wide.rows[source]
        if isinstance(row, Pool) or isinstance(was, Pool):
            kept.out[index] = kept_in
            continue
        if index > last:
            break
        tied = out.get(source, (source,))
        if tied[0] not in channels_out:
            found = votes.of(f"rows.{tied[0]}.out", was.out, tied)
            channels_out[tied[0]] = strongest(found, row.out)
        if isinstance(row, Bneck):
            assert isinstance(was, Bneck)
            kept.expanded[index] = kept_in
            if wide.expands(source):
                found = votes.of(f"rows.{source}.expanded", was.expanded, (source,))
                kept.expanded[index] = strongest(found, row.expanded)
            if row.se:
                found = votes.of(f"rows.{source}.se", was.se, (source,))
                kept.se[index] = strongest(found, row.se)
        kept_in = kept.out[index] = channels_out[tied[0]]
    return kept


def _fill_rows(wide: nn.ModuleList, narrow: nn.ModuleList, kept: Kept, channels: int) -> None:
    """Fill rows from those of a wide net; `channels` are the image's."""
    into = torch.arange(channels)
    for index, row in enumerate(narrow):
        source = wide[kept.rows[index]]
        if isinstance(source, ConvBnAct):
            slice_conv(source, _as(ConvBnAct, row), kept.out[index], into)
        elif isinstance(source, BneckRow):
            _slice_bneck(source, _as(BneckRow, row), into, kept, index)
        into = kept.out[index]


def strength(conv: ConvBnAct) -> Tensor:
    """L2 norm of every output filter, batch norm's scale folded in: (out,)."""
    norms: Tensor = conv.conv.weight.flatten(1).norm(dim=1)
    if isinstance(conv.bn, nn.BatchNorm2d):
        assert conv.bn.running_var is not None
        norms = norms * conv.bn.weight.abs() / (conv.bn.running_var + conv.bn.eps).sqrt()
    return norms


def _check_settings(wide: Wrapped, slim: Wrapped) -> None:
    for name, value in wide.settings().items():
        other = slim.settings().get(name)
        # The number of a row means another row where one is missing; `_check_feeds` looks at that.
        if other != value and name not in ROWS:
            raise ShrinkError(
                f"{name} is {value} in {wide.name} and {other} in {slim.name}; shrinking can only narrow "
                "the network"
            )


def _check_feeds(wide: Wrapped, slim: Wrapped, rows: Sequence[int]) -> None:
    """Raise ShrinkError where a head takes what the wide network's takes elsewhere."""
    groups = channels(wide).behind, channels(slim).behind
    taken = {
        name: groups[0][source] for name, source in wide.feeds().items() if source in groups[0]
    }
    for name, source in slim.feeds().items():
        group = groups[1].get(source)
        if group is not None and name in taken:
            _, row, part = group.split(".")
            if taken[name] != f"rows.{rows[int(row)]}.{part}":
                raise ShrinkError(
                    f"{name} takes {group} in {slim.name} and {taken[name]} in {wide.name}; keep the row that "
                    "the head takes its input from"
                )


def _matched(wide: NetSpec, narrow: NetSpec, votes: _Votes) -> tuple[int, ...]:
    """The row of `wide` that each row of `narrow` is made from; the others are residual ones.

    Where several could be the missing ones, those of the least importance are.
    """
    for name in ("channels", "classes", "padding", "se_gate", "bn_eps"):
        if getattr(wide, name) != getattr(narrow, name):
            raise ShrinkError(
                f"{name} is {getattr(wide, name)} in {wide.name} and {getattr(narrow, name)} in "
                f"{narrow.name}; shrinking can only drop channels"
            )
    missing = len(wide.rows) - len(narrow.rows)
    operators = _operators(wide), _operators(narrow)

    def fits(i: int, j: int) -> bool:
        """Whether row j of `narrow` is a narrower row i of `wide`."""
        pairs = zip(widths(wide.rows[i]), widths(narrow.rows[j]), strict=True)
        return operators[0][i] == operators[1][j] and all(was >= now for was, now in pairs)

    # best[m]: importance of the residual rows kept so far, and the rows, m of them being left out.
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for i in range(len(wide.rows)):
        residual, following = wide.has_skip(i), dict[int, tuple[float, tuple[int, ...]]]()
        worth = votes.branch(i) if residual and missing else 0.0
        for left_out, (total, rows) in best.items():
            choices = []
            if (j := i - left_out) < len(narrow.rows) and fits(i, j):
                choices.append((left_out, (total + worth, (*rows, i))))
            if residual and left_out < missing:
                choices.append((left_out + 1, (total, rows)))
            for count, choice in choices:
                # Of equal rows the first stays.
                following[count] = max(following.get(count, choice), choice, key=itemgetter(0))
        if not following and not missing:
            raise ShrinkError(
                f"row {i} of {narrow.name} is not a narrower row {i} of {wide.name}; "
                "shrinking can only drop channels and residual rows"
            )
        best = following
    if missing not in best:
        raise ShrinkError(
            f"{wide.name} has {len(wide.rows)} rows and {narrow.name} {len(narrow.rows)}, and not by "
            "residual rows alone; shrinking can only drop channels and residual rows"
        )
    return best[missing][1]


def widths(row: Row) -> tuple[int, ...]:
    match row:
        case Bneck():
            return row.expanded, row.se, row.out
        case Conv():
            return (row.out,)
        case Pool():
            return ()


def _operators(spec: NetSpec) -> list[list[Layer]]:
    """The operators of every row, widths and the row's number left out."""
    rows: list[list[Layer]] = [[] for _ in range(len(spec.rows) + 1)]
    for layer in layers(spec, 1):
        part = layer.name.rpartition(".")[2]
        part = "" if part.isdigit() else part
        rows[layer.row].append(replace(layer, name=part, row=0, width_in=0, out=0, mid=0))
    return rows


def strongest(votes: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` largest votes, in ascending order; of equal votes the first stay."""
    order = torch.argsort(votes, descending=True, stable=True)
    return order[:keep].sort().values


def _last_conv(row: nn.Module) -> ConvBnAct:
    return _as(ConvBnAct, row.get_submodule("project") if isinstance(row, BneckRow) else row)


def _slice_bneck(wide: BneckRow, narrow: BneckRow, into: Tensor, kept: Kept, index: int) -> None:
    """Fill a bneck from the channels that stay before, inside and after it."""
    inner = kept.expanded[index]
    parts, slim = dict(wide.named_children()), dict(narrow.named_children())
    if "expand" in parts:
        slice_conv(_as(ConvBnAct, parts["expand"]), _as(ConvBnAct, slim["expand"]), inner, into)
    one = torch.arange(1)  # a depthwise filter has one input
    for part, channels_kept in (("start", into), ("depthwise", inner)):
        if part in parts:
            depthwise = _as(ConvBnAct, parts[part])
            slice_conv(depthwise, _as(ConvBnAct, slim[part]), channels_kept, one)
    if "se" in parts:
        was, now = _as(SqueezeExcite, parts["se"]), _as(SqueezeExcite, slim["se"])
        squeezed = kept.se[index]
        now.reduce.weight.copy_(_taken(was.reduce.weight, squeezed, inner))
        _bias(now.reduce).copy_(_taken(_bias(was.reduce), squeezed))
        now.gate.weight.copy_(_taken(was.gate.weight, inner, squeezed))
        _bias(now.gate).copy_(_taken(_bias(was.gate), inner))
    slice_conv(
        _as(ConvBnAct, parts["project"]), _as(ConvBnAct, slim["project"]), kept.out[index], inner
    )


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
