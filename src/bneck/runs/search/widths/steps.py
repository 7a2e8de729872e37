"""A deep cut in steps: on the way weights are solved anew, and importance is measured on what is left.

Importance tells what the loss of a channel costs while all others are there, which is no longer so after a deep
cut. But steps leave out fewer rows, so what they keep is compared with what one cut keeps (docs/lab-log.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bneck.nas.allocation.allocator import Allocation, Allocator, Cut
from bneck.nas.allocation.steps import steps_to
from bneck.nets.weights import save_weights
from bneck.runs.search.jobs import Parent, TrainJob, narrowed
from bneck.runs.search.latency import Latencies
from bneck.runs.search.run import Run
from bneck.runs.search.trials import job_for, standing
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, to_text


@dataclass(frozen=True, slots=True)
class Way:
    """What the last cut to a target is made from, and what was cut until there, by the seed network's rows.

    `scores` are those of each way before any training, by its number of steps; empty where there is one way.
    """

    parent: Parent
    cuts: tuple[Cut, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


def on_the_way(run: Run, seed: Parent, latencies: Latencies, limit_ms: float) -> Way:
    """The way to a target that keeps most before training: in one cut, or in steps.

    In one cut where the seed network began from random weights, which steps were not measured with, or where
    the target is near. Another target of the run finds the same steps.
    """
    share, ways, cuts = limit_ms / latencies.verified_ms(seed.spec), [Way(seed)], list[list[Cut]]()
    for step in steps_to(share) if run.settings.start is not None else ():
        spec, made = _widths(run, ways[-1].parent, latencies, step, seed.spec)
        if made:
            parent = _made(run, ways[-1].parent, spec, f"step-{100 * step:.0f}")
            cuts.append(made)
            ways.append(Way(parent, tuple(joined(cuts, len(seed.spec.rows)))))
    if len(ways) == 1:
        return ways[0]
    scores = _standing(run, ways, latencies, share)
    best = max(range(len(ways)), key=lambda number: scores[str(number)])
    return replace(ways[best], scores=scores)


def _standing(
    run: Run, ways: Sequence[Way], latencies: Latencies, share: float
) -> dict[str, float]:
    """What each way keeps before any training, by its number of steps; measured once and said then."""
    names = [f"{number} steps to {share:.3f}" for number in range(len(ways))]
    known = {one["name"]: float(one["score"]) for one in run.ledger.all(event="standing")}
    if missing := [number for number, name in enumerate(names) if name not in known]:
        jobs, seed = dict[str, TrainJob](), ways[0].parent.spec
        for number in missing:
            parent = ways[number].parent
            spec = _cut(parent, latencies, share, seed).spec
            jobs[names[number]] = job_for(run, spec, f"way-{number}", 0, parent=parent)
        known |= standing(run, jobs)
        told = ", ".join(f"{known[name]:.1%} after {number}" for number, name in enumerate(names))
        run.progress.say(
            f"steps on the way, before any training: {run.metric} {told} (held-out images); the most goes on"
        )
    return {str(number): known[name] for number, name in enumerate(names)}


def joined(steps: Iterable[Sequence[Cut]], rows: int) -> list[Cut]:
    """The cuts of successive steps as cuts of the first network, whose rows keep their numbers.

    Args:
        steps: of each its cuts, by the rows of the network that it began with.
        rows: how many the first network has.
    """
    numbers, found = list(range(rows)), dict[str, Cut]()
    for cuts in steps:
        gone = set[int]()
        for cut in cuts:
            _, row, part = cut.key.split(".")
            key = f"rows.{numbers[int(row)]}.{part}"
            known = found.get(key, Cut(key, cut.before, cut.after, 0.0))
            found[key] = Cut(key, known.before, cut.after, known.lost + cut.lost)
            if not cut.after:
                gone.add(int(row))
                inside = f"rows.{numbers[int(row)]}.expanded"
                found.pop(inside, None)  # all of it is gone
        numbers = [number for at, number in enumerate(numbers) if at not in gone]
    return sorted(found.values(), key=lambda cut: int(cut.key.split(".")[1]))


def _widths(
    run: Run, parent: Parent, latencies: Latencies, share: float, seed: NetSpec
) -> tuple[NetSpec, list[Cut]]:
    """The widths of a step and its cuts, chosen once per run: the table goes on learning."""
    known = run.ledger.find(event="step", share=share)
    if known is None:
        found = _cut(parent, latencies, share, seed)
        cuts = [(cut.key, cut.before, cut.after, cut.lost) for cut in found.cuts]
        known = {"event": "step", "share": share, "spec": to_text(found.spec), "cuts": cuts}
        run.ledger.append(known)
    return from_text(known["spec"]), [Cut(*cut) for cut in known["cuts"]]


def _cut(parent: Parent, latencies: Latencies, share: float, seed: NetSpec) -> Allocation:
    """The best widths at an estimated share of the seed network's latency."""
    table = latencies.table
    allocator = Allocator(parent.spec, parent.measured().groups, table)
    return allocator.at(max(share * table.estimate_ms(seed), allocator.fastest_ms()))


def _made(run: Run, parent: Parent, spec: NetSpec, name: str) -> Parent:
    """The network of a step: its weights are solved, and the importance of its channels is measured."""
    weights = run.folder.scratch / f"{name}.safetensors"
    importance = weights.with_suffix(".importance.safetensors")
    data, training = run.experiment.data, run.settings.training
    if not weights.is_file():
        net, _ = narrowed(run.experiment, parent, spec, training)
        save_weights(net.state_dict(), weights)
    if not importance.is_file():
        net = run.experiment.load(spec, weights)
        data.importance(net, training, run.progress).save(importance)
    return Parent(spec, weights, importance, parent)
