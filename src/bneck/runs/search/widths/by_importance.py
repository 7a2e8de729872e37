"""A search by importance: widths of least importance per millisecond, then recovery by training.

Next to the network by importance stand simpler ways to the same latency, above all a uniform width
whose channels are chosen by the same importance; the best of all ships.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from bneck.nas.allocation.allocator import Allocation, Allocator
from bneck.records.files import write_text
from bneck.runs.search.finals import handed_over
from bneck.runs.search.jobs import Parent, TrainJob
from bneck.runs.search.latency import Latencies, table_for
from bneck.runs.search.mistakes import compare_mistakes
from bneck.runs.search.run import Run
from bneck.runs.search.ship import Result, compared, measure_finals, ship
from bneck.runs.search.target import check_targets, say_how_long, settle_target
from bneck.runs.search.trials import record_outcomes, train_all
from bneck.runs.search.widths.candidates import Candidate, simpler_ways
from bneck.runs.search.widths.clocks import CLOCKS, by_clocks
from bneck.runs.search.widths.lose import affordable_target
from bneck.runs.search.widths.resolutions import at_lower_resolution
from bneck.runs.search.widths.seed import keep_longer_seed, longer_seed, teacher_of, trained_seed
from bneck.runs.search.widths.steps import joined, on_the_way
from bneck.runs.search.widths.uniform import FORMS, uniform_widths
from bneck.specs.network import NetSpec
from bneck.specs.rows import Row
from bneck.specs.text import from_text, to_text
from bneck.specs.transforms import fix_skips, rename

ROUNDS = 3  # of training, where the measurement at the end misses the target
SAFER = 0.992  # of the limit, each time: a network that missed it must not be chosen again
FAR = 0.05  # of the score, behind the best: two runs of one network are at most 0.02 apart
NEAR = 0.97  # of the limit: below it, latency that the user grants is left unused
DISTURBED = 0.04  # from what was measured before, either way: a last measurement is then repeated
MEASURED = CLOCKS + 1  # times of measurement in a round: those of the choice, and the end
FITTED = ("found", *FORMS, "scratch")  # roles whose widths are fitted to the target
# What each target of a run has of its own in the record.
OWN = (
    "target", "target_ms", "found", "uniform", "others", "allocation", "export", "shipped", "baseline",
    "meets_target", "measured_latency_ms", "estimated_latency_ms", "score",
)  # fmt: skip


def search_by_importance(run: Run, seed: NetSpec) -> None:
    """Train the seed network, narrow it to each target, and ship the best network of each."""
    given = handed_over(run)
    reference = given.reference if given else seed
    with run.stage("target"):
        if given is None:
            check_targets(run, seed)
    # Some five tries of both networks, and each later time; at the end all are measured, with the seed network.
    say_how_long(run, seed, given, {"widths": 3 * CLOCKS, "export and measure": 4})
    with run.stage("latency table"):
        table = (
            table_for(run, seed, reference, given.reference_ms) if given else table_for(run, seed)
        )
        latencies = Latencies(run, reference, table)
    targets, lose = run.settings.targets, run.settings.lose
    with run.stage("target"):
        # With --lose the target follows from trained networks; until then it is the seed's latency.
        settle_target(run, seed, latencies, targets[0] if targets else "100%", given)
    parent = trained_seed(run, fix_skips(seed))
    if lose is not None:
        targets = (affordable_target(run, parent, latencies, lose),)
    # The first target comes last: the record of the run is then its record.
    for target in reversed(targets):
        first, family = target == targets[0], run.record.get("family", [])
        if any(one["target"] == target for one in family):
            run.course.skip_target()
            continue
        limit_ms = settle_target(run, seed, latencies, target, given)
        _Narrowing(run, parent, latencies, limit_ms, "" if first else target).carry()
        if not first:
            own = {key: run.record.pop(key) for key in OWN if key in run.record}  # type: ignore[misc]
            run.record["family"] = [own, *family]
            run.save()


def folder_of(target: str) -> str:
    """The folder in a run's for the network of a further target."""
    return "found-" + re.sub(r"[^\w.-]", "", target.replace("%", "percent"))


def missed(ms: float, mean_ms: float, limit_ms: float) -> Literal["above", "below"] | None:
    """On which side of a target a network ended; None where it is met.

    Args:
        ms: the last measurement, which may not be above the target.
        mean_ms: of all measurements. One alone may be a few percent too short, and another training is dear.
        limit_ms: the target.
    """
    if ms > limit_ms:
        return "above"
    return "below" if mean_ms < NEAR * limit_ms else None


def far_behind(scores: Mapping[str, float]) -> set[str]:
    """Keys of the scores that are over `FAR` below the best."""
    return {key for key, score in scores.items() if score < max(scores.values()) - FAR}


