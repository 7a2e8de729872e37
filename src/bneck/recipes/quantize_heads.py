"""A detector or segmenter in float and in 8 bits side by side; see `recipes.quantize`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from bneck.devices.head_models import check_engine
from bneck.devices.runtimes import Runtime
from bneck.export.detector_file import FileDetector, export_detector
from bneck.export.segmenter_file import FileSegmenter, export_segmenter
from bneck.nets.calibrate import layer_errors
from bneck.nets.quantize import Quantized
from bneck.nets.quantize_heads import AnyNet
from bneck.recipes import detect, segment_runs
from bneck.recipes.calibration import CALIBRATING, calibrated, read_images
from bneck.recipes.detect_judge import judge_net
from bneck.recipes.export import size_mb
from bneck.recipes.progress import Progress
from bneck.recipes.quantize_times import time_rows
from bneck.recipes.segment_export import file_size
from bneck.recipes.segment_files import judge_file, scenes_of_file
from bneck.recipes.splits import run_annotated, run_source
from bneck.records.run import RunFolder, task_run
from bneck.specs.normalisation import IMAGENET, Normalisation

WORST = 10  # layers named in the report
CHECKED, PROBED = (
    4,
    4,
)  # images that files are compared on, and that layers are rounded one by one on


def quantize_heads(
    run: str | Path,
    engine: Runtime,
    *,
    data: str | Path | None,
    rounds: int,
    out: str | Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """What `recipes.quantize.quantize` does, for a run of detection or segmentation.

    Raises:
        InputError: no finished run, its data is gone, or the runtime has no such files.
    """
    check_engine(engine)
    folder = RunFolder(task_run(run))
    task: _Task = _Detection(folder) if folder.kind() == "detect" else _Segmentation(folder)
    place = Path(out) if out is not None else folder.path / "8bit"
    train, val = (run_source(task.record, split, data) for split in ("train", "val"))
    images = read_images(train, task.size, CALIBRATING, task.normalisation)
    checked = read_images(val, task.size, CHECKED, task.normalisation)
    post = calibrated(task.net, images, engine.name, progress)
    rows = []
    for name, quantized in (("fp32", None), ("ptq", post)):
        path = place / f"{name}{engine.suffix}"
        check = task.export(path, checked, engine, quantized)
        judged = task.judge(path, engine, progress)
        rows.append({"name": name, **judged, "size_mb": size_mb(path), "file": str(path), **check})
    time_rows(rows, engine.name, rounds, progress)
    errors = layer_errors(task.net, post, images[:PROBED])
    return {
        "network": task.name,
        "data": str(data if data is not None else task.record["settings"]["data"]),
        "images": {"train": len(images), "val": len(val.names)},
        "metrics": dict(task.metrics),
        "runtime": engine.name,
        "runtime_version": engine.version,
        "epochs": 0.0,
        "rows": rows,
        "layers": [asdict(error) for error in errors[:WORST]],
    }


class _Task(ABC):
    """What the two tasks do differently. `metrics` are keys of what `judge` gives, with their words."""

    record: dict[str, Any]
    net: AnyNet
    name: str
    size: tuple[int, int]
    normalisation: Normalisation
    metrics: Sequence[tuple[str, str]]

    @abstractmethod
    def export(
        self, path: Path, checked: Tensor, engine: Runtime, quantized: Quantized | None
    ) -> dict[str, Any]:
        """Write and check a file."""

    @abstractmethod
    def judge(self, path: Path, engine: Runtime, progress: Progress) -> dict[str, Any]:
        """The file's scores on val."""


class _Detection(_Task):
    metrics = (("AP", "mAP"), ("AP50", "AP50"))

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.record, net = detect.load_run(folder)
        self.detector = net
        self.net = net
        self.name = net.detector.network.name
        self.size = (net.detector.resolution, net.detector.resolution)
        self.normalisation = net.normalisation

    def export(
        self, path: Path, checked: Tensor, engine: Runtime, quantized: Quantized | None
    ) -> dict[str, Any]:
        classes = self.record["classes"]
        return export_detector(
            self.detector,
            path,
            checked,
            classes=classes,
            decode=False,
            engine=engine,
            quantized=quantized,
        )

    def judge(self, path: Path, engine: Runtime, progress: Progress) -> dict[str, Any]:
        annotated = run_annotated(self.record["settings"], "val")
        numbers = judge_net(FileDetector(path, engine), annotated, "val", progress).numbers
        return {key: numbers[key] for key, _ in self.metrics}


class _Segmentation(_Task):
    metrics = (("miou", "mIOU"), ("pixels", "pixels"))

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.record, net = segment_runs.load_run(folder)
        self.segmenter = net
        self.net = net
        self.name = net.seg.name
        self.size = file_size(self.record, run_source(self.record, "val"))
        self.normalisation = IMAGENET

    def export(
        self, path: Path, checked: Tensor, engine: Runtime, quantized: Quantized | None
    ) -> dict[str, Any]:
        labels = self.record["labels"]
        return export_segmenter(
            self.segmenter,
            path,
            checked,
            labels=labels,
            argmax=False,
            engine=engine,
            quantized=quantized,
        )

    def judge(self, path: Path, engine: Runtime, progress: Progress) -> dict[str, Any]:
        file, where = FileSegmenter(path, engine), self.folder.model  # whose folder knows the data
        scenes = scenes_of_file(where, file, None, split="val", classes=None, ignore=None)
        found = judge_file(file, scenes, progress).score
        return {"miou": found.miou, "pixels": found.pixels}
