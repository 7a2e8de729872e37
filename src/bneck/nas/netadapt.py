"""NetAdapt as section 4.2 has it: layer-wise search from a trained seed network to a latency.

Each step proposes networks at least delta faster than the last, has each judged (fine-tuned for T
steps from the last network's weights), and keeps the one with the best change of accuracy per
change of latency, until the target is met.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, round8
from bneck.specs.transforms import (
    beside,
    fix_skips,
    squeezed_like,
    stages,
    with_expanded,
    with_out,
)

Estimate = Callable[[NetSpec], float]
Metric = Literal["ratio", "accuracy"]
Kind = Literal["expansion", "bottleneck", "tail"]
PAPER: tuple[Kind, ...] = ("expansion", "bottleneck")  # section 4.2
ALL: tuple[Kind, ...] = (*PAPER, "tail")
LEAST = 0.25  # no width is proposed below this share of the seed's
SMALLEST = 1e-6  # a cut of latency, as a share, that is none


class Unreachable(InputError):
    """A target latency below what narrowing the seed network can reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One width made narrower.

    "expansion" is that of one row, "bottleneck" that of all rows of a stage (section 4.2's two
    kinds); "tail" is a conv behind the last bneck, which section 4.2 leaves alone.
    """

    kind: Kind
    rows: tuple[int, ...]
    before: int
    after: int
    spec: NetSpec
    estimated_ms: float

    def __str__(self) -> str:
        names = (
            f"row {self.rows[0]}" if len(self.rows) == 1 else f"rows {self.rows[0]}-{self.rows[-1]}"
        )
        return f"{self.kind} of {names}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Trial:
    """A judged proposal: its accuracy on held-out images after T steps of fine-tuning.

    `failed`: the fine-tuning diverged, the accuracy is 0.
    """

    proposal: Proposal
    accuracy: float
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the search: every trial, and the one that was kept."""

    number: int
    trials: tuple[Trial, ...]
    kept: Trial


Judge = Callable[[int, NetSpec, Sequence[Proposal]], Sequence[Trial]]
Control = Callable[[int, NetSpec], float]


def narrowest(seed: NetSpec, least: float = LEAST, kinds: Collection[Kind] = PAPER) -> NetSpec:
    """The narrowest network that a search from `seed` may reach; its widths are the floors."""
    spec = fix_skips(seed)
    if "tail" in kinds:
        for i in tail_rows(seed):
            spec = with_out(spec, (i,), _floor(_out(seed, (i,)), least))
    if "bottleneck" in kinds:
        for group in _bottlenecks(seed):
            spec = with_out(spec, group, _floor(_out(seed, group), least))
    if "expansion" in kinds:
        for i in _expansions(seed):
            most = _bneck(seed, i).expanded
            floor = beside(
                spec.width_into(i), _floor(most, least), most=most, fused=_bneck(seed, i).fused
            )
            spec = with_expanded(spec, i, floor)
    return squeezed_like(spec, seed)


def propose(
    spec: NetSpec,
    delta_ms: float,
    estimate: Estimate,
    *,
    seed: NetSpec,
    least: float = LEAST,
    kinds: Collection[Kind] = PAPER,
) -> list[Proposal]:
    """All single changes that make `spec` at least `delta_ms` faster, each as wide as it can be.

    Args:
        spec: the network to change; its residuals are written down (`fix_skips`).
        delta_ms: the least cut of the estimated latency.
        estimate: spec -> latency in milliseconds.
        seed: the network that the search began with; widths stay above `least` of its widths.
        least: share of the seed's widths.
        kinds: which changes; the paper's two unless told otherwise.

    Returns:
        Expansions by row, bottlenecks by stage, convs of the tail. A change that cannot save
        enough is left out.
    """
    limit_ms, bottom = estimate(spec) - delta_ms, narrowest(seed, least, kinds)
    found = []
    for kind, rows in places(spec, kinds):
        if kind == "expansion":
            before, floor = (_bneck(s, rows[0]).expanded for s in (spec, bottom))
        else:
            before, floor = (_out(s, rows) for s in (spec, bottom))
        widths = [w for w in _narrower(before, floor) if _keeps_expands(spec, kind, rows, w)]
        edit = partial(_edited, seed, spec, kind, rows)
        if change := _widest(widths, edit, limit_ms, estimate):
            after, narrow, ms = change
            found.append(
                Proposal(
                    kind=kind, rows=rows, before=before, after=after, spec=narrow, estimated_ms=ms
                )
            )
    return found


def choose(
    trials: Sequence[Trial], *, accuracy: float, latency_ms: float, metric: Metric = "ratio"
) -> Trial:
    """The trial to keep. Ties go to the larger cut, then to the earlier proposal.

    A failed one is kept only where all failed.

    Args:
        trials: at least one.
        accuracy: of the network before this step.
        latency_ms: of the network before this step, estimated.
        metric: "ratio" is section 4.2's change of accuracy over change of latency; "accuracy" is
            the original NetAdapt's, the most accurate trial whatever it saves.
    """

    def merit(trial: Trial) -> tuple[float, float]:
        cut_ms = latency_ms - trial.proposal.estimated_ms
        gain = trial.accuracy - accuracy
        return (gain / cut_ms if metric == "ratio" else gain, cut_ms)

    return max([trial for trial in trials if not trial.failed] or trials, key=merit)


