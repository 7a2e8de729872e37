"""Labelled images: found wherever they lie, cached or streamed, and fed to training and scoring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bneck.data.batches import Images, eval_batches, holdout, normalise, train_batches
from bneck.data.find import find_images
from bneck.data.images import Encoded, Pixels, read_square
from bneck.data.pack import open_pack, pack, stored_side
from bneck.data.sources import Sources, file_source
from bneck.data.stream import Stream
from bneck.records.progress import Advancing, Progress
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation
from bneck.tasks.classify.scoring import divergence, evaluate, loss
from bneck.tasks.contract import Answers, Indices, Left, Scores
from bneck.training.distill import DistillationLoss
from bneck.training.loop import TrainingProblem, backbone, in_pieces
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings, TrainingError

BATCH = 250  # images scored at a time
BUILTIN = "Fashion-MNIST (built in)"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """A dataset of labelled images as found; `place` is None for the built-in one."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    sources: Sources
    place: str | None = None
    left_out: Sequence[Left] = ()

    def facts(self) -> dict[str, Any]:
        """How the images lie on disk, and a fingerprint of them."""
        return {"kind": self.sources.kind, "fingerprint": self.sources.fingerprint}


def find(data: str | None, *, seed: int) -> LabelledImages:
    """Look at a folder, tar shards, tables or a URL; None takes the built-in images.

    Raises:
        DataError: no such data, or none that makes a dataset.
    """
    found = find_images(data, seed=seed)
    splits = {"train": len(found.train.labels), "val": len(found.val.labels)}
    name = BUILTIN if data is None else Path(data).name
    return LabelledImages(name, found.classes, splits, found, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """A run's labelled images; see `tasks.contract.Data`.

    `scratch` has the decoded images, unless `streamed` says where they are read from every time;
    `fingerprint` is then that of the images when the run was begun.
    """

    scratch: Path
    streamed: str | None
    fingerprint: str | None
    classes: tuple[str, ...]
    heldout_share: float
    seed: int
    bad_share: float

    @property
    def chance(self) -> float:
        return 1 / len(self.classes)

    @property
    def held_out(self) -> int:
        return len(self.open().held)

    def open(self) -> Opened:
        """The images, and the indices of train to fit on and to hold out; opened once a process."""
        return _open(self)

    def fitted(self, *, heldout: bool) -> int:
        opened = self.open()
        return len(opened.fit if heldout else opened.train.labels)

    def problem(
        self,
        net: Any,
        settings: Settings,
        *,
        heldout: bool = False,
        group: ProcessGroup | None = None,
        teacher: Any = None,
    ) -> TrainingProblem[tuple[Tensor, Tensor]]:
        """Cross-entropy on augmented images; the last, incomplete batch of an epoch is dropped."""
        opened, group = self.open(), group or ALONE
        if settings.batch < 2:
            raise TrainingError(
                f"the batch is {settings.batch}; batch norm needs at least 2 images"
            )
        indices = opened.fit if heldout else np.arange(len(opened.train.labels))

        def batches(epoch: int, first: int) -> Iterable[tuple[Tensor, Tensor]]:
            return train_batches(
                opened.train, indices, resolution=net.spec.resolution, batch=settings.batch,
                augment=settings.augment, seed=settings.seed, epoch=epoch, first=first,
                share=(group.rank, group.size), device=group.device, normalisation=net.normalisation,
            )  # fmt: skip

        distilled = DistillationLoss.of(teacher, net, settings, group, divergence)

        def step_loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            images = images.contiguous(memory_format=torch.channels_last)
            scores = net(images).float()
            own = loss(scores, labels, smoothing=settings.smoothing)
            return own if distilled is None else distilled.mixed(own, scores, images)

        return TrainingProblem(
            images=len(indices), batches=batches, loss=step_loss, pieces=in_pieces(settings, group),
            frozen=backbone(net) if settings.frozen else None,
        )  # fmt: skip

    def evaluate(
        self,
        answers: Answers,
        split: str,
        progress: Progress,
        *,
        group: ProcessGroup | None = None,
        out: Path | None = None,
    ) -> Scores:
        """Top-1, top-5 and loss; `expected` is the mean probability of the true class."""
        opened, group = self.open(), group or ALONE
        images = opened.val if split == "val" else opened.train
        indices = opened.held if split == "heldout" else np.arange(len(images.labels))
        mine = indices[group.rank :: group.size]
        batches: Iterable[tuple[Tensor, Tensor]] = ()
        if len(mine):
            batches = eval_batches(
                images, mine, resolution=answers.spec.resolution, batch=BATCH,
                normalisation=answers.normalisation, device=group.device,
            )  # fmt: skip
        progress.stage(f"scoring {split}", len(mine))
        found = evaluate(answers, _counted(batches, progress), total=group.total)
        return Scores(
            split=split, images=found.n, score=found.top1, expected=found.expected, loss=found.loss,
            details={"top5": found.top5},
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        opened = self.open()
        return {"train": len(opened.train.labels), "val": len(opened.val.labels)}

    def left_out(self) -> Sequence[Left]:
        opened = self.open()
        found = []
        for one in (opened.train, opened.val):
            if isinstance(one, Stream):
                found += [(str(one.source.names[i]), why) for i, why in sorted(one.bad.items())]
        if self.streamed is None:
            found = [(str(bad.path), bad.reason) for bad in open_pack(self.scratch).bad]
        return [Left(what=what, why=why) for what, why in found]

    def images(self, net: Any, split: str, count: int) -> Tensor:
        opened = self.open()
        images = opened.val if split == "val" else opened.train
        there = opened.fit if split == "fit" else np.arange(len(images.labels))
        indices = there[spread(len(there), count)]
        batches = eval_batches(
            images, indices, resolution=net.spec.resolution, batch=len(indices),
            normalisation=net.normalisation,
        )  # fmt: skip
        return torch.cat([images for images, _ in batches])


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """The splits, and the indices of train that a search fits on and holds out."""

    train: Images
    val: Images
    fit: Indices
    held: Indices


@lru_cache(maxsize=1)
def _open(data: ImageData) -> Opened:
    train: Images
    val: Images
    if data.streamed is None:
        packed = open_pack(data.scratch)
        train, val = packed.train, packed.val
    else:
        found = find_images(data.streamed, seed=data.seed)
        if found.fingerprint != data.fingerprint:
            raise InputError(
                f"{data.streamed} has changed since the run was begun; start a new run"
            )
        train, val = (Stream(one, bad_share=data.bad_share) for one in (found.train, found.val))
    if not data.heldout_share:
        return Opened(train, val, np.arange(len(train.labels)), np.arange(0))
    return Opened(train, val, *holdout(train.labels, data.heldout_share, data.seed))


def _counted(
    batches: Iterable[tuple[Tensor, Tensor]], progress: Progress
) -> Iterable[tuple[Tensor, Tensor]]:
    for batch in batches:
        yield batch
        progress.advance(len(batch[1]))


def prepare(
    dataset: LabelledImages,
    resolution: int,
    *,
    scratch: Path,
    seed: int,
    heldout: float,
    stream: bool,
    bad_share: float,
    progress: Progress,
) -> ImageData:
    """Decode the images into `scratch` once, or leave them where they are to be streamed.

    Raises:
        DataError: too many unreadable images.
    """
    streamed = dataset.place if stream else None  # the built-in images are few
    if streamed is None:
        progress.stage("reading images", sum(dataset.splits.values()))
        packed = pack(
            dataset.sources, resolution, scratch, bad_share=bad_share, progress=Advancing(progress)
        )
        if packed.bad:
            progress.say(f"{len(packed.bad)} unreadable images left out, listed in run.json")
    return ImageData(
        scratch=scratch, streamed=streamed, classes=dataset.classes, heldout_share=heldout, seed=seed,
        fingerprint=dataset.sources.fingerprint, bad_share=bad_share,
    )  # fmt: skip


def samples(
    source: LabelledImages | Sequence[Path],
    split: str,
    side: int,
    count: int,
    normalisation: Normalisation,
) -> Tensor:
    """Central squares of `count` images, spread evenly: (N, 3, side, side), normalised.

    Raises:
        InputError: none can be read.
    """
    if isinstance(source, LabelledImages):
        held = source.sources.val if split == "val" else source.sources.train
    else:
        held = file_source(source)
    read = partial(held.pixels, partial(read_central, side=side))
    squares = [read(i) for i in spread(len(held.labels), count)]
    chosen = [square for square in squares if not isinstance(square, str)]
    if not chosen:
        raise InputError(
            f"no image can be read, the first is {held.names[0]} ({squares[0]}); pass others with --data"
        )
    return normalise(torch.from_numpy(np.stack(chosen)), normalisation)


def spread(there: int, count: int) -> list[int]:
    """At most `count` indices from 0 to below `there`, evenly."""
    if not there:
        return []
    return sorted({int(i) for i in np.linspace(0, there - 1, min(count, there))})


def read_central(image: Encoded, side: int) -> Pixels | str:
    """The middle 87.5 % of an image's sides, as training scores it: (3, side, side) RGB, or why not."""
    square = read_square(image, stored_side(side))
    if isinstance(square, str):
        return square
    start = (square.shape[1] - side) // 2
    return square[:, start : start + side, start : start + side]
