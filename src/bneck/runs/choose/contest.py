"""The choice for some images: what is too slow drops out, a frozen epoch ranks the rest, a search decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bneck.devices.deployment import Deployment
from bneck.records.files import write_json
from bneck.records.progress import Progress
from bneck.records.run import RunFolder
from bneck.runs.choose.known import known_networks
from bneck.runs.choose.race import latencies
from bneck.runs.choose.weights import AtHand
from bneck.runs.export import export, format_of
from bneck.runs.folder import begin
from bneck.runs.search.main import RECOVERY, search
from bneck.runs.start import find_start
from bneck.runs.train import Work, planned, train
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.specs.transforms import rename
from bneck.tasks.contract import Dataset, Task
from bneck.training.processes import joined

HALF = 2.0  # a network that is more times too slow loses too much when it is narrowed
CLEARLY = 1.05  # a search measures anew, and refuses a start that it finds within the target
PARTS = 3  # of a choice: measuring, a frozen epoch, the search
ALSO = 2  # networks within the target that the search compares with


@dataclass(frozen=True, slots=True)
class Entrant:
    """Weights whose network is within reach; `score` is the metric on val after a frozen epoch."""

    hand: AtHand
    measured_ms: float
    score: float | None = None

    @property
    def title(self) -> str:
        """The network and where its weights are from."""
        return f"{self.hand.spec.name} ({self.hand.origin})"

    def as_json(self) -> dict[str, Any]:
        """Plain values for the record."""
        found = {
            "network": self.hand.spec.name, "weights": self.hand.text, "origin": self.hand.origin,
            "measured_ms": self.measured_ms,
        }  # fmt: skip
        return found if self.score is None else {**found, "score": self.score}


@dataclass(frozen=True, slots=True)
class Contest:
    """One choice under way, which writes into its record what it finds."""

    task: Task
    folder: RunFolder
    record: Any
    dataset: Dataset
    place: str | None
    options: Any  # the task's
    on: Deployment
    progress: Progress

    @property
    def limit_ms(self) -> float:
        """The target."""
        return float(self.record["target_ms"])

    def within_reach(self, hands: Sequence[AtHand], *, again: bool) -> list[Entrant]:
        """The weights whose network meets the target at half its latency; says what is not at hand.

        Raises:
            InputError: none does; the fastest is named.
        """
        self.progress.course(1, PARTS, None)
        have = {hand.spec.name.partition("@")[0] for hand in hands}
        lacking = [one for one in known_networks() if one.weights and one.network not in have]
        specs = [self._arranged(hand.spec) for hand in hands]
        specs += [self._arranged(one.spec) for one in lacking]
        found = latencies(specs, self.on, self.progress, again=again)
        times = [one.latency_ms.median for one in found]
        entrants = [Entrant(hand, ms) for hand, ms in zip(hands, times, strict=False)]
        near = [one for one in entrants if one.measured_ms <= HALF * self.limit_ms]
        dropped = [one for one in entrants if one not in near]
        missed = [
            (one, ms)
            for one, ms in zip(lacking, times[len(hands) :], strict=True)
            if ms <= HALF * self.limit_ms
        ]
        first = found[0]
        self.record.update({
            "device": first.as_json()["device"], "runtime": self.on.runtime,
            "runtime_version": first.runtime_version, "precision": self.on.precision,
            "measured": [one.as_json() for one in entrants],
            "too_slow": [one.as_json() for one in dropped],
            "without_weights": [
                {"network": one.network, "measured_ms": ms, "command": one.command} for one, ms in missed
            ],
        })  # fmt: skip
        self._save()
        if not near:
            fastest = min(entrants, key=lambda one: one.measured_ms)
            raise InputError(
                f"nothing at hand reaches {self.limit_ms:.3f} ms: the fastest, {fastest.title}, runs in "
                f"{fastest.measured_ms:.3f} ms, and would lose more than half of itself; choose a target above "
                f"{fastest.measured_ms / HALF:.3f} ms or a smaller --resolution"
            )
        if dropped:
            names = few([one.title for one in dropped])
            self.progress.say(f"too slow even at half the latency: {names}")
        if missed:
            best, _ = max(missed, key=lambda one: one[0].top1 or 0.0)
            self.progress.say(
                f"left out for lack of weights: {few([one.network for one, _ in missed])}; those of "
                f"{best.network}, the best of them, are fetched with: {best.command}"
            )
        return near

    def scored(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """The entrants with their scores, the best first; of equals the faster one."""
        spec, wrapper = self.task.arrange(entrants[0].hand.spec, self.options, self.dataset)
        settings = self.record["settings"]
        data = self.task.prepare(
            self.dataset, spec, wrapper, self.options, scratch=self.folder.scratch / "data",
            seed=settings["seed"], progress=self.progress,
        )  # fmt: skip
        found: dict[Path, Entrant] = {}
        self.progress.course(2, PARTS, None)
        with joined(None) as group:
            for entrant in entrants:
                try:
                    folder = find_start(entrant.hand.text).folder.resolve()
                    if folder in found:  # the hub's cache has what a file was imported from
                        continue
                    score = self._probed(
                        entrant, len(found), Work(self.task, group, self.progress, data)
                    )
                except InputError as error:
                    if entrant.hand.given:
                        raise
                    # Nobody asked for what lies in the caches.
                    self.progress.say(f"left out: {entrant.title}: {error}")
                    continue
                found[folder] = replace(entrant, score=score)
                self.progress.say(
                    f"{entrant.title}: {entrant.measured_ms:.3f} ms, {self.task.metric.name} {score:.1%} after "
                    "a frozen epoch"
                )
        if not found:
            raise InputError("none of the weights at hand can be used; pass others with --from")
        ranked = sorted(found.values(), key=lambda one: (-(one.score or 0.0), one.measured_ms))
        self.record["scored"] = [one.as_json() for one in ranked]
        self._save()
        return ranked

    def _probed(self, entrant: Entrant, number: int, work: Work) -> float:
        """The score on val after an epoch that trains only what stands after the pool."""
        settings = self.record["settings"]
        given = {
            "start": entrant.hand.text, "epochs": 1.0, "frozen": True, "seed": settings["seed"],
            "resolution": settings["resolution"],
        }  # fmt: skip
        plan = planned(None, self.place, self.task.name, given)
        folder = RunFolder(self.folder.path / "probes" / f"{number:02d}-{plan.spec.name}")
        trained = begin(folder, plan.spec, plan.record(), work.carry)
        return float(trained["scores"]["val"]["score"])

    def shipped(self, ranked: Sequence[Entrant]) -> Path:
        """The folder of what ships: of a search from the best network above the target, next to the best
        within it; where none is above it, of the best of full trainings."""
        fits = [one for one in ranked if one.measured_ms <= self.limit_ms]
        slower = [one for one in ranked if one not in fits]
        above = [one for one in slower if one.measured_ms > CLEARLY * self.limit_ms]
        if above:  # the search measures what is nearly as fast as the target again
            within = [one for one in ranked if one not in above][:ALSO]
        else:
            above, within = ([], fits[:ALSO]) if fits else (slower, [])
        finalists = [*above[:1], *within]
        self.record["chosen"] = [one.as_json() for one in finalists]
        self._save()
        self.progress.say(f"chosen: {', '.join(one.title for one in finalists)}")
        self.progress.course(3, PARTS, None)
        settings = self.record["settings"]
        common = {"seed": settings["seed"], "resolution": settings["resolution"]}
        if above:
            path = self.folder.path / "search"
            found = search(
                self.place, self.record["target"], task=self.task.name, device=self.on.device,
                runtime=self.on.runtime, precision=self.on.precision, threads=self.on.threads,
                start=above[0].hand.text, also=[one.hand.text for one in within],
                epochs=settings["epochs"], repeats=settings["repeats"], workers=settings["workers"],
                out=path, progress=self.progress, **common,
            )  # fmt: skip
            self.record.update({
                "score": found["score"], "measured_latency_ms": found["measured_latency_ms"],
                "found": found["found"],
            })  # fmt: skip
            return path
        return self._trained(within, common)

    def _trained(self, finalists: Sequence[Entrant], common: dict[str, Any]) -> Path:
        """Train all as long as a search would, and name the best."""
        settings, results = self.record["settings"], list[tuple[float, Path, Entrant]]()
        usual = self.task.recipe(
            None, images=self.dataset.splits["train"], epochs=settings["epochs"], started=True,
            seed=common["seed"],
        )  # fmt: skip
        epochs = (1 + RECOVERY) * usual.epochs
        for number, one in enumerate(finalists):
            path = self.folder.path / f"trained-{number}"
            made = train(
                None, self.place, task=self.task.name, start=one.hand.text, epochs=epochs, out=path,
                progress=self.progress, **common,
            )  # fmt: skip
            results.append((float(made["scores"]["val"]["score"]), path, one))
        score, path, best = max(results, key=lambda one: one[0])
        if not self.on.is_plain:
            export(
                path, format_of(self.on.runtime), precision=self.on.precision, progress=self.progress
            )  # fmt: skip
        self.record.update({
            "score": score, "measured_latency_ms": best.measured_ms,
            "found": {"name": best.hand.spec.name},
            "trained": [
                {**one.as_json(), "final_score": final, "run": str(where)} for final, where, one in results
            ],
        })  # fmt: skip
        return path

    def _arranged(self, spec: NetSpec) -> NetSpec:
        found, _ = self.task.arrange(spec, self.options, self.dataset)
        return rename(found, spec.name)

    def _save(self) -> None:
        write_json(self.folder.run_json, self.record)
