"""What a search trains in its worker pool, each thing once: full trainings, and NetAdapt's proposals.

The ledger holds what is finished, so a resumed run trains none of it again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

from bneck.costs.count import count
from bneck.nas.netadapt import Proposal, Step, Trial
from bneck.nets.importance import Importance
from bneck.nets.shrink import importance_of_kept
from bneck.records.run import NetworkRecord, ProposalRecord
from bneck.runs.progress import Following
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.jobs import (
    Outcome,
    Parent,
    TrainJob,
    TrialJob,
    standing_job,
    train_job,
    trial_job,
)
from bneck.runs.search.run import Run
from bneck.runs.search.workers import earliest_end
from bneck.specs.network import NetSpec
from bneck.training.settings import Settings


def job_for(
    run: Run,
    spec: NetSpec,
    name: str,
    repeat: int,
    *,
    heldout: bool = False,
    parent: Parent | None = None,
    teacher: Parent | None = None,
    settings: Settings | None = None,
    experiment: Experiment | None = None,
) -> TrainJob:
    """A full training of `spec`, the `repeat`-th with another seed; None: as the seed network is trained."""
    scratch, seed = run.folder.scratch, run.settings.seed + 1000 * repeat
    return TrainJob(
        spec=spec, experiment=experiment or run.experiment,
        settings=replace(settings or run.settings.training, seed=seed),
        weights=scratch / f"{name}.safetensors", checkpoint=scratch / f"{name}.checkpoint",
        mark=scratch / f"{name}.mark", heldout=heldout, parent=parent,
        teacher=teacher,
    )  # fmt: skip


def train_all(run: Run, jobs: dict[str, TrainJob]) -> dict[str, dict[str, Any]]:
    """Outcomes by job name."""
    wanted = [name for name in jobs if run.ledger.find(event="trained", name=name) is None]
    if wanted:
        roles = dict.fromkeys(name.partition("-")[0] for name in wanted)
        run.progress.stage(f"training {', '.join(roles)}", len(wanted))
        order = earliest_end([_cost(jobs[name]) for name in wanted], run.pool.workers)
        wanted = [wanted[number] for number in order]

    def done(index: int, outcome: Outcome) -> None:
        name = wanted[index]
        run.ledger.append({"event": "trained", "name": name, **outcome})
        jobs[name].checkpoint.unlink(missing_ok=True)
        run.progress.say(f"{name}: {run.metric} {outcome['score']:.1%}")
        narrow = [e for e in _trained(run, jobs) if not e["name"].startswith("seed")]
        if narrow:
            best = max(narrow, key=lambda entry: float(entry["score"]))
            run.progress.note(f"best so far: {best['name']} with {run.metric} {best['score']:.1%}")

    with Following(run.progress, [jobs[name].mark for name in wanted]):
        run.pool.run(train_job, [(jobs[name],) for name in wanted], done)
    return {entry["name"]: entry for entry in _trained(run, jobs)}


def _cost(job: TrainJob) -> float:
    """About how long a training takes next to others: on small images time grows less than multiply-adds."""
    taught = 0.0 if job.teacher is None else sqrt(count(job.teacher.spec).madds) / 3
    return job.settings.epochs * (sqrt(count(job.spec).madds) + taught)


def standing(run: Run, jobs: Mapping[str, TrainJob]) -> dict[str, float]:
    """What networks score on the held-out images before their training, by name; each once per run."""
    wanted = [name for name in jobs if run.ledger.find(event="standing", name=name) is None]

    def done(index: int, outcome: Outcome) -> None:
        run.ledger.append({"event": "standing", "name": wanted[index], **outcome})

    run.pool.run(standing_job, [(jobs[name],) for name in wanted], done)
    known = {one["name"]: float(one["score"]) for one in run.ledger.all(event="standing")}
    return {name: known[name] for name in jobs}


def _trained(run: Run, jobs: Mapping[str, TrainJob]) -> list[dict[str, Any]]:
    return [entry for entry in run.ledger.all(event="trained") if entry["name"] in jobs]


def record_outcomes(record: NetworkRecord, outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Keep what the final trainings of a network came to."""
    record["scores"] = [one["score"] for one in outcomes]
    record["loss"] = [one["loss"] for one in outcomes]


