"""A run's images: in its record, opened again, and as samples to check and calibrate files with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from torch import Tensor

from bneck.data.depth import FULL
from bneck.data.intake.sentence import Repeated, repeated, sentence
from bneck.data.intake.walk import images_below
from bneck.data.read import evenly, spread
from bneck.records.files import write_json
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder
from bneck.runs.load import Trained
from bneck.specs.errors import InputError
from bneck.tasks.contract import Data, Dataset, Left, Size, Task
from bneck.tasks.data import check_classes, check_divided
from bneck.tasks.registry import DEFAULT, tasks
from bneck.training.processes import ALONE, ProcessGroup

LEAST, ALL_NUMBERS = 8, 1 << 27  # images at least, and numbers of all images beyond that: 0.5 GB
NUMBERS = 1 << 23  # of images at most in a batch: 32 MB; activations are some ten times as much


def find_images(task: Task, place: str | None, options: Any, *, seed: int) -> Dataset:
    """What a task finds at a place, see `Task.find`.

    Who names no task gets the usual one; if that refuses what another one can read, its name is said.

    Raises:
        InputError: the task cannot work with what is there.
    """
    try:
        return task.find(place, options, seed=seed)
    except InputError as error:
        others = [one for one in tasks() if task.name == DEFAULT and one.name != DEFAULT]
        fitting = next((one for one in others if _reads(one, place, seed)), None)
        if fitting is None:
            raise
        raise InputError(f"{error}; --task {fitting.name} can read it as it is") from None


def _reads(task: Task, place: str | None, seed: int) -> bool:
    try:
        task.find(place, task.Options(), seed=seed)
    except InputError:
        return False
    return True


def data_record(dataset: Dataset, place: str | None) -> dict[str, Any]:
    """A dataset as records hold it; `place` is None for the built-in images.

    "found" says in one line what was found, with images that stand both in train and in val.
    """
    repeats: Repeated | None = Repeated()
    if place is not None:
        repeats = (
            None if "://" in place else repeated(dataset.source("train"), dataset.source("val"))
        )
    line = sentence(
        dataset.classes, dataset.splits, dataset.found, repeats, held_back=dataset.held_back
    )
    return {
        "found": line,
        "val": dataset.found.val,
        "in_train_and_val": list(repeats.leaked) if repeats else [],
        "name": dataset.name,
        "path": place,
        "splits": dict(dataset.splits),
        "left_out": [[left.what, left.why] for left in dataset.left_out],
        **({} if dataset.bits == FULL else {"bits": dataset.bits}),
        **dataset.facts,
    }


def prepared(
    task: Task,
    folder: RunFolder,
    record: Any,
    options: Any,
    *,
    seed: int,
    progress: Progress,
    group: ProcessGroup = ALONE,
    **how: Any,
) -> Data:
    """A run's images: made ready once for all its processes, or opened as an earlier one left them.

    Args:
        task, folder, record: the run's; what is found goes into its record.
        options: the task's own.
        seed: that the images are split with.
        progress: receives what happens in the first process.
        group: the first process makes the images ready, the others open them then.
        how: as in `Task.prepare`.

    Raises:
        InputError: no such data, or data that changed since the run was begun or cannot be used.
    """
    scratch, kept = folder.scratch / "data", record["data"]
    begun_with = kept.get("prepared")
    if begun_with is not None and scratch.is_dir():
        return reopened(task, begun_with, scratch)

    def prepare(told: Progress) -> Data:
        found = task.find(kept["path"], options, seed=seed)
        check_classes(found, record["classes"], data_name(record, None))  # they may have changed
        return task.prepare(
            found, options=options, scratch=scratch, seed=seed, progress=told, **how
        )

    data = group.first_then_all(lambda: prepare(progress), lambda: prepare(Silent()))
    if begun_with is not None:  # somebody deleted the folder of what an unfinished run needs
        if (
            prepared_record(data) != begun_with
            or not data.counts().items() <= kept["splits"].items()
        ):
            raise InputError(
                f"{data_name(record, None)} has changed since the run was begun; start a new run"
            )
        return data
    kept["splits"] |= data.counts()
    kept["left_out"] += [[one.what, one.why] for one in data.left_out()]
    if how.get("heldout"):
        kept["heldout"] = data.held_out
    kept["prepared"] = prepared_record(data)
    if group.first:
        write_json(folder.run_json, record)
    return data


def prepared_record(data: Data) -> dict[str, Any]:
    """Images that are ready, as plain JSON values; all but where they are kept."""
    names = [one.name for one in fields(data) if one.name != "scratch"]
    return {name: _plain(getattr(data, name)) for name in names}


def reopened(task: Task, stored: dict[str, Any], scratch: Path) -> Data:
    """Images that an earlier process has made ready."""
    kind = task.data_type
    hints = get_type_hints(kind)
    values = {name: _typed(hints[name], value) for name, value in stored.items()}
    made: Data = kind(**values, scratch=scratch)
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_typed(None, one) for one in value)
    return Path(value) if value is not None and "Path" in str(hint) else value


class Samples:
    """Images for a network.

    Args:
        run: the network.
        data: a folder of pictures; None, and the run's own folder, take the run's own data. A network
            without a run is checked on the built-in images where its task has some.
        dataset: the images themselves, where they are at hand.
    """

    def __init__(
        self, run: Trained, data: str | Path | None = None, dataset: Dataset | None = None
    ) -> None:
        self.run, self.dataset = run, dataset
        self.data = None if names_own(run.record, data) else data

    @property
    def known(self) -> bool:
        """Whether there are images of the kind that the network will see."""
        return self.data is not None or "path" in (self.run.record.get("data") or {})

    def of(self, split: str, size: Size, count: int) -> Tensor:
        """`count` images spread evenly over a split, brought to `size` and normalised: (N, C, H, W).

        Fewer where they are large (21 of 1024 x 2048 pixels); those that cannot be read are left out.
        Of a folder of pictures every split is all of it.

        Raises:
            InputError: no image can be read.
        """
        most = max(LEAST, ALL_NUMBERS // (3 * size[0] * size[1]))
        return self.run.task.samples(
            self._source(), split, size=size, count=min(count, most),
            normalisation=self.run.net.normalisation,
        )  # fmt: skip

    def drawn(self, split: str, size: Size, count: int) -> Drawn:
        """`count` images of a split, or all, evenly over the classes where each image's are known.

        Of a folder of pictures: evenly over the folders in it that hold pictures.
        """
        source = self._source()
        names: Sequence[str | Path]
        if isinstance(source, Dataset):
            names, by_class = source.source(split).names, source.by_class(split)
        else:
            names, by_class, split = source, _by_folder(source), ""
        places = evenly(len(names), count, by_class)
        counts = {name: len(set(places) & set(those)) for name, those in by_class.items()}
        told = tuple(str(names[i]) for i in places)
        part = (
            source.part(split, places)
            if isinstance(source, Dataset)
            else [source[i] for i in places]
        )
        return Drawn(self.run, part, split, size, told, len(names), counts)

    def _source(self) -> Dataset | Sequence[Path]:
        if self.dataset is not None:
            return self.dataset
        if self.data is not None:
            root = Path(self.data)
            found = images_below(root) if root.is_dir() else []
            if not found:
                raise InputError(f"{root} has no pictures; pass a folder of pictures with --data")
            return found
        if self.known:
            return run_dataset(self.run)
        if not self.run.task.builtin:
            raise InputError(
                f"a network of the task {self.run.task.name} is checked on pictures; pass a folder of "
                "pictures with --data"
            )
        return self.run.task.find(None, self.run.options, seed=0)


def _by_folder(pictures: Sequence[Path]) -> Mapping[str, list[int]]:
    """Numbers of the pictures in each folder; {} where all are in one."""
    found: dict[str, list[int]] = {}
    for number, path in enumerate(pictures):
        found.setdefault(str(path.parent), []).append(number)
    return found if len(found) > 1 else {}


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Images to calibrate int8 with; read, brought to `size` and normalised each time that they are asked for.

    `names` are theirs, `there` is how many there were to draw from, `classes` how many were drawn of each
    class, or of each folder where there is no split.
    """

    run: Trained
    source: Any
    split: str
    size: Size
    names: tuple[str, ...]
    there: int
    classes: Mapping[str, int] = field(default_factory=dict)

    def batches(self) -> Iterator[Tensor]:
        """All of them, (N, C, H, W) each, in batches that fit into memory with what is made of them.

        Those that cannot be read are left out.

        Raises:
            InputError: none can be read.
        """
        most, read, refused = max(1, min(16, NUMBERS // (3 * self.size[0] * self.size[1]))), 0, None
        for first in range(0, len(self.names), most):
            try:
                images = self._some(range(first, min(first + most, len(self.names))))
            except InputError as error:
                refused = refused or error
            else:
                read += len(images)
                yield images
        if not read and refused is not None:
            raise refused

    def first(self, count: int) -> Tensor:
        """At most `count` of them, evenly."""
        return self._some(spread(len(self.names), count))

    def line(self) -> str:
        """Which they are, for people."""
        what = f"{self.split} images" if self.split else "pictures"
        whole = len(self.names) == self.there
        of = "all" if whole else f"{len(self.names):,} of"
        least, most = min(self.classes.values(), default=0), max(self.classes.values(), default=0)
        each = "" if whole else ", evenly spread"
        if self.classes:
            each = f", {least} to {most}" if least < most else f", {least}"
            each += f" of each of {len(self.classes)} {'classes' if self.split else 'folders'}"
        return f"int8 is calibrated on {of} {self.there:,} {what}{each}"

    def as_json(self) -> dict[str, Any]:
        """The same for a record."""
        return {
            "split": self.split or None, "images": len(self.names), "of": self.there,
            "classes": dict(self.classes), "names": list(self.names),
        }  # fmt: skip

    def _some(self, places: Sequence[int]) -> Tensor:
        if isinstance(self.source, Dataset):
            part: Any = self.source.part(self.split, places)
        else:
            part = [self.source[i] for i in places]
        return self.run.task.samples(
            part, self.split, size=self.size, count=len(places),
            normalisation=self.run.net.normalisation,
        )  # fmt: skip


def names_own(record: Mapping[str, Any], data: str | Path | None) -> bool:
    """Whether `data` is what the run of a record was trained on."""
    known = (record.get("data") or {}).get("path")
    return data is not None and known in (str(data), str(Path(data).resolve()))


def data_name(record: Mapping[str, Any], data: str | Path | None) -> str:
    """What images are called for people: `data`, or what the run of a record was trained on."""
    known = record.get("data") or {}
    return str(data or known.get("path") or known.get("name"))


def run_dataset(run: Trained, data: str | Path | None = None) -> Dataset:
    """The dataset of a run, split as the run split it; or another, split alike, its classes numbered as the
    network's (`Task.renumbered`).

    Raises:
        InputError: the run knows no dataset, or it is gone, or has other classes than the run; or another one
            has none of its classes.
    """
    known: dict[str, Any] = run.record.get("data") or {}
    if data is None and "path" not in known:
        raise InputError(
            f"{run.folder.path if run.folder else run.spec.name} knows no dataset; pass one with --data"
        )
    seed = (run.record.get("options") or {}).get("seed", 0)
    place = known["path"] if data is None else str(data)
    if data is None and place is not None and "://" not in place and not Path(place).exists():
        raise InputError(
            f"the images that {run.spec.name} was trained on are no longer at {place}; pass images with --data"
        )
    if data is not None and not names_own(run.record, data):
        other = run.task.find(place, run.task.elsewhere(run.options), seed=seed)
        renumbered: Dataset = run.task.renumbered(other, run.labels, run.record)
        return renumbered
    found = run.task.find(place, run.options, seed=seed)
    check_divided(found.found.val, run.record, place)
    check_classes(found, run.labels, data_name(run.record, data), bool(run.record.get("classes")))
    return found


def run_images(
    run: Trained, data: str | Path | None, scratch: Path, progress: Progress
) -> tuple[Dataset, Data]:
    """The dataset of a run or another, see `run_dataset`, made ready in `scratch`; another is reported.

    Raises:
        InputError: as `run_dataset`, or images that cannot be used.
    """
    dataset, options = run_dataset(run, data), run.options
    if data is not None and not names_own(run.record, data):
        options = run.task.elsewhere(options)
        progress.say(f"{dataset.name}: {data_record(dataset, dataset.place)['found']}")
    seed = (run.record.get("options") or {}).get("seed", 0)  # splits as the run did
    return dataset, run.task.prepare(
        dataset, run.spec, run.wrapper, options, scratch=scratch, seed=seed, progress=progress
    )


def convert(
    data: str | Path, out: str | Path | None = None
) -> tuple[dict[str, Path], tuple[Left, ...]]:
    """Write the annotations of a folder in the form that training reads: VOC xml as COCO json.

    Args:
        data: the folder with Annotations, JPEGImages and, where there are splits, ImageSets/Main.
        out: where the files go; None: `data`/annotations, where training finds them.

    Returns:
        The files by split, and what was left out.

    Raises:
        InputError: no annotations that a task converts.
    """
    for task in tasks():
        if task.converts:
            return task.convert(Path(data), None if out is None else Path(out))
    raise InputError("no task converts annotations")