@dataclass(frozen=True, slots=True)
class _Narrowing:
    """One target of a run; `further` is its text where it is not the first."""

    run: Run
    parent: Parent
    latencies: Latencies
    limit_ms: float
    further: str

    def carry(self) -> None:
        """Choose widths, train, ship and measure; start over where the end misses the target."""
        run = self.run
        folder = run.folder.path / folder_of(self.further) if self.further else run.folder.found
        aim_ms, miss, last = self.limit_ms, None, ""
        for number in range(ROUNDS):
            candidates, allocation = self._candidates(number, aim_ms)
            if miss == "below" and last in {one.spec.digest() for one in candidates.values()}:
                run.course.skip_target()
                return  # there is no wider one within the target
            with run.stage("train result"):
                best = self._trained(candidates, allocation, (number + 1) * MEASURED - 1)
            chosen = candidates[best]
            weights = chosen.first_job(run).weights
            result = Result(
                found=chosen.spec, weights=weights, experiment=chosen.experiment,
                reference=self.latencies.reference, limit_ms=self.limit_ms, folder=folder,
            )  # fmt: skip
            with run.stage("export and measure"):
                ship(run, result)
                measure_finals(run, result)
                if self._disagrees(chosen, best, (number + 1) * MEASURED - 1):
                    measure_finals(run, result)
                if not self.further:
                    compare_mistakes(run, result)
            for _, network in compared(run):
                spec = from_text(network["spec"])
                if spec.resolution == self.parent.spec.resolution:
                    self.latencies.note(spec, network["measured_ms"], (number + 1) * MEASURED - 1)
            if best not in (*FITTED, "lower") or number == ROUNDS - 1:
                return
            ms, mean_ms = run.record["measured_latency_ms"], self.limit_ms
            if (
                best in FITTED
            ):  # the table does not learn from other resolutions, so none gets wider
                mean_ms = self.latencies.mean_ms(chosen.spec, (number + 1) * MEASURED)
            if (miss := missed(ms, mean_ms, self.limit_ms)) is None:
                return
            last = chosen.spec.digest()
            run.course.again()
            if miss == "above":
                aim_ms *= SAFER
                run.progress.say(
                    f"measured {ms:.3f} ms at the end, above the target of {self.limit_ms:.3f} ms: narrowing "
                    "further"
                )
            else:
                run.progress.say(
                    f"measured {mean_ms:.3f} ms on average, {1 - mean_ms / self.limit_ms:.1%} below the "
                    f"target of {self.limit_ms:.3f} ms: looking for a wider one"
                )

    def _disagrees(self, chosen: Candidate, role: str, before: int) -> bool:
        """Whether what ships measured much more or less than `before`, as where something disturbed it."""
        if role not in FITTED:
            return False
        ms, known = (
            self.run.record["measured_latency_ms"],
            self.latencies.mean_ms(chosen.spec, before),
        )
        if abs(ms / known - 1) <= DISTURBED:
            return False
        self.run.progress.say(
            f"measured {ms:.3f} ms at the end, and {known:.3f} ms before: measured once more, which counts"
        )
        return True

    def _candidates(
        self, number: int, aim_ms: float
    ) -> tuple[dict[str, Candidate], dict[str, Any]]:
        """All ways to the target in the `number`-th round, by role; how widths were chosen, for the record."""
        run, seed = self.run, self.parent.spec
        shared: dict[str, Any] = {
            "settings": run.settings.recovery, "experiment": run.experiment, "teacher": teacher_of(run, seed),
        }  # fmt: skip
        with run.stage("widths"):
            way = on_the_way(run, self.parent, self.latencies, self.limit_ms)
            made = dict[tuple[Row, ...], Allocation]()  # at any resolution
            forms = uniform_widths(run, seed, self.latencies, self.limit_ms)
            proposals = {"found": self._by_importance(way.parent, made), **forms}
            found, *scaled = by_clocks(self.latencies, aim_ms, proposals, number * MEASURED)
            cuts = {
                "found": list(map(str, joined([way.cuts, made[found.rows].cuts], len(seed.rows))))
            }
            if not number:
                run.progress.say(f"cut by importance: {'; '.join(cuts['found'])}")
            found = rename(found, f"{seed.name}-narrowed")
            uniform = {
                role: rename(spec, f"{seed.name}-{role}")
                for role, spec in zip(forms, scaled, strict=True)
            }
            simpler = simpler_ways(
                run, self.parent, self.latencies, self.limit_ms, uniform["uniform"]
            )
            both = [
                Candidate(role="found", title="by importance", spec=found, parent=way.parent, **shared),
                *(
                    Candidate(role=role, title=FORMS[role], spec=spec, parent=self.parent, **shared)
                    for role, spec in uniform.items()
                ),
            ]  # fmt: skip
            whole = self._by_importance(self.parent, made)
            lower, resolutions = at_lower_resolution(
                run, self.latencies, aim_ms, both[0], self.parent, whole
            )
            if lower:
                cuts["lower"] = [str(cut) for cut in made[lower.spec.rows].cuts]
        ways = {one.role: one for one in [*both, *([lower] if lower else []), *simpler]}
        images = self.parent.measured().images
        return ways, {
            "cuts": cuts, "images": images, "steps": dict(way.scores), "resolutions": resolutions,
        }  # fmt: skip

    def _by_importance(
        self, parent: Parent, made: dict[tuple[Row, ...], Allocation]
    ) -> Callable[[float], NetSpec]:
        """(Estimated milliseconds) -> the best version of a network; `made` remembers how it was cut."""
        importance, table = parent.measured(), self.latencies.table

        def propose(estimate_ms: float) -> NetSpec:
            # The table has learned from what was measured since.
            allocator = Allocator(parent.spec, importance.groups, table)
            found = allocator.at(max(estimate_ms, allocator.fastest_ms()))
            made[found.spec.rows] = found
            return found.spec

        return propose

    def _outcomes(self, candidates: Mapping[str, Candidate]) -> dict[str, list[dict[str, Any]]]:
        """Those of all training runs, by role.

        From trained weights, a simpler way that is `FAR` behind after its first run has no further ones: at
        deep cuts they would be a third of all time. From random weights all end next to each other.
        """
        run = self.run
        jobs = {role: one.jobs(run) for role, one in candidates.items()}
        first = {role: dict([next(iter(one.items()))]) for role, one in jobs.items()}
        begun = {
            **jobs,
            **(first if run.settings.start is not None else {}),
            "found": jobs["found"],
        }
        untaught = {name: job for name, job in _joined(begun).items() if job.teacher is None}
        outcomes = train_all(run, longer_seed(run, self.parent.spec) | untaught)
        keep_longer_seed(run, outcomes)
        outcomes |= train_all(run, _joined(begun))
        far = far_behind({role: outcomes[next(iter(one))]["score"] for role, one in jobs.items()})
        left = {role: begun[role] if role in far else one for role, one in jobs.items()}
        if once := [candidates[role].title for role in jobs if len(left[role]) < len(jobs[role])]:
            run.progress.say(
                f"trained once, for they are over {100 * FAR:.0f} points behind: {', '.join(once)}"
            )
        outcomes |= train_all(run, _joined(left))
        return {role: [outcomes[name] for name in one] for role, one in left.items()}

    def _trained(
        self, candidates: Mapping[str, Candidate], allocation: dict[str, Any], before: int
    ) -> str:
        """Train all, write down what they came to, and name the best.

        Latencies are those measured `before` the end of the round: a resumed run names the same one.
        """
        run = self.run
        outcomes = self._outcomes(candidates)
        records, scores = dict[str, Any](), dict[str, float]()
        for role, one in candidates.items():
            estimated = role in FITTED
            records[role] = run.network_record(
                one.spec, self.latencies.table if estimated else None
            )
            records[role]["title"] = one.title
            record_outcomes(records[role], outcomes[role])
            scores[role] = mean(outcome["score"] for outcome in outcomes[role])
        uniform = [role for role in FORMS if role in candidates]
        for role in uniform:
            records[role]["width"] = _share_of_widths(candidates[role].spec, self.parent.spec)
        slow = {
            role
            for role in (*uniform, "scratch")
            if role in candidates
            and self.latencies.mean_ms(candidates[role].spec, before) > 1.01 * self.limit_ms
        }
        eligible = [role for role in scores if role not in slow]
        best = max(eligible, key=lambda role: scores[role])  # the first of equals: by importance
        # The better form of the uniform width is that of the record, which a report compares with first.
        better = max(uniform, key=lambda role: (role not in slow, scores[role]))
        others = {
            "uniform-2" if role in uniform else role: record
            for role, record in records.items()
            if role not in ("found", better)
        }
        if best != "found":
            theirs, ours = (records[role]["scores"] for role in (best, "found"))
            tied = (
                ", a tie within the spread of the training runs" if min(theirs) <= max(ours) else ""
            )
            run.progress.say(
                f"{candidates[best].title} ships: {scores[best]:.1%}, the network by importance "
                f"{scores['found']:.1%}{tied}"
            )
            others = {"narrowed": records["found"]} | {k: v for k, v in others.items() if k != best}
        # A copy: the measurement is that of the file that ships.
        run.record["found"] = copy(records[best])
        run.record["uniform"], run.record["others"] = records[better], others
        cuts = allocation["cuts"]
        run.record["allocation"] = {
            **allocation, "cuts": cuts.get(best, cuts["found"]),
            "shipped": "uniform" if best == better else best,
        }  # fmt: skip
        run.record["steps"], run.record["overhead_seconds"] = [], 0.0
        if not self.further:
            write_text(run.folder.spec, to_text(candidates[best].spec))
        run.save()
        return best


def _joined(jobs: Mapping[str, Mapping[str, TrainJob]]) -> dict[str, TrainJob]:
    return {name: job for one in jobs.values() for name, job in one.items()}


def _share_of_widths(narrow: NetSpec, seed: NetSpec) -> float:
    """The mean ratio of outputs, for a report."""
    pairs = zip(fix_skips(narrow).rows, seed.rows, strict=True)
    return round(mean(a.out / b.out for a, b in pairs if hasattr(a, "out")), 3)  # type: ignore[union-attr]