class Judge:
    """Fine-tunes the proposals of a step and scores them by `expected` accuracy on the held-out images.

    It does the same to the network before the step (the control): a proposal earns nothing by what T
    steps of training alone are worth.

    Proposals keep the most important channels. Importance is measured once, on the seed network `spec`, and
    goes along with the channels that the steps keep.
    """

    def __init__(self, run: Run, spec: NetSpec) -> None:
        self.run, self.spec = run, spec
        self.parent = run.folder.scratch / "seed-heldout.safetensors"
        self.seconds = 0.0  # that its calls took
        trained = run.ledger.find(event="trained", name="seed-heldout")
        assert trained is not None
        self.accuracy, self.score = float(trained["expected"]), float(trained["score"])
        self.importance = self._measured()

    def _measured(self) -> Importance | None:
        """The seed's importance; None in a run whose first trials kept channels by L2 norm."""
        run, path = self.run, self.run.folder.scratch / "importance-heldout.safetensors"
        if not path.is_file():
            if run.ledger.find(event="control") or run.ledger.find(event="trial"):
                run.record["channels"] = {"keep": "l2"}
                return None
            net: Any = run.experiment.load(self.spec, self.parent)
            data, training = run.experiment.data, run.settings.training
            data.importance(net, training, run.progress, heldout=True).save(path)
        found = Importance.load(path)
        run.record["channels"] = {"keep": "fisher", "images": found.images}
        return found

    @property
    def setup_seconds(self) -> float:
        """Seconds that shrinking, loading and saving in the workers, who do it side by side, took."""
        trials = [e for name in ("trial", "control") for e in self.run.ledger.all(event=name)]
        return float(sum(t["setup_seconds"] for t in trials)) / self.run.pool.workers

    def __call__(self, number: int, spec: NetSpec, proposals: Sequence[Proposal]) -> list[Trial]:
        """The trials of a step, evaluated in parallel; see `nas.netadapt.adapt`."""
        start, run = time.perf_counter(), self.run
        wanted = [(spec, None), *((proposal.spec, proposal) for proposal in proposals)]
        missing = [entry for entry in wanted if self._find(number, entry[0]) is None]
        run.progress.stage(f"step {number}, {len(proposals)} proposals", len(wanted))
        run.progress.advance(len(wanted) - len(missing))

        def done(index: int, outcome: Outcome) -> None:
            run.ledger.append(_entry(number, *missing[index], outcome))
            if "failed" in outcome:
                what = missing[index][1] or "the network before it"
                run.progress.say(f"step {number}: {what} failed: {outcome['failed']}")
            run.progress.advance(1)

        run.pool.run(trial_job, [(self._job(number, spec, s),) for s, _ in missing], done)
        known = [(p, self._known(number, p.spec)) for p in proposals]
        self.seconds += time.perf_counter() - start
        return [Trial(p, float(k["expected"]), failed="failed" in k) for p, k in known]

    def control(self, number: int, spec: NetSpec) -> float:
        """Accuracy of the network before the step after its own T steps; before them if they diverged."""
        known = self._known(number, spec)
        return self.accuracy if "failed" in known else float(known["expected"])

    def keep(self, step: Step) -> None:
        """Make the kept trial's weights the next parent; drop the others of its step."""
        kept = step.kept.proposal
        known = self._known(step.number, kept.spec)
        self.accuracy, self.score = float(known["expected"]), float(known["accuracy"])
        self.parent = self._weights(step.number, kept.spec)
        if self.importance is not None:
            around = self.run.wrapper.around
            self.importance = importance_of_kept(
                self.importance, around(self.spec), around(kept.spec)
            )
        self.spec = kept.spec
        # Only this step's and the last one's: a resumed run replays early steps while files of a
        # later one wait to be used.
        for number in (step.number - 1, step.number):
            for file in self.run.folder.scratch.glob(f"step-{number:03d}-*.safetensors"):
                if file != self.parent:
                    file.unlink()
        self.run.progress.say(
            f"step {step.number}: {kept}, {kept.estimated_ms:.3f} ms estimated, "
            f"held-out {self.run.metric} {self.score:.1%}"
        )

    def _find(self, number: int, spec: NetSpec) -> dict[str, Any] | None:
        keys = {"step": number, "digest": spec.digest()}
        return self.run.ledger.find(event="trial", **keys) or self.run.ledger.find(
            event="control", **keys
        )

    def _known(self, number: int, spec: NetSpec) -> dict[str, Any]:
        known = self._find(number, spec)
        assert known is not None
        return known

    def _weights(self, number: int, spec: NetSpec) -> Path:
        return self.run.folder.scratch / f"step-{number:03d}-{spec.digest()}.safetensors"

    def _job(self, number: int, parent: NetSpec, spec: NetSpec) -> TrialJob:
        settings = self.run.settings
        return TrialJob(
            spec=spec, parent_spec=parent, parent_weights=self.parent, importance=self.importance,
            experiment=self.run.experiment, steps=settings.steps, weights=self._weights(number, spec),
            # One seed for all proposals of a step: they see the same images in the same order.
            settings=replace(settings.tuning, seed=settings.seed + number),
        )  # fmt: skip


def proposal_record(proposal: Proposal) -> ProposalRecord:
    """A proposal as the ledger and the record hold it."""
    return ProposalRecord(
        kind=proposal.kind, rows=list(proposal.rows), before=proposal.before, after=proposal.after
    )


def _entry(
    number: int, spec: NetSpec, proposal: Proposal | None, outcome: Outcome
) -> dict[str, Any]:
    entry: dict[str, Any] = {"event": "control", "step": number, "digest": spec.digest()}
    if proposal is not None:
        entry |= {
            "event": "trial", "proposal": proposal_record(proposal),
            "estimated_ms": proposal.estimated_ms,
        }  # fmt: skip
    return {**entry, "accuracy": outcome["score"], **outcome}
