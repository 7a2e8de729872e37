"""A task's data as plain values: a dataset as found, a run's images, and what a network scored on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from bneck.data.depth import FULL
from bneck.data.folders import Found
from bneck.data.sources import Source, file_source
from bneck.records.progress import Progress
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import Normalisation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bneck.nets.importance import Importance
    from bneck.training.loop import TrainingProblem
    from bneck.training.processes import ProcessGroup
    from bneck.training.settings import Settings

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a trained network scored on one split.

    `score` is the task's metric, None where it is undefined. `expected` is what a search compares
    networks by: the score, or something that moves more smoothly with the weights. `details` are the
    task's other numbers as plain JSON values, among them the files that were written (names inside
    the run's folder).
    """

    split: str
    images: int
    score: float | None
    expected: float
    loss: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The form in which records keep it."""
        values = asdict(self)
        return {**{k: v for k, v in values.items() if k != "details"}, **values["details"]}


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """What a classifier says of each image of a split.

    `index` is the image's place in the split, `truth` and `guess` are classes, `probability` is that of the
    true class. All have one entry per image that can be read.
    """

    index: Indices
    truth: Indices
    guess: Indices
    probability: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Something in the data that is not used, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A dataset as found on disk: split, its classes known, nothing decoded yet.

    `name` is for people, `place` a path or URL, None for built-in images. `splits` counts the images of
    each split that is scored and always has "train" and "val". `facts` are plain JSON values that the task
    wants in the record. `files` are the images of each split, for `Task.samples`. `found` is what else there
    is to say at the start.
    """

    name: str
    place: str | None
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    left_out: Sequence[Left] = ()
    found: Found = field(default_factory=Found)
    held_back: int = 0  # images of a test split that training leaves alone
    bits: int = FULL  # of values of more than 8 bits, see `data.images.set_bits`

    def source(self, split: str) -> Source:
        """The encoded images of "train" or "val"."""
        return file_source(self.files.get(split, ()))

    def by_class(self, split: str) -> Mapping[str, Sequence[int]]:
        """Numbers of the images of each class; {} where only the pixels of masks tell. One may have several."""
        return {}

    def part(self, split: str, indices: Sequence[int]) -> Self:
        """The same with these images of a split alone, for `Task.samples`."""
        chosen = [self.files[split][i] for i in indices]
        return replace(self, files={**self.files, split: chosen})


