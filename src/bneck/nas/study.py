"""A search over a space: ask for a network, tell its accuracy; an Optuna study is the ledger.

Networks over the latency limit are rejected untrained; networks that were judged already get the
accuracy found then. What is under way when a search is killed is still under way when its ledger is
opened again (`Study.under_way`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from bneck.nas.ledger import LedgerError, close_ledger, open_ledger, reach
from bneck.nas.reward import Reward
from bneck.nas.samplers import OnReplay, Proposal
from bneck.nas.searchers import PARETO_SEARCHERS, SEARCHERS, sampler
from bneck.nas.several import RUN, agreed_reward, is_of, taken
from bneck.nas.space import Space, Tokens
from bneck.nas.trials import (
    ACCURACY,
    DIGEST,
    FAILED,
    LATENCY,
    REJECTED,
    Finished,
    distributions,
    tokens_of,
)  # fmt: skip
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec

Objective = Literal["reward", "pareto"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
MOST_IN_A_ROW = 500  # proposals that need no training before a search gives up
REPEATS, STOP = "repeats", "stop"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A network to judge.

    `rungs` and `stops` are the accuracies and answers so far (`Study.report`), `failures` the reasons of
    training runs that diverged; all by rung.
    """

    number: int
    tokens: Tokens
    spec: NetSpec
    latency_ms: float
    rungs: dict[int, float] = field(default_factory=dict)
    stops: dict[int, bool] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A judged network.

    `stopped`: given up early, its accuracy is that of fewer epochs. `failed` says why its training
    diverged; its accuracy is 0 then.
    """

    number: int
    tokens: Tokens
    accuracy: float
    latency_ms: float
    reward: float
    stopped: bool
    failed: str | None = None

    @property
    def whole(self) -> bool:
        """Whether its accuracy is that of a whole training."""
        return not self.stopped and self.failed is None


class Study:
    """One search over a space.

    Args:
        space: where to search.
        reward: judges accuracy and latency; its `limit_ms` rejects networks untrained.
        estimate: spec -> latency in milliseconds.
        searcher: one of `SEARCHERS`.
        objective: "reward" looks for the best reward, "pareto" for the Pareto front of accuracy and latency.
        ledger: a journal file's path, or a database's URL (sqlite:///..., postgresql://...); None
            keeps the trials in memory.
        name: of the study in its ledger.
        seed: everything random follows from it.
        pruner: which trials stop early; None lets all go on.
        on_replay: called with (updates, of so many) while the controller replays a resumed search.
        run: which of several runs this is that share the study, each in a process of its own; all judge for
            one reward, that of the first. None: this process alone uses the study.

    Raises:
        InputError: a setting that cannot be, or a space of one network.
        LedgerError: the ledger cannot be opened or holds another search.
    """

    def __init__(
        self, space: Space, *, reward: Reward, estimate: Callable[[NetSpec], float],
        searcher: str = "predictor", objective: Objective = "reward",
        ledger: str | Path | None = None, name: str = "blocks", seed: int = 0,
        pruner: optuna.pruners.BasePruner | None = None, on_replay: OnReplay | None = None,
        run: str | None = None,
    ) -> None:  # fmt: skip
        if objective not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise InputError(f"there is no objective {objective!r}; known are {known}")
        if objective == "pareto" and searcher in SEARCHERS and searcher not in PARETO_SEARCHERS:
            raise InputError(
                f"the searcher {searcher} looks for one network; for --objective pareto take one of "
                f"{', '.join(PARETO_SEARCHERS)}"
            )
        if space.size < 2:
            raise InputError(f"the space {space.name} has a single network: nothing to search")
        self.space, self.estimate, self.run = space, estimate, run
        self.objective, self.ledger = objective, ledger
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        content = f"{space.name} {space.digest()}"
        facts = {"space": content, "objective": objective, "searcher": searcher, "seed": seed}
        if run is None:
            facts["reward"] = repr(reward)
        self._study = self._reach(self._open, name, pruner, facts)
        self.reward = reward
        if run is not None:
            self.reward = self._reach(agreed_reward, self._study, reward)
        self._study_id = self._reach(self._storage.get_study_id_from_name, name)
        self._searcher = sampler(
            searcher, space, reward=self.reward, seed=seed, sweep=objective == "pareto",
            estimate=lambda tokens: estimate(space.decode(tokens)), on_replay=on_replay,
        )  # fmt: skip
        self._distributions = distributions(space.choices)
        self._known: dict[str, Trial] = {}
        self._trials: dict[int, Trial] = {}
        self._asked: dict[int, int] = {}  # ids in the ledger by number
        self._finished = Finished()
        self.refresh()

    def close(self) -> None:
        """Close the connections to the ledger, if it is a database."""
        close_ledger(self._storage)

    @property
    def trials(self) -> list[Trial]:
        """Networks that were judged, each once, by number; those of other runs as of the last `refresh`."""
        return [self._trials[number] for number in sorted(self._trials)]

    def refresh(self) -> None:
        """Read what other runs have told."""
        self._reach(self._read)

    def under_way(self) -> list[Asked]:
        """What was asked for and not told, by this process or one of the same run that was killed."""
        asked: list[Asked] = []
        states = (TrialState.RUNNING,)
        for frozen in self._reach(self._study.get_trials, deepcopy=False, states=states):
            if not is_of(frozen, self.run):
                continue
            digest = frozen.user_attrs.get(DIGEST)
            # A network is written down twice where the database's answer to the first time was lost.
            twice = digest in self._known or digest in [one.spec.digest() for one in asked]
            half_written = len(frozen.params) < len(self.space.choices) or digest is None
            if half_written or twice:
                self._withdraw(frozen.number)
            else:
                self._asked[frozen.number] = self._id(frozen.number)
                asked.append(self._as_asked(frozen))
        return asked

    def ask(self) -> Asked | None:
        """The next network to judge; None when the searcher has nothing new any more.

        Raises:
            InputError: it proposed nothing but networks over the limit.
        """
        allowed = bool(self._trials)
        for _ in range(MOST_IN_A_ROW):
            trials = self._reach(self._read)
            proposal = self._searcher.proposal(trials, len(trials))
            tokens = tokens_of(self.space.choices, proposal.params)
            spec = self.space.decode(tokens)
            latency_ms = self.estimate(spec)
            if not self.reward.allows(latency_ms):
                self._enter(proposal, {REJECTED: True}, 0.0, latency_ms)
                continue
            allowed, digest = True, spec.digest()
            if known := self._known.get(digest):
                noted = {REPEATS: known.number, ACCURACY: known.accuracy}
                self._enter(proposal, noted, known.accuracy, latency_ms)
                continue
            trial_id = self._enter(proposal, {DIGEST: digest}, None, latency_ms)
            number = self._number(trial_id, len(trials))
            if self.run is not None and taken(self._reach(self._read), number, digest):
                self._withdraw(number)
                continue
            self._asked[number] = trial_id
            return Asked(number=number, tokens=tokens, spec=spec, latency_ms=latency_ms)
        if allowed:
            return None
        raise InputError(
            f"{MOST_IN_A_ROW} networks of the space {self.space.name} were proposed and none is within "
            f"{self.reward.limit_ms:.3f} ms; choose a higher target or a space of smaller networks"
        )

    def note(self, asked: Asked, accuracy: float, rung: int, *, failed: str | None = None) -> None:
        """Keep an accuracy on the way, or why there is none, so that it need not be found again."""
        if failed is not None:
            asked.failures[rung] = failed
            self._note(asked, f"{FAILED}@{rung}", failed)
        asked.rungs[rung] = accuracy
        self._note(asked, f"{ACCURACY}@{rung}", accuracy)

    def report(self, asked: Asked, accuracy: float, rung: int) -> bool:
        """Tell an accuracy on the way; whether the trial should stop there."""
        if rung not in asked.rungs:
            self.note(asked, accuracy, rung)
        if self.objective == "pareto":
            return False  # Optuna prunes by one number only
        if rung not in asked.stops:
            trial = self._reach(optuna.Trial, self._study, self._asked[asked.number])
            value = self.reward(accuracy, asked.latency_ms)
            self._reach(trial.report, value, rung)
            asked.stops[rung] = bool(self._reach(trial.should_prune))
            # Asked twice, it may say otherwise.
            self._note(asked, f"{STOP}@{rung}", asked.stops[rung])
        return asked.stops[rung]

    def tell(
        self, asked: Asked, accuracy: float, *, stopped: bool = False, failed: str | None = None
    ) -> Trial:
        """The accuracy of a network that was asked for; 0 where its training `failed`.

        Raises:
            InputError: an accuracy that is not from 0 to 1, or a trial that is not under way.
        """
        if not 0 <= accuracy <= 1:
            raise InputError(f"the accuracy is {accuracy}; it must be a fraction from 0 to 1")
        if asked.number not in self._asked:
            raise InputError(f"trial {asked.number} is not under way; tell each trial once")
        stopped = stopped and self.objective == "reward"
        if failed is not None:
            self._note(asked, FAILED, failed)
        self._note(asked, ACCURACY, accuracy)
        self._finish(asked, accuracy, stopped=stopped)
        del self._asked[asked.number]
        return self._keep(
            asked.spec.digest(), number=asked.number, tokens=asked.tokens, accuracy=accuracy,
            latency_ms=asked.latency_ms, stopped=stopped, failed=failed,
        )  # fmt: skip

    def best(self, count: int) -> list[Trial]:
        """The whole trials of the highest rewards; ties go to the faster."""
        return sorted(self._whole(), key=lambda t: (-t.reward, t.latency_ms))[:count]

    def front(self) -> list[Trial]:
        """The whole trials that no other beats in both accuracy and latency, the fastest first."""
        front: list[Trial] = []
        for trial in sorted(self._whole(), key=lambda t: (t.latency_ms, -t.accuracy)):
            if not front or trial.accuracy > front[-1].accuracy:
                front.append(trial)
        return front

    def _whole(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.whole]

    def _open(
        self, name: str, pruner: optuna.pruners.BasePruner | None, facts: dict[str, Any]
    ) -> optuna.Study:
        goals: list[Any] = ["maximize", "minimize"][: 2 if self.objective == "pareto" else 1]
        self._storage = open_ledger(self.ledger)
        with suppress(KeyError):
            old = optuna.load_study(study_name=name, storage=self._storage)
            for key, value in facts.items():
                if (found := old.user_attrs.get(key)) not in (None, value):
                    raise LedgerError(
                        f"the ledger {self.ledger} holds a search with {key} {found}, this one has {value}; "
                        "choose another ledger, or go on with the settings it was begun with"
                    )
        study = optuna.create_study(
            storage=self._storage, study_name=name, directions=goals, load_if_exists=True,
            pruner=pruner or optuna.pruners.NopPruner(),
            sampler=RandomSampler(),  # never asked: `self._searcher` proposes
        )  # fmt: skip
        for key, value in facts.items():
            if key not in study.user_attrs:
                study.set_user_attr(key, value)
        return study

    def _withdraw(self, number: int) -> None:
        """Close a trial that nobody will judge."""
        self._reach(self._study.tell, number, state=TrialState.FAIL, skip_if_finished=True)

    def _enter(
        self, proposal: Proposal, noted: dict[str, Any], accuracy: float | None, latency_ms: float
    ) -> int:
        """Write a trial down in one go, finished where its accuracy is known; its id in the ledger."""
        trial = create_trial(
            state=TrialState.RUNNING if accuracy is None else TrialState.COMPLETE,
            values=None if accuracy is None else self._values(accuracy, latency_ms),
            params=proposal.params,
            distributions=self._distributions,
            user_attrs={LATENCY: latency_ms, **noted, **({RUN: self.run} if self.run else {})},
            system_attrs=proposal.system_attrs,
        )
        return self._reach(self._storage.create_new_trial, self._study_id, template_trial=trial)

    def _id(self, number: int) -> int:
        """A trial's id in the ledger."""
        find = self._storage.get_trial_id_from_study_id_trial_number
        return self._reach(find, self._study_id, number)

    def _number(self, trial_id: int, expected: int) -> int:
        if self._id(expected) == trial_id:
            return expected  # Optuna knows this one without asking the database
        return self._reach(self._storage.get_trial_number_from_id, trial_id)

    def _values(self, accuracy: float, latency_ms: float) -> list[float]:
        pareto = self.objective == "pareto"
        return [accuracy, latency_ms] if pareto else [self.reward(accuracy, latency_ms)]

    def _note(self, asked: Asked, key: str, value: Any) -> None:
        self._reach(self._storage.set_trial_user_attr, self._asked[asked.number], key, value)

    def _finish(self, asked: Asked, accuracy: float, *, stopped: bool) -> None:
        """Close a trial in the ledger; one that is closed, by a call that got no answer, stays as it is."""
        state, value = TrialState.COMPLETE, accuracy
        if stopped:  # its value is the last one reported
            state = TrialState.PRUNED
            value = asked.rungs.get(max(asked.stops, default=0), accuracy)
        values = self._values(value, asked.latency_ms)

        # `optuna.Study.tell` would read the trial twice and let the sampler keep books: ours keep none.
        def close() -> None:
            with suppress(UpdateFinishedTrialError):
                self._storage.set_trial_state_values(self._asked[asked.number], state, values)

        self._reach(close)

    def _read(self) -> list[FrozenTrial]:
        """All trials of the ledger by number; the newly finished ones are remembered."""
        trials = self._study.get_trials(deepcopy=False)
        for frozen in self._finished.new(trials):
            if frozen.number not in self._trials:
                self._remember(frozen)
        return trials

    def _remember(self, frozen: FrozenTrial) -> None:
        noted = frozen.user_attrs
        if DIGEST in noted and ACCURACY in noted:
            self._keep(
                noted[DIGEST], number=frozen.number, accuracy=float(noted[ACCURACY]),
                tokens=tokens_of(self.space.choices, frozen.params),
                latency_ms=float(noted[LATENCY]), stopped=frozen.state == TrialState.PRUNED,
                failed=noted.get(FAILED),
            )  # fmt: skip

    def _keep(self, digest: str, *, accuracy: float, latency_ms: float, **known: Any) -> Trial:
        reward = self.reward(accuracy, latency_ms)
        trial = Trial(accuracy=accuracy, latency_ms=latency_ms, reward=reward, **known)
        self._known[digest] = self._trials[trial.number] = trial
        return trial

    def _as_asked(self, frozen: FrozenTrial) -> Asked:
        tokens, noted = tokens_of(self.space.choices, frozen.params), frozen.user_attrs
        return Asked(
            number=frozen.number, tokens=tokens, spec=self.space.decode(tokens),
            latency_ms=float(noted[LATENCY]), rungs=_by_rung(noted, ACCURACY),
            stops=_by_rung(noted, STOP), failures=_by_rung(noted, FAILED),
        )  # fmt: skip

    def _reach(self, call: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        return reach(lambda: call(*given, **named), self.ledger)


def _by_rung(noted: dict[str, Any], what: str) -> dict[int, Any]:
    """The notes `what@RUNG` of a trial."""
    keys = (key.partition("@") for key in noted)
    return {int(rung): noted[f"{what}@{rung}"] for name, at, rung in keys if at and name == what}
