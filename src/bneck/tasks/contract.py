"""The contract between the commands and a task: a `Task`, the `Data` that it opens, and plain values.

Every command is written once over this contract. A task says what data it reads, what stands around
a backbone, how a network learns, answers and is scored; the commands say when. Nothing here imports
torch at run time, so that names, counts and help stay instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from bneck.devices.runtimes import Runtime, Session
    from bneck.graphs.forms import Precision
    from bneck.nets.build import WrappedNet
    from bneck.nets.quantize import Quantized
    from bneck.training.loop import TrainingProblem
    from bneck.training.processes import ProcessGroup
    from bneck.training.settings import Settings

from bneck.records.progress import Progress
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import Normalisation
from bneck.specs.wrapper import Wrapper

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Metric:
    """What networks of a task are scored by: its name for people, and its key in records and JSON.

    Scores are fractions from 0 to 1.
    """

    name: str
    key: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Something in the data that is not used, and why."""

    what: str
    why: str


class Dataset(Protocol):
    """A dataset as found on disk: split, its classes known, nothing decoded yet."""

    @property
    def name(self) -> str:
        """For people: the folder's name."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def splits(self) -> Mapping[str, int]:
        """Images per split; always with "train" and "val"."""

    @property
    def left_out(self) -> Sequence[Left]: ...

    def facts(self) -> dict[str, Any]:
        """What the task wants in the record besides: plain JSON values."""


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


class Data(Protocol):
    """A run's images, ready to train on: a plain value that is hashed and travels to worker processes.

    A frozen dataclass of plain values and paths, so that a record can hold it and a resumed run opens the
    images that it began with. `scratch` is where decoded images are kept.

    A search holds out part of the train images: with `heldout`, networks are fitted on the others and
    scored on these; without, fitted on all of train and scored on val.
    """

    def __hash__(self) -> int: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def chance(self) -> float:
        """About what a network scores that has learned nothing."""

    @property
    def held_out(self) -> int:
        """How many train images are held out; 0 outside a search."""

    def fitted(self, *, heldout: bool) -> int:
        """How many images are trained on."""

    def problem(
        self,
        net: Any,
        settings: Settings,
        *,
        heldout: bool = False,
        group: ProcessGroup | None = None,
        teacher: Any = None,
    ) -> TrainingProblem[Any]:
        """Batches and loss for `training.loop.fit`; with a teacher, the distillation loss too.

        Raises:
            InputError: settings that do not suit the data or the network.
        """

    def evaluate(
        self,
        answers: Answers,
        split: str,
        progress: Progress,
        *,
        group: ProcessGroup | None = None,
        out: Path | None = None,
    ) -> Scores:
        """Score on "heldout", "val" or another split; pictures and files of the evaluation go to `out`.

        Raises:
            InputError: too many unreadable images, or the metric's package is missing.
        """

    def counts(self) -> Mapping[str, int]:
        """Images per split that can be used."""

    def left_out(self) -> Sequence[Left]:
        """What could not be read so far."""

    def images(self, net: Any, split: str, count: int) -> Tensor:
        """At most `count` real images, spread evenly over a split, as the network takes them.

        "fit" are the train images that a search does not hold out.

        (N, channels, H, W), normalised: to check a file with, to calibrate int8, for batch norm.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a network says of one image: `found` as plain JSON values, `line` for the terminal.

    `raw` is what `Task.draw` needs.
    """

    found: Mapping[str, Any]
    line: str
    raw: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows for the terminal, and the same as JSON values. `left` are the columns set flush left."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    values: Sequence[Mapping[str, Any]]
    left: tuple[int, ...] = (0,)


class Task(Protocol):
    """What networks are made to do. Implementations are plain objects without state.

    `Options` is one frozen dataclass with a default for every field: what can be told to the task, on
    the command line, in Python and in run.json alike; each field's metadata (`options.option`) has its
    help text and the commands that take it. `cannot` names options of all tasks that this one refuses,
    with the reason.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for --help
    metric: ClassVar[Metric]
    default_network: ClassVar[str]
    builtin: ClassVar[bool]  # whether there is a built-in dataset for --data left out
    paints: ClassVar[tuple[str, ...]]  # options of predict that name further pictures to write
    any_size: ClassVar[bool]  # whether predictions use the module, which takes pictures of any size
    converts: ClassVar[bool]  # whether it converts annotations
    scores_epochs: ClassVar[bool]  # whether val is scored after every epoch, and the best kept
    statistics: ClassVar[tuple[int, int]]  # images, and batch, that batch norm is estimated on
    Options: ClassVar[type[Any]]
    cannot: ClassVar[Mapping[str, str]]

    # What it reads, and what stands around the backbone. Without torch.

    def find(self, data: str | None, options: Any, *, seed: int) -> Dataset:
        """Look at a folder (or None: the built-in images) and split it once; reads no pixels.

        Raises:
            InputError: no such data, or data that cannot be used; the message says why.
        """

    def arrange(
        self, network: str | Path | NetSpec, options: Any, dataset: Dataset | None
    ) -> tuple[NetSpec, Wrapper]:
        """The backbone at its input size and what stands around it; None: the paper's classes.

        Raises:
            InputError: no such network, or one that cannot be a backbone.
        """

    def restored(self, spec: NetSpec, stored: Mapping[str, Any], classes: int) -> Wrapper:
        """The wrapper of a run from its record's "wrapper", see `stored`."""

    def stored(self, spec: NetSpec, wrapper: Wrapper) -> dict[str, Any]:
        """What a record keeps of a wrapper, as plain JSON values; {} where nothing stands around."""

    def told(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """The same, from an exported file's metadata.

        Raises:
            KeyError, ValueError: the metadata lacks something.
        """

    def convert(self, data: Path, out: Path | None) -> tuple[dict[str, Path], tuple[Left, ...]]:
        """Annotations in the form that `find` reads: files by split, and what was left out."""

    # How it learns. From here on torch may be imported.

    def recipe(
        self, name: str | None, *, images: int, epochs: float | None, started: bool, seed: int
    ) -> Settings:
        """How to train on so many images; `started` from weights or not.

        Raises:
            InputError: no such recipe; the known are named.
        """

    def prepare(
        self,
        dataset: Dataset,
        spec: NetSpec,
        wrapper: Wrapper,
        options: Any,
        *,
        scratch: Path,
        seed: int,
        heldout: float = 0.0,
        stream: bool = False,
        bad_share: float = 0.01,
        processes: int = 1,
        progress: Progress,
    ) -> Data:
        """Decode or survey the images once for all processes; a second call opens what is there.

        So many `processes` will train side by side on one machine, and share its memory.

        Raises:
            InputError: too many unreadable images, nothing to learn from.
        """

    def data_type(self) -> type[Any]:
        """The dataclass that `prepare` makes."""

    def module(self, spec: NetSpec, wrapper: Wrapper, *, seed: int | None = None) -> WrappedNet:
        """The network; initialised from a seed, or with None waiting for weights."""

    def supernet_problem(
        self, net: Any, data: Any, settings: Settings, group: ProcessGroup
    ) -> TrainingProblem[Any]:
        """What a supernet learns from; a task without one has "supernet" in `cannot`."""

    # How it answers.

    def outputs(self, net: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """A module's raw outputs, as its exported file gives them before any choice."""

    def evaluate(
        self,
        answers: Answers,
        data: str | None,
        options: Any,
        *,
        split: str,
        record: Mapping[str, Any],
        seed: int,
        progress: Progress,
        out: Path | None = None,
    ) -> Scores:
        """Score on a split of a folder; None: of the data in the run's record.

        Raises:
            InputError: no such split, or other classes than the network knows.
        """

    def predict(
        self, answers: Answers, path: Path, options: Any, record: Mapping[str, Any]
    ) -> Prediction:
        """What a network says of a picture of any size.

        Raises:
            InputError: the picture cannot be read.
        """

    def draw(self, path: Path, prediction: Prediction, answers: Answers) -> Image | None:
        """The picture with the prediction painted on it; None where there is nothing to paint."""

    def samples(
        self,
        source: Any,
        split: str,
        *,
        size: Size,
        count: int,
        normalisation: Normalisation,
    ) -> Tensor:
        """`count` images, spread evenly over a dataset's split or over picture files, as an input.

        Raises:
            InputError: none can be read.
        """

    def paint(self, name: str, prediction: Prediction) -> Image:
        """A further picture of a prediction: one of `paints`, which are options of predict."""

    # Its files.

    def size(self, spec: NetSpec, wrapper: Wrapper, options: Any) -> Size:
        """(height, width) of an exported file's image."""

    def title(self, spec: NetSpec, wrapper: Wrapper) -> str:
        """The network with what stands around it, for people."""

    def variants(self) -> Sequence[tuple[str, Any]]:
        """(file name, options) of the float ONNX files that a finished training writes."""

    def metadata(
        self,
        net: Any,
        record: Mapping[str, Any],
        engine: Runtime,
        precision: Precision,
        size: Size,
        options: Any,
    ) -> dict[str, str]:
        """What goes into an exported file; `record` is that of the run, {} where there is none."""

    def finished(self, options: Any) -> bool:
        """Whether a file shall take the task's last step too, see `Wrapped.answer`."""

    def pixels(self, options: Any) -> bool:
        """Whether a file shall take uint8 pixels and normalise them itself."""

    def compare(
        self,
        net: Any,
        session: Session,
        images: Tensor,
        quantized: Quantized | None,
        precision: Precision,
        options: Any,
    ) -> dict[str, Any]:
        """How a file's outputs compare with the module's on real images: plain JSON values.

        Raises:
            ExportError: they disagree.
        """

    # For people.

    def check_line(self, check: Mapping[str, Any]) -> str:
        """What `compare` found, as the end of a sentence."""

    def count(self, networks: Iterable[str], options: Any) -> Table:
        """Costs of networks by name."""

    def zoo(self, pattern: str, options: Any) -> Table:
        """The paper's networks of this task with exact and printed counts."""

    def score_table(self, scores: Sequence[Mapping[str, Any]]) -> Table | None:
        """Details of scores for the terminal; None where the one line says all."""

    def report(self, record: Mapping[str, Any]) -> list[str]:
        """The task's part of a run's report: Markdown lines, from the record alone."""
