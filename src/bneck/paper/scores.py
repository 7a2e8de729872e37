"""Accuracies that recorded runs have, for the paper's tables. None is taken from anywhere else."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bneck.records.run import RunFolder
from bneck.report.numbers import several
from bneck.runs.load import task_of
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck
from bneck.specs.text import from_text, load, resolve
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.tasks.contract import Task
from bneck.tasks.detect.head import RESOLUTION
from bneck.tasks.registry import DEFAULT, task
from bneck.tasks.segment.count import FULL

# Of the paper's validation images, by task: how many, of how many classes, and (height, width) of what
# the network sees, None where the tables have several: ImageNet, COCO, Cityscapes.
PAPERS: dict[str, tuple[int, tuple[int, ...], tuple[int, int] | None]] = {
    "classify": (50_000, (1000, 1001), None),
    "detect": (5_000, (80, 90), (RESOLUTION, RESOLUTION)),
    "segment": (500, (19,), FULL),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One recorded accuracy, a share of 1, of a network and what surrounds it."""

    task: Task
    spec: NetSpec
    wrapper: Wrapper
    value: float
    data: str
    images: int
    classes: int
    where: str
    precision: str = "fp32"

    @property
    def papers(self) -> bool:
        """Whether its images are the paper's, by their number, and seen as the paper's networks do."""
        images, classes, size = PAPERS.get(self.task.name, (0, (), None))
        seen = size is None or self.wrapper.size(self.spec) == size
        return seen and self.images == images and self.classes in classes

    def of(self, spec: NetSpec, wrapper: Wrapper) -> bool:
        """Whether it is this network's, whatever the number of classes."""
        other = self.task.restored(spec, self.task.stored(spec, wrapper), self.classes)
        return self.wrapper == other and architecture(self.spec) == architecture(spec)

    def sentence(self) -> str:
        """What it is and why it stands in no column."""
        kind = "" if self.precision == "fp32" else ", 8-bit"
        return (
            f"{self.spec.name}{kind}: {100 * self.value:.1f} % {self.task.metric.name} on {self.data} "
            f"({several(self.images, 'image')}, {several(self.classes, 'class', 'classes')}), in {self.where}. "
            "Not the paper's data, so it stands in no table."
        )


class Scores:
    """Accuracies of runs, found by network."""

    def __init__(self, runs: Sequence[str | Path] = ()) -> None:
        self.all = [score for run in runs for score in read_scores(Path(run))]

    def best(
        self, name: str, network: str, precision: str = "fp32", **options: Any
    ) -> float | None:
        """The best on the paper's data in percent; None without a run that has one.

        Args:
            name: the task.
            network: a name of the zoo.
            precision: "fp32" or "int8".
            options: of the task, as "head".
        """
        known = [
            s for s in self.all if s.papers and (s.task.name, s.precision) == (name, precision)
        ]
        if not known:
            return None
        chosen = task(name)
        wanted = chosen.arrange(network, chosen.Options(**options), None)
        return max((100 * score.value for score in known if score.of(*wanted)), default=None)

    def top1(self, network: str, precision: str = "fp32") -> float | None:
        """ImageNet top-1 in percent; None without a run that has it."""
        return self.best("classify", network, precision)

    def others(self, name: str) -> list[str]:
        """Sentences on accuracies of a task on other data."""
        return [s.sentence() for s in self.all if s.task.name == name and not s.papers]


def architecture(spec: NetSpec) -> tuple[Any, ...]:
    """What makes two specs one network of a table: rows and resolution, not padding or epsilon."""
    # A residual is written down, so that "auto" equals what it stands for.
    rows = [
        replace(row, skip="yes" if spec.has_skip(i) else "no") if isinstance(row, Bneck) else row
        for i, row in enumerate(spec.rows)
    ]
    return (tuple(rows), spec.resolution)


def read_scores(path: Path) -> list[Score]:
    """The accuracies of a run's folder, or of a file that `bneck evaluate --json` printed.

    Raises:
        InputError: it holds none.
    """
    if path.is_file():
        return [_evaluated(path)]
    if (path / "quantize.json").is_file():
        return [_quantized(path)]
    folder = RunFolder(path)
    record = folder.read()
    match record.get("kind"):
        case "train" if (found := record.get("scores", {}).get("val")) is not None:
            values, spec, images = [found["score"]], load(folder.spec), found["images"]
        case "search" if (found := record.get("found", {})).get("scores"):
            values, spec = found["scores"], from_text(found["spec"])
            images = record["data"]["splits"]["val"]
        case "import":
            raise InputError(
                f"{path} is an import, which nobody judged; run bneck evaluate {path} --data IMAGENET/val "
                "--json > FILE and give the file"
            )
        case _:
            raise InputError(f"{path} has no accuracy yet; finish the run, or leave it out")
    if None in values:  # undefined, as with no object in the val images
        return []
    chosen, classes = task_of(record), len(record["classes"])
    return [
        Score(
            task=chosen, spec=spec, wrapper=chosen.restored(spec, record["wrapper"], classes),
            value=statistics.mean(values), data=str(record["data"]["name"]), images=images,
            classes=classes, where=str(path),
        )
    ]  # fmt: skip


def _evaluated(path: Path) -> Score:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        chosen, network = task(found["task"]), Path(found["network"])
        folder = RunFolder(network if network.is_dir() else network.parent)
        record = folder.read() if folder.run_json.is_file() else {}
        spec = load(folder.spec) if folder.spec.is_file() else resolve(found["name"])
        spec = replace(spec, resolution=found.get("resolution", spec.resolution))
        classes = found.get("classes") or len(record["classes"])
        return Score(
            task=chosen, spec=spec, classes=classes, value=found["score"], images=found["images"],
            wrapper=chosen.restored(spec, record.get("wrapper", {}), classes), where=str(path),
            data=str(found.get("data") or f"the {found['split']} images that it was given"),
            precision="int8" if found.get("precision") == "int8" else "fp32",
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError):  # whatever else a json file may hold
        raise InputError(
            f"{path} holds no accuracy; give a run's folder, or what bneck evaluate --json printed"
        ) from None


def _quantized(path: Path) -> Score:
    file = path / "quantize.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        name = found["task"]
        rows = {row["name"]: row["score"] for row in found["rows"]}
        images, spec, data = found["images"]["val"], resolve(found["network"]), str(found["data"])
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f"{file} cannot be read as a comparison of 8 bits") from None
    if name != DEFAULT:
        raise InputError(
            f"{file} is of the task {name}, which the paper has no 8-bit accuracy of; leave it out"
        )
    best = max((rows[kind] for kind in ("ptq", "qat") if kind in rows), default=None)
    if best is None:
        raise InputError(f"{file} has no 8-bit accuracy")
    return Score(
        task=task(name), spec=spec, wrapper=PLAIN, value=best, data=data, images=images,
        classes=spec.classes, where=str(path), precision="int8",
    )  # fmt: skip
