"""NetAdapt as section 4.2 has it: layer-wise search from a trained seed network to a latency.

Each step proposes networks at least delta faster than the last, has each judged (fine-tuned for T
steps from the last network's weights), and keeps the one with the best change of accuracy per
change of latency, until the target is met.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bneck.specs import transforms
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
)  # fmt: skip

Estimate: TypeAlias = Callable[[NetSpec], float]
Metric = Literal["ratio", "accuracy"]
Kind = Literal["expansion", "bottleneck", "tail"]
Place: TypeAlias = tuple[Kind, tuple[int, ...]]  # a width that may change, by its rows
PAPER: tuple[Kind, ...] = ("expansion", "bottleneck")  # section 4.2
ALL: tuple[Kind, ...] = (*PAPER, "tail")
LEAST = 0.25  # no width falls below this fraction of the seed's
SMALLEST = 1e-6  # a smaller fraction of the latency is not a cut


class Unreachable(InputError):
    """A target latency below what narrowing the seed network can reach."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One width made narrower.

    "expansion" is that of one row, "bottleneck" that of all rows of a stage (section 4.2's two
    kinds); "tail" is a conv after the last bneck, which section 4.2 leaves alone.
    """

    kind: Kind
    rows: tuple[int, ...]
    before: int
    after: int
    spec: NetSpec
    estimated_ms: float

    def __str__(self) -> str:
        first, last = self.rows[0], self.rows[-1]
        names = f"row {first}" if first == last else f"rows {first}-{last}"
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


def places(spec: NetSpec, kinds: Collection[Kind]) -> list[Place]:
    """Every width that may change: expansions by row, bottlenecks by stage, convs of the tail."""
    rows = spec.rows
    found: list[Place] = [("expansion", (i,)) for i in range(len(rows)) if spec.expands(i)]
    # The stem is part of a stage only where a residual ties it to a bneck.
    tied = (stage for stage in stages(spec) if any(isinstance(rows[i], Bneck) for i in stage))
    found += [("bottleneck", stage) for stage in tied]
    found += [("tail", (i,)) for i in tail_rows(spec)]
    return [place for place in found if place[0] in kinds]


def tail_rows(spec: NetSpec) -> list[int]:
    """Convs after the last bneck, before and after the pool."""
    rows = spec.rows
    last = max(i for i, row in enumerate(rows) if i == 0 or not isinstance(row, Conv | Pool))
    return [i for i in range(last + 1, len(rows)) if isinstance(rows[i], Conv)]


def width_at(spec: NetSpec, place: Place) -> int:
    """The width that a change at this place changes."""
    row = spec.rows[place[1][0]]
    assert not isinstance(row, Pool)
    return row.expanded if place[0] == "expansion" and isinstance(row, Bneck) else row.out


def allowed(spec: NetSpec, place: Place, width: int, most: int) -> int:
    """`width`, or one near it, up to `most`, where the row would lose its expand convolution."""
    kind, rows = place
    if kind != "expansion":
        return width
    return beside(spec.width_into(rows[0]), width, most=most, fused=_fused(spec, rows[0]))


def with_widths(spec: NetSpec, widths: Mapping[Place, int], most: Mapping[Place, int]) -> NetSpec:
    """`spec` with these widths, as far as they are `allowed`."""
    out = {i: width for (kind, rows), width in widths.items() if kind != "expansion" for i in rows}
    expanded = {}
    for place, width in widths.items():
        if place[0] == "expansion":
            # What an expansion may be depends on the width that enters its row.
            row = place[1][0]
            into = out.get(row - 1, spec.width_into(row))
            fused = _fused(spec, row)
            expanded[row] = beside(into, width, most=most[place], fused=fused)
    return transforms.with_widths(spec, out, expanded)


def narrowest(seed: NetSpec, kinds: Collection[Kind] = PAPER) -> NetSpec:
    """The narrowest network that a search from `seed` may reach: a quarter of its widths."""
    most = {place: width_at(seed, place) for place in places(seed, kinds)}
    floors = {place: min(width, round8(LEAST * width)) for place, width in most.items()}
    return with_widths(fix_skips(seed), floors, most)


def propose(
    spec: NetSpec, delta_ms: float, estimate: Estimate, *, seed: NetSpec,
    kinds: Collection[Kind] = PAPER,
) -> list[Proposal]:  # fmt: skip
    """All single changes that make `spec` at least `delta_ms` faster, each as wide as it can be.

    Args:
        spec: the network to change; its residuals are written down (`fix_skips`).
        delta_ms: the least cut of the estimated latency.
        estimate: spec -> latency in milliseconds.
        seed: the network that the search began with; no width falls below a quarter of its widths.
        kinds: which changes; the paper's two unless told otherwise.

    Returns:
        In the order of `places`, without changes that cannot save enough.
    """
    limit_ms, bottom = estimate(spec) - delta_ms, narrowest(seed, kinds)
    found = []
    for place in places(spec, kinds):
        before, floor = (width_at(s, place) for s in (spec, bottom))
        narrower = range((before - 1) // 8 * 8, floor - 1, -8)
        widths = [width for width in narrower if _keeps_expands(spec, place, width)]

        def edit(width: int, place: Place = place) -> NetSpec:
            return squeezed_like(_edited(spec, place, width), seed)

        # Most hopeless places are settled by their narrowest width alone.
        if not widths or estimate(edit(widths[-1])) > limit_ms:
            continue
        timed = (
            (width, changed, estimate(changed)) for width in widths for changed in [edit(width)]
        )
        after, narrow, ms = next(each for each in timed if each[2] <= limit_ms)
        found.append(Proposal(*place, before, after, narrow, ms))
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
    seed: NetSpec, *, accuracy: float, target_ms: float, delta_ms: float, estimate: Estimate,
    judge: Judge, control: Control | None = None, start: NetSpec | None = None, first: int = 1,
    metric: Metric = "ratio", kinds: Collection[Kind] = PAPER,
) -> Iterator[Step]:  # fmt: skip
    """Narrow `seed` step by step until its estimated latency is at most `target_ms`.

    Every step cuts at least `delta_ms`, the last one only what is missing. Steps are yielded as
    they are made; the last one's kept proposal holds the result.

    Args:
        seed: the trained network to begin with.
        accuracy: of the network to begin with, on the images that trials are judged on.
        target_ms: where to stop.
        delta_ms: least cut per step; the paper takes 1 % of the seed's latency.
        estimate: spec -> latency in milliseconds.
        judge: (step, network before, proposals) -> their trials, in any order.
        control: (step, network before) -> the accuracy to compare its trials with: that network's after
            the same T steps, asked for once the trials are judged. None compares with the network
            as it was, as the paper does; that favours the smallest cut wherever T steps alone
            still make the network better.
        start: a narrower version to begin with instead of the seed itself.
        first: number of the first step.
        metric: see `choose`.
        kinds: see `propose`.

    Raises:
        Unreachable: no narrower network of this seed is fast enough, or (with an estimate that does
            not always fall with the widths) no single change makes the network faster any more.
    """
    fastest_ms = estimate(narrowest(seed, kinds))
    if fastest_ms > target_ms:
        raise Unreachable(
            f"{target_ms:.3f} ms cannot be reached from {seed.name}: its narrowest version is estimated "
            f"at {fastest_ms:.3f} ms; choose a target above that, a smaller resolution or a smaller seed"
        )
    spec, number = fix_skips(start or seed), first
    while (latency_ms := estimate(spec)) > target_ms:
        cut_ms = min(delta_ms, latency_ms - target_ms)
        while not (proposals := propose(spec, cut_ms, estimate, seed=seed, kinds=kinds)):
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


def _edited(spec: NetSpec, place: Place, width: int) -> NetSpec:
    kind, rows = place
    return (
        with_expanded(spec, rows[0], width) if kind == "expansion" else with_out(spec, rows, width)
    )


def _keeps_expands(spec: NetSpec, place: Place, width: int) -> bool:
    """Whether no row loses its expand convolution at this width, which is more than narrowing."""
    kind, rows = place
    if kind == "expansion":
        return _fused(spec, rows[0]) or width != spec.width_into(rows[0])
    after = [i + 1 for i in rows if i + 1 < len(spec.rows) and spec.expands(i + 1)]
    return all(_fused(spec, i) or width_at(spec, ("expansion", (i,))) != width for i in after)


def _fused(spec: NetSpec, index: int) -> bool:
    row = spec.rows[index]
    return isinstance(row, Bneck) and row.fused
