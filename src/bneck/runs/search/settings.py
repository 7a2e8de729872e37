"""Which settings a search runs with."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from bneck.devices.deployment import Deployment
from bneck.nas.netadapt import ALL, PAPER
from bneck.nas.netadapt import Kind as Change
from bneck.nas.reward import Kind, Reward
from bneck.nas.searchers import PARETO_SEARCHERS, SEARCHERS
from bneck.nas.spaces import space
from bneck.nas.study import OBJECTIVES, Objective
from bneck.runs.search.cluster import check_address
from bneck.specs.errors import InputError
from bneck.tasks.contract import Task
from bneck.tasks.options import stored as stored_options
from bneck.tasks.registry import task as task_named
from bneck.training.settings import Settings, stored_settings

Method: TypeAlias = Literal["importance", "netadapt"]
METHODS: tuple[str, ...] = get_args(Method)
_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|us|s|%)\s*")
_MS = {"ms": 1.0, "us": 1e-3, "s": 1e3}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSettings:
    """The block search (section 4.1) that comes before NetAdapt with --from-scratch.

    `space` is a name or a yaml file; `trials` networks are trained for up to `epochs` each, `batch` at
    a time; the best `top` are trained in full. The search aims `slack` above the target; with 0 the
    blocks meet the target themselves and NetAdapt is skipped. With `supernet` only a supernet is
    trained, for so many epochs, and every trial is scored with its weights. `ledger` is a database's
    URL, None a journal file in the run's folder. Runs that name the same `study` of the same ledger
    share its trials, in processes or on machines of their own.
    """

    space: str = "v3-small"
    trials: int = 60
    searcher: str = "predictor"
    objective: Objective = "reward"
    reward: Kind = "hard"
    exponent: float | None = None
    epochs: int = 3
    batch: int = 4
    top: int = 3
    # NetAdapt narrows where that costs least: a network that is too slow, narrowed, may beat one that fits.
    slack: float = 0.15
    supernet: float | None = None
    ledger: str | None = None
    study: str | None = None

    @property
    def fits(self) -> bool:
        """Whether the finalists are fitted to the limit: the reward says that all of it may be used."""
        return self.objective == "reward" and self.reward == "hard"

    def check(self) -> None:
        """Raise InputError for a value that cannot be."""
        for name, value, most in (
            ("trials", self.trials, 10**6), ("proxy epochs", self.epochs, 10**4),
            ("batch", self.batch, 10**4), ("top", self.top, 100),
        ):  # fmt: skip
            if not 1 <= value <= most:
                raise InputError(f"{name} is {value}; it must be from 1 to {most}")
        if not 0 <= self.slack <= 1:
            raise InputError(f"slack is {self.slack}; it must be a share from 0 to 1")
        if self.supernet is not None and not 0 < self.supernet < 10**6:
            raise InputError(f"supernet is {self.supernet}; it must be a number of epochs above 0")
        if self.study is not None and (self.ledger is None or not self.study.strip()):
            raise InputError(
                f"the study {self.study!r} is one that several runs share; give it a name, and its ledger too"
            )
        for name, said, known in (
            ("searcher", self.searcher, SEARCHERS), ("objective", self.objective, OBJECTIVES),
        ):  # fmt: skip
            if said not in known:
                raise InputError(f"there is no {name} {said!r}; known are {', '.join(known)}")
        if self.objective == "pareto" and self.searcher not in PARETO_SEARCHERS:
            raise InputError(
                f"the searcher {self.searcher} looks for one network; for --objective pareto take one of "
                f"{', '.join(PARETO_SEARCHERS)}"
            )
        Reward(kind=self.reward, target_ms=1.0, exponent=self.exponent)
        space(self.space)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Everything that a search depends on besides the data and what the device is.

    `method` narrows: "importance" per millisecond, or "netadapt" (section 4.2), whose result is trained
    from random weights with `retrain`. Each of `targets` gets a network, the first one is the run's own;
    with `lose` there are none, and the fastest network that loses at most so many points is found.
    `training` is of the seed network, `recovery` of what inherits weights. `also` names weights of other
    networks to compare with. `kinds` are the proposals that NetAdapt makes, `delta` is the least
    cut per step as a fraction of the seed's latency (the paper: 0.01), `steps` its T, `heldout` the
    fraction of the train images that
    proposals are scored on, `repeats` the number of final trainings of each network. Latency is that of
    `precision` in `runtime`, None the usual one. `cluster` is the address of a Ray cluster that trains
    instead of `workers` processes here. `options` are the task's own.
    """

    task: str
    options: Any
    seed_network: str
    resolution: int
    targets: tuple[str, ...]
    training: Settings
    recovery: Settings
    tuning: Settings
    steps: int
    delta: float
    kinds: tuple[Change, ...]
    heldout: float
    repeats: int
    seed: int
    workers: int
    blocks: BlockSettings | None = None
    device: str = "local"
    runtime: str | None = None
    precision: str = "fp32"
    threads: int = 1
    cluster: str | None = None
    compute: str | None = None
    bad_share: float = 0.01
    start: str | None = None
    method: Method = "importance"
    retrain: bool = False
    also: tuple[str, ...] = ()
    lose: float | None = None

    @property
    def target(self) -> str:
        """The first of the targets; with `lose` there is none."""
        return self.targets[0]

    @property
    def whole(self) -> Settings:
        """Training from random weights for as long as a network that inherits weights is trained in all."""
        return replace(self.training, epochs=self.training.epochs + self.recovery.epochs)

    @property
    def task_object(self) -> Task:
        """What networks are for."""
        return task_named(self.task)

    @property
    def deployment(self) -> Deployment:
        """What the network is to run on."""
        return Deployment.of(self.device, self.runtime, self.precision, threads=self.threads)

    def _check_method(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"there is no method {self.method!r}; known are {', '.join(METHODS)}")
        if self.lose is not None:
            if self.targets:
                raise InputError(
                    f"--lose {self.lose:g} looks for the fastest network within a loss, --target "
                    f"{self.targets[0]} for the most accurate one within a latency; give one of the two"
                )
            if not 0 < self.lose < 100:
                raise InputError(f"lose is {self.lose:g}; it must be points above 0 and below 100")
            if reason := self.task_object.cannot.get("lose"):
                raise InputError(f"--lose: {reason}")
        elif not self.targets:
            raise InputError("there is no target; write a time as 5ms, or a share as 70%")
        alone = {
            "--retrain": (self.retrain, "netadapt", "trains the result from random weights"),
            "--lose": (self.lose is not None, "importance", "bounds the loss"),
            "--also": (self.also, "importance", "names networks to compare with"),
            "a second --target": (len(self.targets) > 1, "importance", "gets a network of its own"),
        }
        for flag, (given, method, what) in alone.items():
            if given and self.method != method:
                raise InputError(
                    f"{flag} {what} with --method {method}, and this search narrows by {self.method}; leave it "
                    f"out, or add --method {method}"
                )

    def check(self) -> None:
        """Raise InputError for a value that cannot be."""
        for name, value, least in (
            ("resolution", self.resolution, 32), ("steps", self.steps, 1),
            ("repeats", self.repeats, 1), ("workers", self.workers, 1), ("seed", self.seed, 0),
        ):  # fmt: skip
            if not least <= value < 2**32:
                raise InputError(f"{name} is {value}; it must be at least {least} and below 2^32")
        if not 0 < self.delta < 0.5:
            raise InputError(f"delta is {self.delta}; it must be a share above 0 and below 0.5")
        if not 0 < self.training.epochs < float("inf"):
            raise InputError(f"epochs is {self.training.epochs}; it must be a number above 0")
        for target in self.targets:
            target_ms(target, 1.0)
        if len(set(self.targets)) < len(self.targets):
            raise InputError(f"the targets are {', '.join(self.targets)}; give each target once")
        self._check_method()
        _ = self.deployment  # refuses what does not go together
        if self.cluster is not None:
            check_address(self.cluster)
        if self.blocks is not None:
            self.blocks.check()
            reason = self.task_object.cannot.get("supernet")
            if self.blocks.supernet is not None and reason is not None:
                raise InputError(f"--supernet: {reason}")


