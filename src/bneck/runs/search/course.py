"""What a search will do, how long that takes at this machine's own speed, and where it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from bneck.nas.allocation.steps import steps_to
from bneck.nets.importance import IMAGES
from bneck.records.progress import Progress, about
from bneck.runs.search.settings import SearchSettings, target_ms
from bneck.runs.search.speed import Speed

NARROWING = ("widths", "train result", "export and measure")  # again for each target
SAID = {
    "images": "read the images",
    "target": "check the target",
    "latency table": "measure the latency table",
    "latency table of the space": "measure the latency table of the space",
    "block search": "search the blocks",
    "fit the best blocks": "fit the best blocks to the target",
    "train seed": "train the seed network",
    "probe": "probe what each latency costs",
    "importance": "measure the importance of channels",
    "adapt": "narrow step by step",
    "widths": "choose widths",
    "train result": "train the result and what it is compared with",
}


@dataclass(frozen=True, slots=True)
class Trainings:
    """Trainings side by side: how many epochs each, of networks how large for the seed network's 1.

    `taught` says that each learns the outputs of the seed network too, `fits` that each is as large as the
    target of its part allows.
    """

    count: int
    epochs: float
    size: float = 1.0
    taught: bool = False
    fits: bool = False

    def seconds(self, speed: Speed, images: Mapping[str, int]) -> float:
        """Seconds for one worker."""
        each = self.size * speed.training_s + self.taught * speed.output_s
        scored = images["val"] * self.size * speed.output_s
        return self.count * (self.epochs * images["train"] * each + scored)


@dataclass(slots=True)
class Part:
    """One part of a search. `seconds` is None while nobody can tell, or for what is no training."""

    name: str
    trainings: tuple[Trainings, ...] = ()
    target: str | None = None
    seconds: float | None = None
    unknown: bool = False  # how often it trains follows from what it finds

    @property
    def trains(self) -> bool:
        """Whether its time is that of trainings."""
        return bool(self.trainings) or self.name == "importance"


@dataclass(slots=True)
class Course:
    """The parts of a search, of which it is in the one numbered `now`.

    An estimate is of the seed network's first steps, and is corrected by how long parts really took: of
    trainings by trainings, of measurements, which wait for a quiet machine, by measurements.
    """

    progress: Progress
    settings: SearchSettings
    parts: list[Part] = field(default_factory=list)
    now: int = -1
    clock: Callable[[], float] = time.monotonic
    _begun: float = 0.0
    # Seconds that were expected and taken, of parts that train and of others.
    _expected: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    _took: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})

    def __post_init__(self) -> None:
        self.parts = list(_parts(self.settings))

    def announce(self, network: str) -> None:
        """Say what the search will do."""
        how = self.settings
        goal = " and ".join(how.targets) or f"at most {how.lose:g} points lost"
        if how.blocks is not None and how.blocks.objective == "pareto":
            goal = "the front of accuracy and latency"
        parts = "; ".join(
            f"{number} {SAID.get(part.name, part.name)}" + (f" ({part.target})" if part.target else "")
            for number, part in enumerate(self.parts, 1)
        )  # fmt: skip
        where = "on this machine" if how.device == "local" else f"on {how.device}"
        self.progress.say(
            f"search from {network} to {goal} {where}, in {len(self.parts)} parts: {parts}"
        )

    def timed(
        self,
        speed: Speed | None,
        images: Mapping[str, int],
        seed_ms: float,
        others: Mapping[str, float],
    ) -> None:
        """Estimate all parts, and say how long they take.

        Args:
            speed: of the seed network on this machine.
            images: how many there are of "train" and "val".
            seed_ms: the seed network's latency, which tells how large the networks of a target are.
            others: seconds of the parts that do not train, where they are known.
        """
        if speed is None:
            return
        workers = self.settings.workers
        # A pass of importance; to solve a narrowed network's weights takes twice as long, for each step
        # and again for each way that is compared.
        pass_s, made = speed.training_s * min(images["train"], IMAGES), set[float]()
        for part in self.parts:
            sizes = [_sized(one, part.target, seed_ms) for one in part.trainings]
            work = sum(one.seconds(speed, images) for one in sizes)
            longest = max((one.seconds(speed, images) / one.count for one in sizes), default=0.0)
            side_by_side = max(longest, work / workers)
            if part.name == "importance":
                side_by_side = pass_s
            elif (
                part.name == "widths" and self.settings.start is not None and self.settings.targets
            ):
                target = part.target or self.settings.target
                steps = set(steps_to(target_ms(target, seed_ms) / seed_ms))
                # Another target finds the steps.
                side_by_side += (3 * len(steps - made) + 2 * (len(steps) + bool(steps))) * pass_s
                made |= steps
            part.seconds = None if part.unknown else side_by_side + others.get(part.name, 0.0)
        unknown = [SAID.get(p.name, p.name) for p in self.parts[self.now :] if p.unknown]
        besides = f", and the time to {', '.join(unknown)}" if unknown else ""
        batch = self.settings.training.batch
        each = "each worker" if workers > 1 else "a worker"
        self.progress.say(
            f"{about(self.left_s())} left{besides}: {each} trains the seed network on {batch} images in "
            f"{1000 * batch * speed.training_s:.0f} ms, timed now"
        )
        self._tell()

    def enter(self, name: str) -> None:
        """The part of that name begins: the next one, or more of one that was before."""
        later = range(self.now + 1, len(self.parts))
        found = next((i for i in later if self.parts[i].name == name), None)
        if found is not None:
            self.now, self._begun = found, self.clock()
        self._tell()

    def leave(self) -> None:
        """The present part took as long as it did: what is left is corrected by it."""
        part = self.parts[self.now]
        if part.seconds:
            self._expected[part.trains] += part.seconds
            self._took[part.trains] += self.clock() - self._begun

    def expect(self, share: float) -> None:
        """So large a part of what the present part does is done: the rest takes as long in proportion."""
        part = self.parts[self.now]
        if share > 0:
            part.seconds, part.unknown = (self.clock() - self._begun) / min(share, 1.0), False
            self._tell()

    def again(self) -> None:
        """The last three parts are done once more."""
        last = self.parts[self.now - len(NARROWING) + 1 : self.now + 1]
        self.parts[self.now + 1 : self.now + 1] = [
            Part(p.name, p.trainings, p.target, p.seconds) for p in last
        ]

    def skip_target(self) -> None:
        """One target is done already."""
        later = range(self.now + 1, len(self.parts))
        self.now = next(i for i in later if self.parts[i].name == NARROWING[-1])

    def left_s(self) -> float:
        """Seconds to the end, as far as they are known."""
        later = sum(map(self._corrected_s, self.parts[self.now + 1 :]))
        present = self._corrected_s(self.parts[self.now]) if self.now >= 0 else 0.0
        here = max(0.0, present - (self.clock() - self._begun)) if present else 0.0
        return here + later

    def _corrected_s(self, part: Part) -> float:
        expected = self._expected[part.trains]
        return (part.seconds or 0.0) * (self._took[part.trains] / expected if expected else 1.0)

    def _tell(self) -> None:
        known = any(part.seconds is not None for part in self.parts)
        self.progress.course(self.now + 1, len(self.parts), self.left_s() if known else None)


def _sized(one: Trainings, target: str | None, seed_ms: float) -> Trainings:
    if not one.fits or target is None:
        return one
    return replace(one, size=min(1.0, target_ms(target, seed_ms) / seed_ms))


def _parts(how: SearchSettings) -> Iterator[Part]:
    if how.blocks is not None:
        yield from _block_parts(how)
    if how.blocks is None:
        yield from (Part("images"), Part("target"), Part("latency table"))
    elif how.blocks.objective == "pareto":
        return
    else:
        yield Part("latency table")
    recovery, repeats = how.recovery.epochs, how.repeats
    taught = how.start is not None
    # The network by importance and a uniform width; from weights another form of it, and a lower resolution,
    # which are mostly far behind, and then trained once.
    narrows = [Trainings(2 * repeats + taught, recovery, taught=taught, fits=True)]
    if how.method == "netadapt":
        whole = how.training.epochs if how.retrain else recovery
        yield Part("train seed", (Trainings(2, how.training.epochs),))
        yield Part("importance")
        yield Part("adapt", unknown=True)
        yield Part(
            "train result", (Trainings(2 * repeats, whole, taught=taught, fits=True),), how.target
        )
        yield Part("export and measure")
        return
    yield Part("train seed", (Trainings(1, how.training.epochs),))
    yield Part("importance")
    if how.lose is not None:
        yield Part("probe", unknown=True)
    simpler = [Trainings(1 if taught else repeats, recovery, fits=True)]
    if how.start is None:
        simpler.append(Trainings(repeats, how.whole.epochs, fits=True))
    simpler += [Trainings(repeats, how.whole.epochs, taught=taught, fits=True) for _ in how.also]
    for number, target in enumerate(reversed(how.targets or ("",))):
        several = len(how.targets) > 1
        # What the seed network is trained on comes once, in the first of them.
        longer = [Trainings(1, recovery)] if not number and how.lose is None else []
        yield Part("widths", target=target if several else None)
        yield Part(
            "train result", (*narrows, *simpler, *longer), target or None, unknown=not target
        )
        yield Part("export and measure", target=target if several else None)


def _block_parts(how: SearchSettings) -> Iterator[Part]:
    blocks = how.blocks
    assert blocks is not None
    target = None if blocks.objective == "pareto" or not how.targets else how.target
    yield from (Part("images"), Part("latency table of the space"), Part("target"))
    if blocks.supernet is not None:
        yield Part("train the supernet", unknown=True)
        yield Part("block search", unknown=True)
        yield Part("compare the supernet", (Trainings(8, blocks.epochs, fits=True),), target)
    else:
        # Halving may end most of them earlier.
        yield Part("block search", (Trainings(blocks.trials, blocks.epochs, fits=True),), target)
    yield Part("fit the best blocks")
    yield Part(
        "train the best blocks",
        (Trainings(blocks.top * how.repeats, how.training.epochs, fits=True),),
        target,
    )
