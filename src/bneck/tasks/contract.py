"""The contract between the commands and a task: `Task`, with what a task does where it says nothing else.

Every command is written once over this contract. A task says what data it reads, what stands around
a backbone, how a network learns, answers and is scored; the commands say when. Nothing here imports
torch at run time, so that names, counts and help stay instant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from bneck.costs.count import count_whole
from bneck.data.depth import FULL
from bneck.records.progress import Progress
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import Normalisation
from bneck.specs.text import to_text
from bneck.specs.wrapper import Wrapper
from bneck.tasks.checks import ExportError, both, int8_file, largest_gap, near
from bneck.tasks.data import (
    Answers,
    Array,
    Classified,
    Data,
    Dataset,
    Left,
    Scores,
    Size,
    check_classes,
    told_bits,
)

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

# What commands import from here; what only tasks need is in `data`.
__all__ = [
    "Answers", "Array", "Classified", "Data", "Dataset", "Left", "Metric", "Prediction", "Scores", "Size",
    "Table", "Task", "later",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """What networks of a task are scored by: its name for people, and its key in records and JSON.

    Scores are fractions from 0 to 1.
    """

    name: str
    key: str


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


class _Later:
    def __init__(self, home: str) -> None:
        self.home = home

    def __get__(self, task: object, kind: type) -> Any:
        return resolve_name(self.home)


def later(home: str) -> Any:
    """A function or class "MODULE:NAME" in the class of a task, imported when it is first asked for.

    For what needs torch. A function takes the arguments of the method whose place it takes, without `self`.
    """
    return _Later(home)


class Task(Protocol):
    """What networks are made to do. A task derives from it; its objects have no state.

    `Options` is one frozen dataclass with a default for every field: what can be told to the task, on
    the command line, in Python and in run.json alike; each field's metadata (`options.option`) has its
    help text and the commands that take it. `cannot` names options of all tasks that this one refuses,
    with the reason.

    A run's record and its files keep what `Wrapped.settings` says; `restored` gets it back, from files
    with lists in place of tuples.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # one line for --help
    metric: ClassVar[Metric]
    default_network: ClassVar[str]
    Options: ClassVar[type[Any]]
    cannot: ClassVar[Mapping[str, str]] = {}
    builtin: ClassVar[bool] = False  # whether there is a built-in dataset for --data left out
    paints: ClassVar[tuple[str, ...]] = ()  # options of predict that name further pictures to write
    any_size: ClassVar[bool] = False  # predictions use the module, which takes pictures of any size
    converts: ClassVar[bool] = False  # whether it converts annotations
    answer: ClassVar[str] = "see the task"  # what its files' outputs are, for a model card
    agrees: ClassVar[str] = ""  # what `compare` calls the fraction of equal answers
    scores_epochs: ClassVar[bool] = False  # whether val is scored after every epoch, the best kept
    statistics: ClassVar[tuple[int, int]] = (512, 32)  # images, and batch, for batch norm
    data_type: ClassVar[Any]  # the dataclass that `prepare` makes

    # What it reads, and what stands around the backbone. Without torch.

    def find(self, data: str | None, options: Any, *, seed: int) -> Dataset:
        """Look at a folder (or None: the built-in images) and split it once; reads no pixels.

        Raises:
            InputError: no such data, or data that cannot be used; the message says why.
        """

    def elsewhere(self, options: Any) -> Any:
        """A run's options for other images than its own: without those that name parts of its own."""
        return options

    def renumbered(self, dataset: Any, labels: Sequence[str], record: Mapping[str, Any]) -> Any:
        """Other images than a run's own, with their classes numbered as its network numbers them.

        `evaluate` takes the same images: of classes that the network does not know, it leaves them out or
        refuses them.

        Raises:
            InputError: they cannot be.
        """
        check_classes(dataset, labels, str(dataset.place), bool(record.get("classes")))
        return dataset

    def arrange(
        self, network: str | Path | NetSpec, options: Any, dataset: Any
    ) -> tuple[NetSpec, Wrapper]:
        """The backbone at its input size and what stands around it; without a dataset: the paper's classes.

        Raises:
            InputError: no such network, or one that cannot be a backbone.
        """

    def restored(self, spec: NetSpec, stored: Mapping[str, Any], classes: int) -> Wrapper:
        """The wrapper of a run from its record's "wrapper", see `stored`."""

    def stored(self, spec: NetSpec, wrapper: Wrapper) -> dict[str, Any]:
        """What a record keeps of a wrapper, as plain JSON values; {} where nothing stands around."""
        return wrapper.around(spec).settings()

    def told(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """The same, from an exported file's metadata.

        Raises:
            KeyError, ValueError: the metadata lacks something.
        """
        return dict(json.loads(metadata["wrapper"]))

    def convert(self, data: Path, out: Path | None) -> tuple[dict[str, Path], tuple[Left, ...]]:
        """Annotations in the form that `find` reads: files by split, and what was left out."""
        raise NotImplementedError

    # How it learns. From here on torch may be imported.

    def recipe(
        self, name: str | None, *, images: int, epochs: float | None, started: bool, seed: int
    ) -> Settings:
        """How to train on so many images; `started` from weights or not.

        Raises:
            InputError: no such recipe; the known are named.
        """

    def prepare(
        self, dataset: Dataset, spec: NetSpec, wrapper: Wrapper, options: Any, *, scratch: Path,
        seed: int, heldout: float = 0.0, stream: bool = False, bad_share: float = 0.01,
        processes: int = 1, progress: Progress,
    ) -> Data:  # fmt: skip
        """Decode or survey the images once for all processes; a second call opens what is there.

        So many `processes` will train side by side on one machine, and share its memory.

        Raises:
            InputError: too many unreadable images, nothing to learn from.
        """

    def module(self, spec: NetSpec, wrapper: Wrapper, *, seed: int | None = None) -> WrappedNet:
        """The network; initialised from a seed, or with None waiting for weights."""
        wrapped = wrapper.around(spec)
        return self.net(wrapped) if seed is None else self.build(wrapped, seed=seed)

    def net(self, wrapped: Any) -> WrappedNet:
        """The module of what `Wrapper.around` gives, without weights."""

    def build(self, wrapped: Any, *, seed: int) -> WrappedNet:
        """The module, initialised from a seed."""
        from bneck.nets.build import seeded

        return seeded(lambda: self.net(wrapped), seed)

    def supernet_problem(
        self, net: Any, data: Any, settings: Settings, group: ProcessGroup
    ) -> TrainingProblem[Any]:
        """What a supernet learns from; a task without one has "supernet" in `cannot`."""
        raise NotImplementedError

    # How it answers.

    def outputs(self, net: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """A module's raw outputs, as its exported file gives them before any choice."""
        found = net(images)
        return found if isinstance(found, tuple) else (found,)

    def evaluate(
        self, answers: Answers, data: str | None, options: Any, *, split: str,
        record: Mapping[str, Any], seed: int, progress: Progress, out: Path | None = None,
    ) -> Scores:  # fmt: skip
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
        return None

    def paint(self, name: str, prediction: Prediction) -> Image:
        """A further picture of a prediction: one of `paints`, which are options of predict."""
        raise NotImplementedError

    def samples(
        self, source: Any, split: str, *, size: Size, count: int, normalisation: Normalisation
    ) -> Tensor:
        """`count` images, spread evenly over a dataset's split or over picture files, as an input.

        Raises:
            InputError: none can be read.
        """
        from bneck.data.read import read_images

        files = source.files[split] if isinstance(source, Dataset) else source
        bits = source.bits if isinstance(source, Dataset) else FULL
        return read_images(files, size, count, normalisation, bits=bits)

    # Its files.

    def size(self, spec: NetSpec, wrapper: Wrapper, options: Any) -> Size:
        """(height, width) of an exported file's image."""
        return wrapper.size(spec)

    def title(self, spec: NetSpec, wrapper: Wrapper) -> str:
        """The network with what stands around it, for people."""
        return wrapper.around(spec).name

    def variants(self) -> Sequence[tuple[str, Any]]:
        """(file name, options) of the float ONNX files that a finished training writes."""
        return [("model.onnx", self.Options())]

    def metadata(
        self, net: Any, record: Mapping[str, Any], engine: Runtime, precision: Precision,
        size: Size, options: Any,
    ) -> dict[str, str]:  # fmt: skip
        """All that it takes to use an exported file without the run.

        `record` is that of the run, {} where there is none; outputs go unnamed then.
        """
        return {
            "task": self.name,
            "precision": precision,
            "classes": json.dumps(list(record.get("classes") or [])),
            "mean": json.dumps(net.normalisation.mean),
            "std": json.dumps(net.normalisation.std),
            "size": json.dumps(size),
            "spec": to_text(net.spec),
            "wrapper": json.dumps(net.wrapped.settings()),
            **told_bits(record),
        }

    def finished(self, options: Any) -> bool:
        """Whether a file shall take the task's last step too, see `Wrapped.answer`."""
        return False

    def pixels(self, options: Any) -> bool:
        """Whether a file shall take uint8 pixels and normalise them itself."""
        return False

    def compare(
        self, net: Any, session: Session, images: Tensor, quantized: Quantized | None,
        precision: Precision, options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """How a file's outputs compare with the module's on real images: plain JSON values.

        Here the largest difference of all outputs, relative to the largest output: for outputs that
        every runtime gives in the same shape, vectors, no maps.

        An int8 file is compared with its simulation, whose other roundings decide how far it may be off
        (`checks.roundings`). Its check also has, under the name `agrees`, the fraction of the float module's
        answers that it gives, and the `chance` of a guess.

        Raises:
            ExportError: they disagree.
        """
        if quantized:
            _, found = int8_file(self.outputs, net, session, images, quantized)
            return {"images": len(images), **found}
        wanted, got = both(self.outputs, net, session, images, None)
        largest = largest_gap(wanted, got)
        if not near(largest, precision):
            raise ExportError(
                f"the exported file does not answer as the network does on {len(images)} images: outputs "
                f"differ by {largest:.2g} of the largest; no file was kept"
            )
        return {"images": len(images), "largest_difference": largest}

    # For people.

    def check_line(self, check: Mapping[str, Any]) -> str:
        """What `compare` found, as the end of a sentence."""
        return f"outputs differ by {check['largest_difference']:.1e} of the largest"

    def count(self, networks: Iterable[str], options: Any) -> Table:
        """Costs of networks by name."""
        arranged = ((name, *self.arrange(name, options, None)) for name in networks)
        counted = [
            (name, spec.resolution, count_whole(spec, wrapper)) for name, spec, wrapper in arranged
        ]
        costs = ("params", "madds", "activation_bytes")
        return Table(
            title="",
            columns=("network", "resolution", "params", "MAdds", "peak activations kB"),
            rows=[
                (
                    name, str(resolution), f"{one.params:,}", f"{one.madds:,}",
                    f"{one.activation_bytes / 1024:,.0f}",
                )
                for name, resolution, one in counted
            ],
            values=[
                {
                    "network": name, "resolution": resolution,
                    **{key: getattr(one, key) for key in costs},
                    "rows": [{k: getattr(r, k) for k in ("row", *costs)} for r in one.rows],
                }
                for name, resolution, one in counted
            ],
        )  # fmt: skip

    def zoo(self, pattern: str) -> Table:
        """The paper's networks of this task with exact and printed counts.

        Raises:
            InputError: the paper has none, or none of such a name.
        """
        raise InputError(
            f"the paper has no networks of the task {self.name}; choose another --task, or see: bneck zoo"
        )

    def published(self, pattern: str) -> Table:
        """Every published score of the zoo's networks, its source, and the weights where there are some.

        Raises:
            InputError: none is known for this task, or none of such a name.
        """
        raise InputError(
            f"no published scores of the task {self.name} are known; choose another --task, or see: bneck zoo"
        )

    def score_table(self, scores: Sequence[Mapping[str, Any]]) -> Table | None:
        """Details of scores for the terminal; None where the one line says all."""
        return None

    def report(self, record: Mapping[str, Any]) -> list[str]:
        """The task's part of a run's report: Markdown lines, from the record alone."""
        return []