def restored(stored: Mapping[str, Any]) -> SearchSettings:
    """Settings as a run's record holds them.

    Raises:
        LookupError, TypeError, ValueError: they are not those of a search.
    """
    blocks = stored.get("blocks")
    if "targets" not in stored:  # a run that was begun before there were methods
        importance = stored.get("start") is not None
        stored = {
            **{k: v for k, v in stored.items() if k != "target"},
            "targets": [stored["target"]], "recovery": stored["training"],
            "method": "importance" if importance else "netadapt", "retrain": not importance,
        }  # fmt: skip
    return SearchSettings(
        **{
            **stored,
            "options": stored_options(task_named(stored["task"]).Options, stored["options"]),
            **{name: tuple(stored.get(name, ())) for name in ("kinds", "targets", "also")},
            **{name: stored_settings(stored[name]) for name in ("training", "recovery", "tuning")},
            "blocks": BlockSettings(**blocks) if blocks else None,
        }
    )


def proposals(*, tail: bool) -> tuple[Change, ...]:
    """The kinds of proposals that NetAdapt makes; the paper leaves the tail alone."""
    return ALL if tail else PAPER


def tuning(training: Settings) -> Settings:
    """How proposals are tuned: at half the learning rate, without an average."""
    return replace(training, lr=training.lr / 2, warmup=0.0, average=0.0)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def target_ms(text: str, seed_ms: float) -> float:
    """The latency to reach in milliseconds; a percentage is one of the seed network's.

    Raises:
        InputError: `text` is no positive time or percentage.
    """
    match = _FORM.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise InputError(
            f"the target is {text!r}; write a time with its unit, as 5ms, or a part of the seed network's "
            "latency, as 70%"
        )
    value, unit = float(match[1]), match[2]
    return value / 100 * seed_ms if unit == "%" else value * _MS[unit]
