"""Judging NetAdapt's proposals: every one fine-tuned in the pool, finished ones from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bneck.nas.netadapt import Proposal, Step, Trial
from bneck.records.run import ProposalRecord
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.jobs import Outcome, TrialJob, trial_job
from bneck.runs.search.run import Clock, Run
from bneck.runs.search.workers import WorkerPool
from bneck.specs.network import NetSpec


class Judge:
    """Judges the proposals of a step by `expected` accuracy on the held-out images.

    With them it judges the network before the step, fine-tuned as long and as it is (the control):
    what T steps of training alone are worth is no merit of a proposal.
    """

    def __init__(self, run: Run, pool: WorkerPool, experiment: Experiment) -> None:
        self.run, self.pool, self.experiment = run, pool, experiment
        self.parent = run.folder.scratch / "seed-heldout.safetensors"
        self.clock = Clock()
        trained = run.ledger.find(event="trained", name="seed-heldout")
        assert trained is not None
        self.accuracy, self.score = float(trained["expected"]), float(trained["score"])

    @property
    def overhead_seconds(self) -> float:
        """Seconds by which all that is no training made the run longer.

        Proposing, estimating and choosing here; shrinking, loading and saving in the workers, who
        do it side by side.
        """
        ledger = self.run.ledger
        trials = [*ledger.all(event="trial"), *ledger.all(event="control")]
        in_workers = float(sum(t["setup_seconds"] for t in trials))
        return self.clock.seconds + in_workers / self.pool.workers

    def __call__(self, number: int, spec: NetSpec, proposals: Sequence[Proposal]) -> list[Trial]:
        """The trials of a step, judged in parallel; see `nas.netadapt.adapt`."""
        self.clock.stop()
        run = self.run
        wanted: list[tuple[NetSpec, Proposal | None]] = [(spec, None)]
        wanted += [(proposal.spec, proposal) for proposal in proposals]
        open_ = [entry for entry in wanted if self._known(number, entry[0]) is None]
        run.progress.stage(f"step {number}, {len(proposals)} proposals", len(wanted))
        run.progress.advance(len(wanted) - len(open_))

        def done(index: int, outcome: Outcome) -> None:
            run.ledger.append(_entry(number, *open_[index], outcome))
            if "failed" in outcome:
                what = open_[index][1] or "the network before it"
                run.progress.say(f"step {number}: {what} failed: {outcome['failed']}")
            run.progress.advance(1)

        self.pool.run(trial_job, [(self._job(number, spec, s),) for s, _ in open_], done)
        known = [self._known(number, proposal.spec) for proposal in proposals]
        self.clock.start()
        return [
            Trial(p, float(k["expected"]), failed="failed" in k)
            for p, k in zip(proposals, known, strict=True)
            if k
        ]

    def control(self, number: int, spec: NetSpec) -> float:
        """Accuracy of the network before the step after its own T steps; before them if they diverged."""
        known = self._known(number, spec)
        assert known is not None
        return self.accuracy if "failed" in known else float(known["expected"])

    def keep(self, step: Step) -> None:
        """Make the kept trial's weights the next parent; drop the others of its step."""
        kept = step.kept.proposal
        known = self._known(step.number, kept.spec)
        assert known is not None
        self.accuracy, self.score = float(known["expected"]), float(known["accuracy"])
        self.parent = self._weights(step.number, kept.spec)
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

    def _known(self, number: int, spec: NetSpec) -> dict[str, Any] | None:
        digest = spec.digest()
        for event in ("trial", "control"):
            if found := self.run.ledger.find(event=event, step=number, digest=digest):
                return found
        return None

    def _weights(self, number: int, spec: NetSpec) -> Path:
        return self.run.folder.scratch / f"step-{number:03d}-{spec.digest()}.safetensors"

    def _job(self, number: int, parent: NetSpec, spec: NetSpec) -> TrialJob:
        settings = self.run.settings
        return TrialJob(
            spec=spec,
            parent_spec=parent,
            parent_weights=self.parent,
            experiment=self.experiment,
            # One seed for all proposals of a step: they see the same images in the same order.
            settings=replace(settings.tuning, seed=settings.seed + number),
            steps=settings.steps,
            weights=self._weights(number, spec),
        )


def proposal_record(proposal: Proposal) -> ProposalRecord:
    """A proposal as the ledger and the record hold it."""
    return ProposalRecord(
        kind=proposal.kind,
        rows=list(proposal.rows),
        before=proposal.before,
        after=proposal.after,
    )


def _entry(
    number: int, spec: NetSpec, proposal: Proposal | None, outcome: Outcome
) -> dict[str, Any]:
    entry: dict[str, Any] = {"event": "control", "step": number, "digest": spec.digest()}
    if proposal is not None:
        entry |= {
            "event": "trial",
            "proposal": proposal_record(proposal),
            "estimated_ms": proposal.estimated_ms,
        }
    return {**entry, "accuracy": outcome["score"], **outcome}
