"""The choice for some images: what is too slow drops out, and a frozen epoch ranks the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bneck.devices.deployment import Deployment
from bneck.records.files import write_json
from bneck.records.progress import Progress
from bneck.records.run import RunFolder
from bneck.runs.choose.known import known_networks
from bneck.runs.choose.race import latencies
from bneck.runs.choose.weights import AtHand
from bneck.runs.data import prepared
from bneck.runs.folder import begin, resumed
from bneck.runs.start import find_start
from bneck.runs.train import Work, planned
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.specs.transforms import rename
from bneck.tasks.contract import Data, Dataset, Task
from bneck.training.processes import joined

HALF = 2.0  # a network that is more times too slow loses too much when it is narrowed
PARTS = 3  # of a choice: measuring, a frozen epoch, the search


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """Weights whose network was measured; `score` is the metric on val after a frozen epoch.

    `weights` is what `find_start` takes, `origin` and `given` are those of `AtHand`.
    """

    network: str
    weights: str
    origin: str
    given: bool
    measured_ms: float
    score: float | None = None

    @property
    def title(self) -> str:
        """The network and where its weights are from."""
        return f"{self.network} ({self.origin})"

    def as_json(self) -> dict[str, Any]:
        """Plain values for the record, of which `Entrant(**values)` is the same again."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Contest:
    """One choice under way. It writes into its record what it finds, and goes on from there."""

    task: Task
    folder: RunFolder
    record: Any
    options: Any  # the task's
    on: Deployment
    progress: Progress

    @property
    def limit_ms(self) -> float:
        """The target."""
        return float(self.record["target_ms"])

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, see `main.choose`."""
        found: dict[str, Any] = self.record["settings"]
        return found

    @property
    def place(self) -> str | None:
        """Where the images are."""
        found: str | None = self.record["data"]["path"]
        return found

    @cached_property
    def dataset(self) -> Dataset:
        """The images as they lie."""
        return self.task.find(self.place, self.options, seed=self.settings["seed"])

    @cached_property
    def told(self) -> set[str]:
        """What was said of weights."""
        return set()

    def within_reach(self, hands: Sequence[AtHand], *, again: bool = False) -> list[Entrant]:
        """The weights whose network meets the target at half its latency; says what is not at hand.

        Raises:
            InputError: none does; the fastest is named.
        """
        if "measured" not in self.record:
            self._measure(hands, again=again)
        entrants = [Entrant(**one) for one in self.record["measured"]]
        near = [one for one in entrants if one.measured_ms <= HALF * self.limit_ms]
        if not near:
            fastest = min(entrants, key=lambda one: one.measured_ms)
            raise InputError(
                f"nothing at hand reaches {self.limit_ms:.3f} ms: the fastest, {fastest.title}, runs in "
                f"{fastest.measured_ms:.3f} ms, and would lose more than half of itself; choose a target above "
                f"{fastest.measured_ms / HALF:.3f} ms or a smaller --resolution"
            )
        return near

    def _measure(self, hands: Sequence[AtHand], *, again: bool) -> None:
        """Enter all latencies into the record, and say what is out of reach or lacks weights."""
        self.progress.course(1, PARTS, None)
        have = {hand.spec.name.partition("@")[0] for hand in hands}
        lacking = [one for one in known_networks() if one.weights and one.network not in have]
        specs = [self._arranged(hand.spec) for hand in hands]
        specs += [self._arranged(one.spec) for one in lacking]
        found = latencies(specs, self.on, self.progress, again=again)
        times = [one.latency_ms.median for one in found]
        entrants = [
            Entrant(
                network=hand.spec.name, weights=hand.text, origin=hand.origin, given=hand.given,
                measured_ms=ms,
            )
            for hand, ms in zip(hands, times, strict=False)
        ]  # fmt: skip
        dropped = [one for one in entrants if one.measured_ms > HALF * self.limit_ms]
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
        self.save()
        if dropped and len(dropped) < len(entrants):
            names = few([one.title for one in dropped])
            self.progress.say(f"too slow even at half the latency: {names}")
        if missed:
            best, _ = max(missed, key=lambda one: one[0].top1 or 0.0)
            self.progress.say(
                f"left out for lack of weights: {few([one.network for one, _ in missed])}; those of "
                f"{best.network}, the best of them, are fetched with: {best.command}"
            )

    def scored(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """The entrants with their scores, the best first; of equals the faster one.

        Raises:
            InputError: weights that the user named, or all, cannot be used.
        """
        if "scored" in self.record:
            return [Entrant(**one) for one in self.record["scored"]]
        found: dict[Path, Entrant] = {}
        self.progress.course(2, PARTS, None)
        with joined(None) as group:
            work = Work(self.task, group, self.progress, self.data())
            for number, entrant in enumerate(entrants):
                try:
                    start = find_start(entrant.weights, None, self.progress)
                    place = start.folder.resolve()
                    if place in found:  # the hub's cache has what a file was imported from
                        continue
                    start.tell(self.progress)
                    self.told.update(start.sentences)
                    score = self._probed(entrant, number, work)
                except InputError as error:
                    if entrant.given:
                        raise
                    # Nobody asked for what lies in the caches.
                    self.progress.say(f"left out: {entrant.title}: {error}")
                    continue
                found[place] = replace(entrant, score=score)
                self.progress.say(
                    f"{entrant.title}: {entrant.measured_ms:.3f} ms, {self.task.metric.name} {score:.1%} after "
                    "a frozen epoch"
                )
        if not found:
            raise InputError("none of the weights at hand can be used; pass others with --from")
        ranked = sorted(found.values(), key=lambda one: (-(one.score or 0.0), one.measured_ms))
        self.record["scored"] = [one.as_json() for one in ranked]
        self.save()
        return ranked

    def data(self) -> Data:
        """The images as all networks of the choice learn from them, made ready once."""
        spec, wrapper = self.task.arrange(self.task.default_network, self.options, self.dataset)
        return prepared(
            self.task, self.folder, self.record, self.options, spec=spec, wrapper=wrapper,
            seed=self.settings["seed"], progress=self.progress,
        )  # fmt: skip

    def _probed(self, entrant: Entrant, number: int, work: Work) -> float:
        """The score on val after an epoch that trains only what stands after the pool."""
        folder = RunFolder(self.folder.path / "probes" / f"{number:02d}-{entrant.network}")
        if folder.run_json.is_file():
            trained = resumed(folder, work.carry)
        else:
            given = {
                "start": entrant.weights, "epochs": 1.0, "frozen": True, "seed": self.settings["seed"],
                "resolution": self.settings["resolution"],
            }  # fmt: skip
            plan = planned(None, self.place, self.task.name, given)
            trained = begin(folder, plan.spec, plan.record(), work.carry)
        return float(trained["scores"]["val"]["score"])

    def _arranged(self, spec: NetSpec) -> NetSpec:
        found, _ = self.task.arrange(spec, self.options, self.dataset)
        return rename(found, spec.name)

    def save(self) -> None:
        """Write the record."""
        write_json(self.folder.run_json, self.record)