class Answers(Protocol):
    """A trained network that answers: a module, or an exported file in its runtime.

    `size` is the (height, width) that a file takes, None for a module, which takes any. `net` is the
    module, None for a file. `labels` are the class names in the order of the outputs.
    """

    wrapped: Any  # the task's own kind of `specs.wrapper.Wrapped`
    spec: NetSpec
    normalisation: Normalisation
    labels: tuple[str, ...]
    size: Size | None
    net: nn.Module | None
    metadata: Mapping[str, str]

    def __call__(self, images: Any) -> tuple[Array, ...]:
        """Normalised images (N, channels, H, W), array or tensor -> the network's raw outputs."""


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A run's images in forms of the task's own: those of train, and those of the other splits.

    Indices of train images: all that can be learned from, those that a search fits networks on, and
    those that it holds out.
    """

    train: Any
    others: Any
    usable: Indices
    fit: Indices
    held: Indices


@dataclass(frozen=True, slots=True, eq=False)
class Learning:
    """What a network learns from.

    `batches` gives those of an epoch by its number, from one of its batches on, without an incomplete
    last one: tuples of one entry per image, normalised images first. `loss` is that of a network's
    outputs (float32, a tuple where there are several) on a batch. `divergence` is between the outputs
    of two networks at a temperature; None where a task cannot distill.
    """

    batches: Callable[[int, int], Iterable[Any]]
    loss: Callable[[Any, Any], Tensor]
    divergence: Callable[[Any, Any, float], Tensor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data(ABC):
    """A run's images, ready to train on: a plain value that is hashed and travels to worker processes.

    A frozen dataclass of plain values and paths, so that a record can hold it and a resumed run opens the
    images that it began with. `scratch` is where decoded images are kept.

    A search holds out part of the train images (`heldout_share`, 0 outside a search): with `heldout`,
    networks are fitted on the others and scored on these; without, fitted on all of train and scored on val.
    """

    scratch: Path
    classes: tuple[str, ...]
    heldout_share: float
    seed: int
    least_batch: ClassVar[int] = (
        2  # of one image, batch norm has no variance where a map is one pixel
    )

    @property
    def chance(self) -> float:
        """About what a network scores that has learned nothing."""
        return 1 / len(self.classes)

    @property
    def held_out(self) -> int:
        """How many train images are held out; 0 outside a search."""
        return len(self.open().held)

    def fitted(self, *, heldout: bool) -> int:
        """How many images are trained on."""
        opened = self.open()
        return len(opened.fit if heldout else opened.usable)

    def open(self) -> Opened:
        """The images, opened once per process."""
        return _opened(self)

    @abstractmethod
    def read(self) -> Opened:
        """The images, opened now: see `split`."""

    def split(
        self, train: Any, others: Any, usable: Indices,
        hold: Callable[[float, int], tuple[Indices, Indices]] | None = None,
    ) -> Opened:  # fmt: skip
        """Hold some of the `usable` train images out; `hold` (share, seed) chooses, by default at random."""
        from bneck.data.held_out import held_out

        if not self.heldout_share:
            return Opened(train, others, usable, usable, usable[:0])
        hold = hold or partial(held_out, usable)
        return Opened(train, others, usable, *hold(self.heldout_share, self.seed))

    @abstractmethod
    def learning(
        self, net: Any, settings: Settings, indices: Indices, group: ProcessGroup
    ) -> Learning:
        """Batches of the train images of `indices`, and the loss; a process of a group takes its part.

        Raises:
            InputError: settings that do not suit the data or the network.
        """

    def problem(
        self, net: Any, settings: Settings, *, heldout: bool = False,
        group: ProcessGroup | None = None, teacher: Any = None, kept: Any = None,
    ) -> TrainingProblem[Any]:  # fmt: skip
        """Batches and loss for `training.loop.fit`; with a teacher, the distillation loss too.

        `kept` are the channels of a network as wide as the teacher that `net` was narrowed from.

        Raises:
            InputError: settings that do not suit the data or the network.
        """
        import torch

        from bneck.training.distill import DistillationLoss
        from bneck.training.loop import TrainingProblem, backbone, in_pieces
        from bneck.training.processes import ALONE
        from bneck.training.settings import TrainingError

        if settings.batch < self.least_batch:
            raise TrainingError(
                f"the batch is {settings.batch}; batch norm needs at least {self.least_batch} images"
            )
        opened, group = self.open(), group or ALONE
        indices = opened.fit if heldout else opened.usable
        own = self.learning(net, settings, indices, group)
        distilled = None
        if own.divergence is not None:
            distilled = DistillationLoss.of(teacher, net, settings, group, own.divergence, kept)

        def loss(net: Any, batch: Any) -> Tensor:
            images = batch[0].to(group.device).contiguous(memory_format=torch.channels_last)
            found = net(images)
            outputs = tuple(o.float() for o in found) if isinstance(found, tuple) else found.float()
            value = own.loss(outputs, batch)
            return value if distilled is None else distilled.mixed(value, outputs, images)

        return TrainingProblem(
            images=len(indices), batches=own.batches, loss=loss, pieces=in_pieces(settings, group),
            backbone=backbone(net) if settings.frozen or settings.backbone_rate != 1 else None,
        )  # fmt: skip

    def importance(
        self, net: Any, settings: Settings, progress: Progress, *, heldout: bool = False,
        group: ProcessGroup | None = None,
    ) -> Importance:  # fmt: skip
        """Importance of a net's channels for the task's loss, from the batches of a training's first epoch.

        One pass over at most 1,000 images. Every process of a group looks at all of them, in batches no
        larger than its own in a step of the training. The net comes back on the processor.

        Raises:
            InputError: the loss is not finite.
        """
        import torch

        from bneck.nets.importance import each_image, measure_importance
        from bneck.training.processes import ALONE, ProcessGroup

        group = group or ALONE
        progress.stage("measuring the importance of channels", 1)
        most = settings.batch // (settings.accumulate * group.size)
        batch = min(most, self.fitted(heldout=heldout))
        here = ProcessGroup(device=group.device)
        how = replace(settings, batch=batch, accumulate=1)
        problem = self.problem(net, how, heldout=heldout, group=here)

        def batches() -> Iterator[Any]:
            for images, *targets in problem.batches(0, 0):
                yield (
                    images.to(here.device).contiguous(memory_format=torch.channels_last), *targets
                )  # fmt: skip

        found = measure_importance(net.to(here.device), batches(), each_image(problem.loss))
        net.cpu()
        progress.advance(1)
        return found

    def reconstruct(
        self, wide: Any, narrow: Any, kept: Any, settings: Settings, *, heldout: bool = False
    ) -> int:  # fmt: skip
        """Solve the weights of a narrowed network anew (`nets.reconstruct`); how many images did it.

        They are those of the first epoch of a training with `settings`.
        """
        from bneck.nets.reconstruct import reconstruct

        problem = self.problem(narrow, settings, heldout=heldout)
        return reconstruct(wide, narrow, kept, (batch[0] for batch in problem.batches(0, 0)))

    @abstractmethod
    def evaluate(
        self, answers: Answers, split: str, progress: Progress, *,
        group: ProcessGroup | None = None, out: Path | None = None,
    ) -> Scores:  # fmt: skip
        """Score on "heldout", "val" or another split; pictures and files of the evaluation go to `out`.

        Raises:
            InputError: too many unreadable images, or the metric's package is missing.
        """

    def classified(self, answers: Answers, split: str, progress: Progress) -> Classified | None:
        """What a network says of each image of a split; None where a task does not give an image one class."""
        return None

    def picture(self, split: str, index: int, resolution: int) -> Array:
        """An image of a split as a network of that resolution sees it: (3, resolution, resolution) uint8."""
        raise NotImplementedError

    @abstractmethod
    def counts(self) -> Mapping[str, int]:
        """Images per split that can be used."""

    def left_out(self) -> Sequence[Left]:
        """What could not be read so far."""
        return ()

    @abstractmethod
    def images(self, net: Any, split: str, count: int) -> Tensor:
        """At most `count` real images, spread evenly over a split, as the network takes them.

        "fit" are the train images that a search does not hold out.

        (N, channels, H, W), normalised: to check a file with, to calibrate int8, for batch norm.
        """


@lru_cache(maxsize=1)
def _opened(data: Data) -> Opened:
    return data.read()


def check_divided(val: str, record: Mapping[str, Any], where: object) -> None:
    """Raise InputError where a run's val came about otherwise than now, as where a val folder is gone.

    `val` is `Found.val` of the run's own data as it is now, whose val may be images that the run learned from.
    """
    told = (record.get("data") or {}).get("val")
    if told is not None and told != val:
        raise InputError(
            f"val of {where} is {val} now, and was {told} when the run was trained; bring the images back as "
            "they were, or pass others with --data"
        )


def check_classes(found: Dataset, classes: Sequence[str], where: str, named: bool = True) -> None:
    """Raise InputError where images have other classes than a network; one without names counts them."""
    if len(found.classes) == len(classes) and (not named or tuple(found.classes) == tuple(classes)):
        return
    raise InputError(
        f"the classes of {where} are not the network's: {few(found.classes)} instead of "
        f"{few(classes)}; pass the images that it was trained on"
    )


def known_bits(answers: Answers, record: Mapping[str, Any]) -> int:
    """The bits of deep values that a network was trained on, from its file or its run's record."""
    told = answers.metadata.get("bits") or (record.get("data") or {}).get("bits")
    return FULL if told is None else int(told)


def told_bits(record: Mapping[str, Any]) -> dict[str, str]:
    """The same for a file's metadata: nothing where it is the usual."""
    bits = (record.get("data") or {}).get("bits", FULL)
    return {} if bits == FULL else {"bits": str(bits)}


def as_input(pixels: Array, normalisation: Normalisation) -> Array:
    """Pixels (3, H, W) uint8 as a network takes them, float32; without torch, as files need none."""
    mean, std = (
        np.array(v, np.float32)[:, None, None] for v in (normalisation.mean, normalisation.std)
    )
    found: Array = (pixels.astype(np.float32) / 255 - mean) / std
    return found
