"""Labelled images: found wherever they lie, cached or streamed, and fed to training and scoring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.batches import Images, eval_batches, holdout, normalise, train_batches
from bneck.data.depth import Encoded
from bneck.data.find import find_images
from bneck.data.images import Pixels, read_square
from bneck.data.pack import Split, open_pack, pack, stored_side
from bneck.data.read import spread
from bneck.data.sources import Source, Sources, file_source
from bneck.data.stream import Stream
from bneck.records.imported import class_places
from bneck.records.progress import Advancing, Progress
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import Normalisation
from bneck.tasks.classify.classes import IMAGENET, by_name
from bneck.tasks.classify.scoring import divergence, evaluate, loss
from bneck.tasks.data import (
    Answers,
    Array,
    Classified,
    Data,
    Dataset,
    Indices,
    Learning,
    Left,
    Opened,
    Scores,
    Size,
)
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings

BATCH = 250  # images scored at a time
BUILTIN = "Fashion-MNIST (built in)"
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledImages(Dataset):
    """A dataset of labelled images as found; `places` are the classes' numbers in a network of more, () where
    it has just these.
    """

    sources: Sources
    places: tuple[int, ...] = ()

    def source(self, split: str) -> Source:
        return self.sources.val if split == "val" else self.sources.train

    def by_class(self, split: str) -> dict[str, list[int]]:
        labels = self.source(split).labels
        return {name: np.flatnonzero(labels == i).tolist() for i, name in enumerate(self.classes)}

    def part(self, split: str, indices: Sequence[int]) -> LabelledImages:
        chosen = self.source(split).part(np.array(indices, np.int64))
        if split == "val":
            return replace(self, sources=replace(self.sources, val=chosen))
        return replace(self, sources=replace(self.sources, train=chosen))


def find(data: str | None, options: Any = None, *, seed: int) -> LabelledImages:
    """Look at a folder, tar shards, tables or a URL; None takes the built-in images.

    Raises:
        DataError: no such data, or none that makes a dataset.
    """
    found = find_images(data, seed=seed)
    return LabelledImages(
        name=BUILTIN if data is None else Path(data).name, classes=found.classes, sources=found, place=data,
        splits={"train": len(found.train.labels), "val": len(found.val.labels)},
        facts={"kind": found.kind, "fingerprint": found.fingerprint},
        found=found.found, held_back=0 if found.test is None else len(found.test.labels),
        bits=found.train.bits,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData(Data):
    """A run's labelled images.

    `scratch` has the decoded images, unless `streamed` says where they are read from every time;
    `fingerprint` is then that of the images when the run was begun. `places` are the classes' numbers in the
    network, () where it has just these.
    """

    streamed: str | None
    fingerprint: str | None
    bad_share: float
    places: tuple[int, ...] = ()

    def read(self) -> Opened:
        train: Images
        val: Images
        if self.streamed is None:
            packed = open_pack(self.scratch)
            train, val = (self._numbered(one) for one in (packed.train, packed.val))
        else:
            found = find_images(self.streamed, seed=self.seed)
            if found.fingerprint != self.fingerprint:
                raise InputError(
                    f"{self.streamed} has changed since the run was begun; start a new run"
                )
            train, val = (Stream(one, bad_share=self.bad_share) for one in (found.train, found.val))
        return self.split(
            train, val, np.arange(len(train.labels)), hold=partial(holdout, train.labels)
        )

    def _numbered(self, split: Split) -> Split:
        """Labels as the network numbers them."""
        return replace(split, labels=np.array(self.places)[split.labels]) if self.places else split

    def learning(
        self, net: Any, settings: Settings, indices: Indices, group: ProcessGroup
    ) -> Learning:
        """Cross-entropy on augmented images."""
        train = self.open().train

        def batches(epoch: int, first: int) -> Iterable[Batch]:
            return train_batches(
                train, indices, resolution=net.spec.resolution, batch=settings.batch,
                augment=settings.augment, seed=settings.seed, epoch=epoch, first=first,
                share=(group.rank, group.size), device=group.device, normalisation=net.normalisation,
            )  # fmt: skip

        def step_loss(scores: Tensor, batch: Batch) -> Tensor:
            return loss(scores, batch[1], smoothing=settings.smoothing)

        return Learning(batches, step_loss, divergence)

    def evaluate(
        self, answers: Answers, split: str, progress: Progress, *,
        group: ProcessGroup | None = None, out: Path | None = None,
    ) -> Scores:  # fmt: skip
        """Top-1, top-5 and loss; `expected` is the mean probability of the true class."""
        images, group = self._images(split), group or ALONE
        indices = self.open().held if split == "heldout" else np.arange(len(images.labels))
        mine = indices[group.rank :: group.size]
        progress.stage(f"scoring {split}", len(mine))

        def batches() -> Iterator[Batch]:
            if not len(mine):
                return
            for batch in eval_batches(
                images, mine, resolution=answers.spec.resolution, batch=BATCH,
                normalisation=answers.normalisation, device=group.device,
            ):  # fmt: skip
                yield batch
                progress.advance(len(batch[1]))

        return evaluate(answers, batches(), total=group.total).scores(split)

    def classified(self, answers: Answers, split: str, progress: Progress) -> Classified:
        images = self._images(split)
        every = np.arange(len(images.labels))
        progress.stage(f"finding the mistakes of {answers.spec.name} on {split}", len(every))
        truths, guesses, shares = list[Any](), list[Any](), list[Any]()
        for batch, labels in eval_batches(
            images, every, resolution=answers.spec.resolution, batch=BATCH,
            normalisation=answers.normalisation,
        ):  # fmt: skip
            found = torch.from_numpy(answers(batch)[0]).softmax(1)
            truths.append(labels)
            guesses.append(found.argmax(1))
            shares.append(found.gather(1, labels[:, None])[:, 0])
            progress.advance(len(labels))
        unread = list(getattr(images, "bad", ()))  # of a stream; cached ones can all be read
        return Classified(
            np.setdiff1d(every, unread),
            *(torch.cat(one).numpy() for one in (truths, guesses, shares)),
        )

    def picture(self, split: str, index: int, resolution: int) -> Array:
        plain = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        (batch, _), *_ = eval_batches(
            self._images(split),
            np.array([index]),
            resolution=resolution,
            batch=1,
            normalisation=plain,
        )
        found: Array = (255 * batch[0]).round().clamp(0, 255).byte().numpy()
        return found

    def _images(self, split: str) -> Images:
        images: Images = self.open().others if split == "val" else self.open().train
        return images

    def counts(self) -> dict[str, int]:
        return {split: len(self._images(split).labels) for split in ("train", "val")}

    def left_out(self) -> list[Left]:
        if self.streamed is None:
            return [Left(what=str(bad.path), why=bad.reason) for bad in open_pack(self.scratch).bad]
        return [
            Left(what=str(one.source.names[i]), why=why)
            for one in (self.open().train, self.open().others)
            for i, why in sorted(one.bad.items())
        ]

    def images(self, net: Any, split: str, count: int) -> Tensor:
        images = self._images(split)
        there = self.open().fit if split == "fit" else np.arange(len(images.labels))
        indices = there[spread(len(there), count)]
        batches = eval_batches(
            images, indices, resolution=net.spec.resolution, batch=len(indices),
            normalisation=net.normalisation,
        )  # fmt: skip
        return torch.cat([images for images, _ in batches])


def prepare(
    dataset: LabelledImages, spec: NetSpec, wrapper: Any, options: Any, *, scratch: Path, seed: int,
    heldout: float = 0.0, stream: bool = False, bad_share: float = 0.01, processes: int = 1,
    progress: Progress,
) -> ImageData:  # fmt: skip
    """Decode the images into `scratch` once, or leave them where they are to be streamed.

    Raises:
        DataError: too many unreadable images.
    """
    streamed = dataset.place if stream else None  # the built-in images are few
    if streamed is None:
        progress.stage("reading images", sum(dataset.splits.values()))
        packed = pack(
            dataset.sources, spec.resolution, scratch, bad_share=bad_share, progress=Advancing(progress)
        )  # fmt: skip
        if packed.bad:
            progress.say(f"{len(packed.bad)} unreadable images left out, listed in run.json")
    return ImageData(
        scratch=scratch, streamed=streamed, classes=dataset.classes, heldout_share=heldout, seed=seed,
        fingerprint=dataset.sources.fingerprint, bad_share=bad_share, places=dataset.places,
    )  # fmt: skip


def renumbered(
    dataset: LabelledImages, labels: Sequence[str], record: Mapping[str, Any]
) -> LabelledImages:
    """The images of the network's classes, found by name as `evaluate` finds them (`classes.by_name`).

    Raises:
        InputError: none is the network's.
    """
    classes, known = dataset.classes, class_places(record)
    places = by_name(classes, known, len(labels), str(dataset.place or dataset.name))
    if known is None and len(classes) == IMAGENET and len(labels) == IMAGENET + 1:
        places = {name: index + 1 for name, index in places.items()}  # the background comes first
    kept = [number for number, name in enumerate(classes) if name in places]
    new = np.full(len(classes), -1, np.int64)
    new[kept] = np.arange(len(kept))

    def part(source: Source) -> Source:
        found = source.part(np.flatnonzero(new[source.labels] >= 0))
        return replace(found, labels=new[found.labels])

    sources = replace(
        dataset.sources, classes=tuple(classes[i] for i in kept), train=part(dataset.sources.train),
        val=part(dataset.sources.val), test=None,
        fingerprint=f"{dataset.sources.fingerprint} {kept}",
    )  # fmt: skip
    notes = list(dataset.found.notes)
    if unknown := [name for name in classes if name not in places]:
        left = len(dataset.sources.train.labels) - len(sources.train.labels)
        left += len(dataset.sources.val.labels) - len(sources.val.labels)
        notes.append(
            f"left out: {left} images of {len(unknown)} classes that the network does not know ({few(unknown)})"
        )
    if len(kept) < len(labels):
        notes.append(f"images of {len(kept)} of the network's {len(labels)} classes")
    return replace(
        dataset, classes=sources.classes, sources=sources, places=tuple(places[classes[i]] for i in kept),
        splits={"train": len(sources.train.labels), "val": len(sources.val.labels)},
        found=replace(dataset.found, notes=tuple(notes)),
    )  # fmt: skip


def samples(
    source: LabelledImages | Sequence[Path], split: str, *, size: Size, count: int,
    normalisation: Normalisation,
) -> Tensor:  # fmt: skip
    """Central squares of `count` images, spread evenly: (N, 3, side, side), normalised.

    Raises:
        InputError: none can be read.
    """
    if isinstance(source, LabelledImages):
        held = source.sources.val if split == "val" else source.sources.train
    else:
        held = file_source(source)
    read = partial(held.pixels, partial(read_central, side=size[0]))
    squares = [read(i) for i in spread(len(held.labels), count)]
    chosen = [square for square in squares if not isinstance(square, str)]
    if not chosen:
        raise InputError(
            f"no image can be read, the first is {held.names[0]} ({squares[0]}); pass others with --data"
        )
    return normalise(torch.from_numpy(np.stack(chosen)), normalisation)


def read_central(image: Encoded, side: int) -> Pixels | str:
    """The middle 87.5 % of an image's sides, as training scores it: (3, side, side) RGB, or why not."""
    square = read_square(image, stored_side(side))
    if isinstance(square, str):
        return square
    start = (square.shape[1] - side) // 2
    return square[:, start : start + side, start : start + side]
