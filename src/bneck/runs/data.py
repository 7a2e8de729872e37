"""A run's images: in its record, opened again, and as samples to check and calibrate files with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from torch import Tensor

from bneck.data.depth import FULL
from bneck.data.intake.sentence import Repeated, repeated, sentence
from bneck.data.intake.walk import images_below
from bneck.records.files import write_json
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder
from bneck.runs.load import Trained
from bneck.specs.errors import InputError, few
from bneck.tasks.contract import Data, Dataset, Left, Size, Task
from bneck.tasks.data import check_divided
from bneck.tasks.registry import tasks
from bneck.training.processes import ALONE, ProcessGroup

LEAST, ALL_NUMBERS = 8, 1 << 27  # images at least, and numbers of all images beyond that: 0.5 GB


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


def names_own(record: Mapping[str, Any], data: str | Path | None) -> bool:
    """Whether `data` is what the run of a record was trained on."""
    known = (record.get("data") or {}).get("path")
    return data is not None and known in (str(data), str(Path(data).resolve()))


def data_name(record: Mapping[str, Any], data: str | Path | None) -> str:
    """What images are called for people: `data`, or what the run of a record was trained on."""
    known = record.get("data") or {}
    return str(data or known.get("path") or known.get("name"))


def run_dataset(run: Trained, data: str | Path | None = None) -> Dataset:
    """The dataset of a run, split as the run split it; or another, split alike.

    Raises:
        InputError: the run knows no dataset, or it is gone, or has other classes than the run.
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
    found = run.task.find(place, run.options, seed=seed)
    if data is None:
        check_divided(found.found.val, run.record, place)
    check_classes(found, run.labels, data_name(run.record, data), bool(run.record.get("classes")))
    return found


def check_classes(found: Dataset, classes: Sequence[str], where: str, named: bool = True) -> None:
    """Raise InputError where images have other classes than a network; one without names counts them."""
    if len(found.classes) == len(classes) and (not named or tuple(found.classes) == tuple(classes)):
        return
    raise InputError(
        f"the classes of {where} are not the network's: {few(found.classes)} instead of "
        f"{few(classes)}; pass the images that it was trained on"
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