def adapt(
    seed: NetSpec,
    *,
    accuracy: float,
    target_ms: float,
    delta_ms: float,
    estimate: Estimate,
    judge: Judge,
    control: Control | None = None,
    start: NetSpec | None = None,
    first: int = 1,
    metric: Metric = "ratio",
    least: float = LEAST,
    kinds: Collection[Kind] = PAPER,
) -> Iterator[Step]:
    """Narrow `seed` step by step until its estimated latency is at most `target_ms`.

    Every step cuts at least `delta_ms`, the last one only what is missing. Steps are yielded as
    they are made; the last one's kept proposal holds the result.

    Args:
        seed: the trained network to begin with.
        accuracy: of the network to begin with, on the images that trials are judged on.
        target_ms: where to stop.
        delta_ms: least cut a step; the paper takes 1 % of the seed's latency.
        estimate: spec -> latency in milliseconds.
        judge: (step, network before, proposals) -> their trials, in any order.
        control: (step, network before) -> the accuracy to compare its trials with: that network's after
            the same T steps, asked for once the trials are judged. None compares with the network
            as it was, as the paper does; that favours the smallest cut wherever T steps alone
            still make the network better.
        start: a narrower version to begin with instead of the seed itself.
        first: number of the first step.
        metric: see `choose`.
        least: see `propose`.
        kinds: see `propose`.

    Raises:
        Unreachable: no narrower network of this seed is fast enough, or (with an estimate that does
            not always fall with the widths) no single change makes the network faster any more.
    """
    fastest_ms = estimate(narrowest(seed, least, kinds))
    if fastest_ms > target_ms:
        raise Unreachable(
            f"{target_ms:.3f} ms cannot be reached from {seed.name}: its narrowest version is estimated "
            f"at {fastest_ms:.3f} ms; choose a target above that, a smaller resolution or a smaller seed"
        )
    spec, number = fix_skips(start or seed), first
    while (latency_ms := estimate(spec)) > target_ms:
        cut_ms = min(delta_ms, latency_ms - target_ms)
        while not (
            proposals := propose(spec, cut_ms, estimate, seed=seed, least=least, kinds=kinds)
        ):
            if cut_ms < SMALLEST * latency_ms:
                raise Unreachable(
                    f"{target_ms:.3f} ms cannot be reached from {seed.name}: at {latency_ms:.3f} ms no single "
                    "narrower width is estimated to be faster; choose a higher target"
                )
            cut_ms /= 2  # no single change saves that much any more: take smaller steps
        trials = {t.proposal.spec.digest(): t for t in judge(number, spec, proposals)}
        ordered = tuple(trials[p.spec.digest()] for p in proposals)
        before = control(number, spec) if control else accuracy
        kept = choose(ordered, accuracy=before, latency_ms=latency_ms, metric=metric)
        yield Step(number=number, trials=ordered, kept=kept)
        spec, accuracy, number = kept.proposal.spec, kept.accuracy, number + 1


def _edited(seed: NetSpec, spec: NetSpec, kind: Kind, rows: tuple[int, ...], width: int) -> NetSpec:
    if kind == "expansion":
        return squeezed_like(with_expanded(spec, rows[0], width), seed)
    return squeezed_like(with_out(spec, rows, width), seed)


def _widest(
    widths: Sequence[int], edit: Callable[[int], NetSpec], limit_ms: float, estimate: Estimate
) -> tuple[int, NetSpec, float] | None:
    """The first of falling `widths` whose network is estimated within the limit."""
    if not widths or estimate(edit(widths[-1])) > limit_ms:
        return None  # most hopeless rows are settled by their narrowest width alone
    for width in widths:
        spec = edit(width)
        ms = estimate(spec)
        if ms <= limit_ms:
            return width, spec, ms
    return None


def places(spec: NetSpec, kinds: Collection[Kind]) -> list[tuple[Kind, tuple[int, ...]]]:
    """Every width that may change, as kind and rows; see `Proposal`."""
    places: list[tuple[Kind, tuple[int, ...]]] = [("expansion", (i,)) for i in _expansions(spec)]
    places += [("bottleneck", group) for group in _bottlenecks(spec)]
    places += [("tail", (i,)) for i in tail_rows(spec)]
    return [place for place in places if place[0] in kinds]


def _expansions(spec: NetSpec) -> list[int]:
    """Rows that have an expand convolution."""
    return [i for i in range(len(spec.rows)) if spec.expands(i)]


def _bottlenecks(spec: NetSpec) -> list[tuple[int, ...]]:
    """Stages that share one bottleneck width; the stem only where a residual ties it to one."""
    return [group for group in stages(spec) if any(isinstance(spec.rows[i], Bneck) for i in group)]


def tail_rows(spec: NetSpec) -> list[int]:
    """Convs after the last bneck, before and after the pool."""
    last = max(i for i, row in enumerate(spec.rows) if not isinstance(row, Conv | Pool) or i == 0)
    return [i for i in range(last + 1, len(spec.rows)) if isinstance(spec.rows[i], Conv)]


def _keeps_expands(spec: NetSpec, kind: Kind, rows: tuple[int, ...], width: int) -> bool:
    """Whether no row would lose its expand convolution at this width, which is no mere narrowing."""
    if kind == "expansion":
        return _bneck(spec, rows[0]).fused or width != spec.width_into(rows[0])
    behind = [i + 1 for i in rows if i + 1 in _expansions(spec)]
    rows_behind = (_bneck(spec, i) for i in behind)
    return all(row.fused or row.expanded != width for row in rows_behind)


def _narrower(width: int, floor: int) -> list[int]:
    return list(range((width - 1) // 8 * 8, floor - 1, -8))


def _floor(width: int, least: float) -> int:
    return min(width, round8(least * width))


def _bneck(spec: NetSpec, index: int) -> Bneck:
    row = spec.rows[index]
    assert isinstance(row, Bneck)
    return row


def _out(spec: NetSpec, group: tuple[int, ...]) -> int:
    row = spec.rows[group[0]]
    assert not isinstance(row, Pool)
    return row.out
