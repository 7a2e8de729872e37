"""Accuracies that recorded runs have, for the paper's tables. None is taken from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bneck.records.run import RunFolder
from bneck.report.numbers import several
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Row
from bneck.specs.text import from_text, load, resolve
from bneck.tasks.segment.head import Segmenter, from_settings

IMAGENET, COCO, CITYSCAPES = 50_000, 5_000, 500  # validation images that an accuracy must be of
Task = Literal["classify", "detect", "segment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One recorded accuracy, a share of 1. `papers` says whether its images are the paper's."""

    task: Task
    spec: NetSpec
    value: float
    data: str
    images: int
    classes: int
    papers: bool
    where: str
    precision: str = "fp32"
    segmenter: Segmenter | None = None

    def sentence(self) -> str:
        """What it is and why it stands in no column."""
        name = {"classify": "top-1", "detect": "mAP", "segment": "mIOU"}[self.task]
        kind = "" if self.precision == "fp32" else ", 8-bit"
        return (
            f"{self.spec.name}{kind}: {100 * self.value:.1f} % {name} on {self.data} "
            f"({several(self.images, 'image')}, {several(self.classes, 'class', 'classes')}), in {self.where}. "
            "Not the paper's data, so it stands in no table."
        )


class Scores:
    """Accuracies of runs, found by network."""

    def __init__(self, runs: Sequence[str | Path] = ()) -> None:
        self.all = [score for run in runs for score in read_scores(Path(run))]

    def top1(self, name: str, precision: str = "fp32") -> float | None:
        """ImageNet top-1 in percent; None without a run that has it."""
        return self._best("classify", architecture(resolve(name)), precision)

    def coco(self, name: str) -> float | None:
        """mAP on COCO's 5,000 val images in percent."""
        return self._best("detect", architecture(resolve(name)), "fp32")

    def cityscapes(self, wanted: Segmenter) -> float | None:
        """mIOU on Cityscapes' 500 val images in percent."""
        for score in self.all:
            seg = score.segmenter
            if seg is not None and score.papers and _same_segmenter(seg, wanted):
                return 100 * score.value
        return None

    def others(self, task: Task) -> list[str]:
        """Sentences on accuracies of other data."""
        return [score.sentence() for score in self.all if score.task == task and not score.papers]

    def _best(self, task: Task, wanted: tuple[Any, ...], precision: str) -> float | None:
        values = [
            100 * score.value
            for score in self.all
            if (score.task, score.papers, score.precision) == (task, True, precision)
            and architecture(score.spec)[:1] == wanted[:1]
            and (task == "detect" or architecture(score.spec) == wanted)
        ]
        return max(values, default=None)


def architecture(spec: NetSpec) -> tuple[Any, ...]:
    """What makes two specs one network of a table: rows and resolution, not padding or epsilon."""
    return (tuple(_plain(spec, i, row) for i, row in enumerate(spec.rows)), spec.resolution)


def read_scores(path: Path) -> list[Score]:
    """The accuracies of a run's folder, or of a file that `bneck evaluate --json` printed.

    Raises:
        InputError: it holds none.
    """
    if path.is_file():
        return [_evaluated(path)]
    if (path / "quantize.json").is_file():
        return _quantized(path)
    folder = RunFolder(path)
    record = folder.read()
    match record.get("kind"):
        case "classify" if "top1" in record:
            return [_classified(folder, record, load(folder.spec), record["top1"], record["n"])]
        case "search" if record.get("found", {}).get("top1"):
            found = record["found"]
            mean = sum(found["top1"]) / len(found["top1"])
            return [
                _classified(folder, record, from_text(found["spec"]), mean, record["data"]["val"])
            ]
        case "detect" if record.get("evaluations"):
            return _detected(folder, record)
        case "segment" if record.get("scores"):
            return _segmented(folder, record)
        case "import":
            raise InputError(
                f"{path} is an import, which nobody judged; run bneck evaluate {path} --data IMAGENET/val "
                "--json > FILE and give the file"
            )
    raise InputError(f"{path} has no accuracy yet; finish the run, or leave it out")


def _classified(
    folder: RunFolder, record: dict[str, Any], spec: NetSpec, top1: float, images: int
) -> Score:
    data = record["data"]
    classes = len(data["classes"])
    return Score(
        task="classify", spec=spec, value=top1, data=str(data["name"]), images=images, classes=classes,
        papers=(classes in (1000, 1001) and images == IMAGENET), where=str(folder.path),
    )  # fmt: skip


def _evaluated(path: Path) -> Score:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        name, images, classes = found["name"], found["n"], found["classes"]
        network = Path(found["network"])
        spec = load(network / "spec.yaml") if (network / "spec.yaml").is_file() else resolve(name)
        return Score(
            task="classify", spec=replace(spec, resolution=found["resolution"]), value=found["top1"],
            data=found["data"], images=images, classes=classes, where=str(path),
            papers=(classes in (1000, 1001) and images == IMAGENET),
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(
            f"{path} holds no accuracy; give a run's folder, or what bneck evaluate --json printed"
        ) from None


def _quantized(path: Path) -> list[Score]:
    try:
        found = json.loads((path / "quantize.json").read_text(encoding="utf-8"))
        rows = {row["name"]: row["top1"] for row in found["rows"]}
        images = found["images"]["val"]
        spec = resolve(found["network"])
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(
            f"{path / 'quantize.json'} cannot be read as a comparison of 8 bits"
        ) from None
    best = max((rows[name] for name in ("ptq", "qat") if name in rows), default=None)
    if best is None:
        raise InputError(f"{path / 'quantize.json'} has no 8-bit accuracy")
    return [
        Score(
            task="classify", spec=spec, value=best, data=found["data"], images=images,
            classes=spec.classes, papers=spec.classes in (1000, 1001) and images == IMAGENET,
            where=str(path), precision="int8",
        )
    ]  # fmt: skip


def _detected(folder: RunFolder, record: dict[str, Any]) -> list[Score]:
    spec, classes = load(folder.spec), len(record["classes"])
    return [
        Score(
            task="detect", spec=spec, value=found["AP"], data=str(record["settings"]["data"]),
            images=found["images"], classes=classes, where=str(folder.path),
            papers=(
                classes in (80, 90) and found["images"] == COCO
                and record["detector"]["resolution"] == 320
            ),
        )
        for split, found in record["evaluations"].items()
        if split == "val" and found.get("AP") is not None
    ]  # fmt: skip


def _segmented(folder: RunFolder, record: dict[str, Any]) -> list[Score]:
    spec, classes = load(folder.spec), len(record["labels"]["names"])
    seg = from_settings(spec, record["segmenter"])
    return [
        Score(
            task="segment", spec=spec, value=found["miou"], data=str(record["settings"]["data"]),
            images=found["images"], classes=classes, where=str(folder.path), segmenter=seg,
            papers=(classes == 19 and found["images"] == CITYSCAPES and not record["settings"]["size"]),
        )
        for found in record["scores"]
        if found["split"] == "val"
    ]  # fmt: skip


def _same_segmenter(one: Segmenter, other: Segmenter) -> bool:
    return (one.head, one.filters, architecture(one.network)[0]) == (
        other.head, other.filters, architecture(other.network)[0],
    )  # fmt: skip


def _plain(spec: NetSpec, index: int, row: Row) -> Row:
    """The row with its residual written down, so that "auto" equals what it stands for."""
    if isinstance(row, Bneck):
        return replace(row, skip="yes" if spec.has_skip(index) else "no")
    return row
