"""Which settings a search runs with: one function per kind of data, evidence in its docstring."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bneck.devices.deployment import Deployment
from bneck.recipes.cluster import check_address
from bneck.recipes.detect import detect_training, usual_batch
from bneck.recipes.segment import BATCH, usual_training
from bneck.recipes.segmenters import named_segmenter
from bneck.recipes.target import target_ms
from bneck.recipes.training import small_data as train_small_data
from bneck.records.run import RunFolder
from bneck.search.netadapt import ALL, PAPER
from bneck.search.netadapt import Kind as Change
from bneck.search.reward import Kind, Reward
from bneck.search.searchers import PARETO_SEARCHERS, SEARCHERS
from bneck.search.spaces import space
from bneck.search.study import OBJECTIVES, Objective
from bneck.specs.detector import EXTRAS, ssdlite
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.segmenter import Head, Segmenter
from bneck.specs.text import resolve
from bneck.train.loop import Settings

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSettings:
    """The block search (section 4.1) that comes before NetAdapt with --from-scratch.

    `space` is a name or a yaml file; `trials` networks are trained for up to `epochs` each, `batch` at
    a time; the best `top` are trained in full. The search aims `slack` above the target, for
    NetAdapt to narrow: it takes where that costs least, so a network that is somewhat too slow,
    narrowed, may beat one that fits. With 0 the blocks meet the target themselves and NetAdapt is skipped.
    With `supernet` trials are not trained: a supernet is, for so many epochs, and judges them all.
    `ledger` is a database's URL, None a journal file in the run's folder. Runs that name the same `study`
    of the same ledger judge its trials together, in processes or on machines of their own.
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
            ("trials", self.trials, 10**6),
            ("proxy epochs", self.epochs, 10**4),
            ("batch", self.batch, 10**4),
            ("top", self.top, 100),
        ):
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
        if self.searcher not in SEARCHERS:
            raise InputError(
                f"there is no searcher {self.searcher!r}; known are {', '.join(SEARCHERS)}"
            )
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"there is no objective {self.objective!r}; known are {', '.join(OBJECTIVES)}"
            )
        if self.objective == "pareto" and self.searcher not in PARETO_SEARCHERS:
            raise InputError(
                f"the searcher {self.searcher} looks for one network; for --objective pareto take one of "
                f"{', '.join(PARETO_SEARCHERS)}"
            )
        Reward(kind=self.reward, target_ms=1.0, exponent=self.exponent)
        space(self.space)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectTask:
    """What a search for a detector depends on besides: the folder of the images, the loss, further maps."""

    images: str | None = None
    loss: str = "focal"
    extras: tuple[int, ...] = EXTRAS


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTask:
    """What a search for a segmenter depends on besides; as in `recipes.segment.SegmentOptions`."""

    head: Head = "lraspp"
    filters: int = 128
    output_stride: int | None = None
    global_pool: bool = False
    classes: str | None = None
    ignore: tuple[int, ...] = ()
    size: Size | None = None
    crop: Size | None = None
    balance: bool = False


def stored_task(stored: dict[str, Any]) -> dict[str, DetectTask | SegmentTask | None]:
    """The fields `detect` and `segment` of settings as a run's record holds them."""
    kinds: dict[str, Any] = {"detect": DetectTask, "segment": SegmentTask}
    found: dict[str, DetectTask | SegmentTask | None] = {}
    for name, kind in kinds.items():
        values = stored.get(name) or {}
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        found[name] = kind(**plain) if plain else None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Everything that a search depends on besides the data and what the device is.

    `kinds` are the proposals that NetAdapt makes, `delta` is the least cut of a step as a share of
    the seed's latency (the paper: 0.01), `steps` its T, `heldout` the share of the train images that
    judges proposals, `repeats` the number of final trainings of each network. Latency is that of
    `precision` in `runtime`, None the usual one, on `device`. `cluster` is the address of a
    Ray cluster that trains in place of `workers` processes here. With `detect` or `segment` the network
    is wrapped for that task; else it classifies.
    """

    seed_network: str
    resolution: int
    target: str
    training: Settings
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
    cluster: str | None = None
    detect: DetectTask | None = None
    segment: SegmentTask | None = None

    @property
    def task(self) -> str:
        """What networks are for: "classify", "detect" or "segment"."""
        return "detect" if self.detect else "segment" if self.segment else "classify"

    def seed_spec(self) -> NetSpec:
        """The seed network as the task takes it, but for its resolution.

        Raises:
            InputError: no such network, or none that can be wrapped.
        """
        if self.detect is not None:
            return ssdlite(self.seed_network).network
        if self.segment is not None:
            return self.seed_segmenter().network
        return resolve(self.seed_network)

    def seed_segmenter(self) -> Segmenter:
        """The seed network's segmenter, but for its classes."""
        task = self.segment
        assert task is not None
        return named_segmenter(
            self.seed_network,
            head=task.head,
            filters=task.filters,
            output_stride=task.output_stride,
            global_pool=task.global_pool,
        )

    @property
    def deployment(self) -> Deployment:
        """What the network is to run on."""
        return Deployment.of(self.device, self.runtime, self.precision)

    def check(self) -> None:
        """Raise InputError for a value that cannot be."""
        for name, value, least in (
            ("resolution", self.resolution, 32),
            ("steps", self.steps, 1),
            ("repeats", self.repeats, 1),
            ("workers", self.workers, 1),
            ("seed", self.seed, 0),
        ):
            if not least <= value < 2**32:
                raise InputError(f"{name} is {value}; it must be at least {least} and below 2^32")
        if not 0 < self.delta < 0.5:
            raise InputError(f"delta is {self.delta}; it must be a share above 0 and below 0.5")
        if not 0 < self.training.epochs < float("inf"):
            raise InputError(f"epochs is {self.training.epochs}; it must be a number above 0")
        _check_no_weights(self.seed_network)
        target_ms(self.target, 1.0)
        Deployment.of(self.device, self.runtime, self.precision)
        if self.cluster is not None:
            check_address(self.cluster)
        if self.blocks is not None:
            self.blocks.check()
            if self.blocks.supernet is not None and self.task != "classify":
                raise InputError(
                    f"a supernet judges classifiers only, not networks for the task {self.task}; leave out "
                    "--supernet, then every trial is trained"
                )


def small_data(
    *,
    seed_network: str = "v3-small",
    resolution: int,
    images: int,
    target: str = "70%",
    epochs: float,
    steps: int,
    delta: float = 0.01,
    tail: bool = True,
    repeats: int = 2,
    seed: int = 0,
    workers: int | None = None,
    blocks: BlockSettings | None = None,
    device: str = "local",
    runtime: str | None = None,
    precision: str = "fp32",
    cluster: str | None = None,
    detect: DetectTask | None = None,
    segment: SegmentTask | None = None,
) -> SearchSettings:
    """The task's recipe for some thousand images; proposals are tuned at half its rate, unaveraged.

    Classifiers train by `recipes.training.small_data`, detectors and segmenters as `recipes.detect` and
    `recipes.segment` train them. `images` is how many there are to train on.
    """
    if detect is not None:
        training = detect_training(epochs, usual_batch(images), None, seed)
    elif segment is not None:
        training = usual_training(epochs, min(BATCH, max(2, images // 4)), seed).loop()
    else:
        training = train_small_data(images=images, epochs=epochs, seed=seed)
    return SearchSettings(
        seed_network=seed_network,
        resolution=resolution,
        target=target,
        training=training,
        tuning=replace(training, lr=training.lr / 2, warmup=0.0, average=0.0),
        steps=steps,
        delta=delta,
        kinds=ALL if tail else PAPER,
        heldout=0.2,
        repeats=repeats,
        seed=seed,
        workers=_cores() if workers is None else workers,
        blocks=blocks,
        device=device,
        runtime=runtime,
        precision=precision,
        cluster=cluster,
        detect=detect,
        segment=segment,
    )


def _check_no_weights(network: str) -> None:
    """Raise InputError for a run: a search trains its seed network from new weights."""
    folder = RunFolder(Path(network))
    if any(run.weights.is_file() for run in (folder, RunFolder(folder.found))):
        raise InputError(
            f"the seed network {network} is a run's folder, whose weights a search would drop; name "
            f"{folder.spec} to search from its architecture with new weights"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
