"""Detection from a folder of annotated images to a judged, exported detector."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bneck.costs.detector import count_detector
from bneck.data.coco import Annotated, find_annotations, read_coco
from bneck.data.pictures import (
    MARGIN,
    Batch,
    BoxAugment,
    Stored,
    box_batches,
    eval_images,
    store,
)
from bneck.export.detector_file import export_detector
from bneck.nets.detector import DetectorNet, build_detector
from bneck.nets.weights import load_weights, save_weights
from bneck.recipes.detect_files import check_classes, evaluate_file, split_of
from bneck.recipes.detect_judge import EVAL_BATCH, judge_split
from bneck.recipes.detect_start import fitting, some_images, start_from
from bneck.recipes.folder import begin, check_empty, finish, fresh_folder, go_on, new_record
from bneck.recipes.progress import Progress, Silent, Steps
from bneck.recipes.splits import run_annotated
from bneck.records.files import locked, write_bytes, write_json, write_text
from bneck.records.imported import normalisation
from bneck.records.run import RunFolder, task_run
from bneck.report.detect import write_detect_report
from bneck.specs.detector import Detector, ssdlite
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, to_text
from bneck.specs.transforms import with_resolution
from bneck.tasks.detect import Teacher
from bneck.train.journal import Journal
from bneck.train.loop import Lessons, Settings, fit

KIND = "detect"
EPOCHS, BATCH, LR = 60.0, 16, 0.002
CHECKED = 4  # images that an exported file is compared on


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectSettings:
    """Everything that a training depends on besides the detector. `data` and the others are paths."""

    data: str
    images: str | None
    start: str | None
    loss: str
    training: Settings
    augment: BoxAugment = field(default_factory=BoxAugment)


def train_detect(
    network: str | Path | NetSpec,
    data: str | Path,
    *,
    images: str | Path | None = None,
    resolution: int | None = None,
    loss: str = "focal",
    start: str | Path | None = None,
    epochs: float | None = None,
    batch: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train SSDLite round a network, judge it by COCO's numbers, export it.

    The authors' loss, matching and crops (docs/detection.md); for short trainings changed: RMSProp
    with batches of 16 and a cosine, batch norm's momentum 0.1, an average over some 100 steps.

    `bneck train v3-small+dagger --task detect --data bccd --resolution 160` takes some three minutes of one
    core for 205 images; mAP 29.7 (docs/results.md).

    Args:
        network: a zoo name (`v3-small+dagger`), a spec file, a run's folder or a spec.
        data: a folder with COCO json files for train and val; see `data.coco.find_annotations`.
        images: the folder of the images, where they do not lie beside the json files.
        resolution: side of the input; None takes the name's, else 320.
        loss: "focal" as V3 was trained, or "mining" as V1 and V2.
        start: the folder of an import or a classification run to take the backbone from, with its
            padding and the normalisation of its input; a narrower `network` (`+dagger`) keeps the
            strongest channels. None trains from scratch.
        epochs: of training, 60 by default.
        batch: images a step, 16 by default, fewer where an epoch would have fewer than four steps.
        lr: the peak rate, 0.002 for batches of 16 by default.
        seed: everything random follows from it.
        out: the run's folder, new or empty; None makes one under runs/.
        progress: receives what happens; None tells nobody.

    Returns:
        The run's record, as in its `run.json`, with its folder under "run".

    Raises:
        InputError: wrong input; the message is one sentence.
    """
    train, val = read_splits(Path(data), images)
    detector = ssdlite(network, classes=len(train.classes), resolution=resolution)
    if start is not None:
        detector = fitting(detector, Path(start))
    Teacher(detector, loss)  # refuses an unknown loss
    size = usual_batch(len(train.pictures)) if batch is None else batch
    settings = DetectSettings(
        data=str(Path(data).resolve()),
        images=None if images is None else str(Path(images).resolve()),
        start=None if start is None else str(Path(start).resolve()),
        loss=loss,
        training=detect_training(EPOCHS if epochs is None else epochs, size, lr, seed),
    )
    folder = RunFolder(Path(out) if out is not None else fresh_folder(KIND))
    check_empty(folder.path)
    net = build_detector(detector, seed=seed)
    if start is not None:
        start_from(net, Path(start), ())  # refuses before there is a folder
    record = _record(net, settings, train, val)
    spec = with_resolution(detector.network, detector.resolution)
    told = progress or Silent()
    return begin(folder, spec, record, lambda folder, _: _carry(folder, told))


def _record(
    net: DetectorNet, settings: DetectSettings, train: Annotated, val: Annotated
) -> dict[str, Any]:
    """What `run.json` holds at the beginning."""
    detector, costs = net.detector, count_detector(net.detector)
    return {
        **new_record(KIND, "bneck.train_detect(...)"),
        "name": detector.network.name,
        "detector": {"resolution": detector.resolution, "extras": list(detector.extras)},
        "classes": list(train.classes),
        "category_ids": list(train.ids),
        "params": costs.params,
        "madds": costs.madds,
        "normalisation": net.normalisation.as_json(),
        "data": {
            "train": [str(train.file), len(train.pictures), _objects(train)],
            "val": [str(val.file), len(val.pictures), _objects(val)],
            "dropped": [[d.what, d.reason] for part in (train, val) for d in part.dropped],
        },
        "settings": _stored(settings),
    }


def adopt_detect(
    path: Path,
    net: DetectorNet,
    weights: Path,
    settings: DetectSettings,
    progress: Progress,
) -> dict[str, Any]:
    """A run of detection whose training took place elsewhere: judged, exported, reported.

    Args:
        path: the run's folder; one that was broken off is gone on with.
        net: says what the detector is and what input it takes.
        weights: the file of its trained weights.
        settings: what it was trained by.
        progress: receives what happens.
    """
    folder = RunFolder(path)
    if not folder.run_json.is_file():
        train, val = read_splits(Path(settings.data), settings.images)
        spec = with_resolution(net.detector.network, net.detector.resolution)
        write_text(folder.spec, to_text(spec))
        write_bytes(folder.weights, weights.read_bytes())
        write_json(folder.run_json, _record(net, settings, train, val))
    return go_on(folder, KIND, lambda folder, _: _carry(folder, progress))


def resume_detect(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Go on with a training that was broken off, from its last checkpoint.

    Raises:
        InputError: no run of detection, or one that another process works on.
    """
    told = progress or Silent()
    return go_on(RunFolder(Path(run)), KIND, lambda folder, _: _carry(folder, told))


def evaluate_detect(
    run: str | Path,
    data: str | Path | None = None,
    *,
    split: str = "val",
    images: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge a finished run's detector: COCO's twelve numbers, those of every class, a sheet.

    Writes `detections-SPLIT.json`, as COCO's server takes it, and `sheet-SPLIT.png` into the run's
    folder, and the numbers into its record and report. Of an exported file nothing is written.

    Args:
        run: a finished run's folder, or a file that export has written, which answers in its own
            runtime then.
        data: a folder with a json file for the split, or a json file; None takes the run's own, of a
            file that of the run in whose folder it lies.
        split: "train", "val", "test" or another word of the file's name.
        images: the folder of the images, where they do not lie beside the json file.
        progress: receives what happens; None tells nobody.

    Raises:
        InputError: no such run or split, or other classes than the run's.
    """
    folder, told = RunFolder(task_run(run)), progress or Silent()
    if folder.path.is_file():
        return evaluate_file(folder.path, data, split=split, images=images, progress=told)
    record, net = load_run(folder)
    annotated = split_of(record["settings"], folder.path, data, split, images)
    check_classes(annotated, tuple(record["classes"]), str(folder.path))
    with locked(folder.path / ".lock"):
        found = judge_split(folder, net, annotated, split, told)
        record.setdefault("evaluations", {})[split] = found
        write_json(folder.run_json, record)
        write_detect_report(folder.path)
    return {"run": str(folder.path), "name": record["name"], **found}


def load_run(folder: RunFolder) -> tuple[dict[str, Any], DetectorNet]:
    """The record and the trained net of a finished run.

    Raises:
        InputError: no run of detection, or not finished.
    """
    record = read_record(folder)
    if not folder.weights.is_file():
        raise InputError(f"{folder.path} is not finished; go on with: bneck train --resume RUN")
    net = DetectorNet(_detector(folder, record))
    try:
        net.load_state_dict(load_weights(folder.weights))
    except RuntimeError:
        raise InputError(
            f"{folder.weights} does not hold the weights of this run's detector; train again"
        ) from None
    net.normalisation = normalisation(folder)
    return record, net.eval()


def read_record(folder: RunFolder) -> dict[str, Any]:
    """The record of a detection run.

    Raises:
        InputError: no run, or one of another kind.
    """
    record = folder.read()
    if record.get("kind") != KIND:
        raise InputError(
            f"{folder.path} is a run of another kind ({record.get('kind')}), not of detection"
        )
    return record


def _carry(folder: RunFolder, progress: Progress) -> dict[str, Any]:
    """From wherever the run stands to its end."""
    record = read_record(folder)
    settings = record["settings"]
    train, val = (run_annotated(settings, split) for split in ("train", "val"))
    check_classes(val, train.classes, str(train.file))
    check_classes(train, tuple(record["classes"]), str(folder.path))  # the data may have changed
    if not folder.weights.is_file():
        _train(folder, record, train, progress)
    record, net = load_run(folder)
    found = judge_split(folder, net, val, "val", progress)
    record["evaluations"] = {"val": found}
    batches = eval_images(
        val,
        resolution=net.detector.resolution,
        batch=EVAL_BATCH,
        normalisation=net.normalisation,
    )
    checked = torch.cat([images for _, _, images in _first(batches)])[:CHECKED]
    progress.stage("export", 2)
    record["export"] = {}
    for name, decode in (("model.onnx", False), ("model-boxes.onnx", True)):
        record["export"][name] = export_detector(
            net, folder.path / name, checked, classes=record["classes"], decode=decode
        )
        progress.advance(1)
    finish(folder, record)
    write_detect_report(folder.path)
    shutil.rmtree(folder.scratch, ignore_errors=True)
    return {"run": str(folder.path), **record}


def _train(folder: RunFolder, record: dict[str, Any], train: Annotated, progress: Progress) -> None:
    start, settings = time.perf_counter(), record["settings"]
    training = Settings(
        **{**settings["training"], "augment": Settings(epochs=1, batch=1, lr=1).augment}
    )
    detector = _detector(folder, record)
    progress.stage("decode the images", len(train.pictures))
    side = round(detector.resolution * MARGIN)
    stored = store(train, side, folder.scratch, name="train", on_image=progress.advance)
    if not any(len(picture.boxes) for picture in stored.annotated.pictures):
        raise InputError(f"{train.file} has no boxes to learn from; annotate some images")
    net = build_detector(detector, seed=training.seed)
    if settings["start"] is not None:
        progress.say(f"the backbone begins as that of {settings['start']}")
        start_from(net, Path(settings["start"]), some_images(stored, net))
    steps = Steps(progress, "train", Journal(folder.path, batch=training.batch))
    augment = BoxAugment(**settings["augment"])
    lessons = detect_lessons(stored, net, training, loss=settings["loss"], augment=augment)
    fit(net, lessons, training, checkpoint=folder.scratch / "checkpoint", **steps.watching())
    losses = steps.losses
    record["final_loss"] = float(np.mean(losses[-20:])) if losses else None
    record["train_seconds"] = time.perf_counter() - start
    write_json(folder.run_json, record)
    save_weights(net.state_dict(), folder.weights)


def detect_lessons(
    stored: Stored,
    net: DetectorNet,
    training: Settings,
    *,
    loss: str,
    augment: BoxAugment,
    indices: npt.NDArray[np.int64] | None = None,
) -> Lessons[Batch]:
    """What a detector learns from: stored images, all or those of `indices`, and its loss."""

    def batches(epoch: int, first: int) -> Iterable[Batch]:
        return box_batches(
            stored,
            resolution=net.detector.resolution,
            batch=training.batch,
            augment=augment,
            seed=training.seed,
            epoch=epoch,
            first=first,
            normalisation=net.normalisation,
            indices=indices,
        )

    images = len(stored.images) if indices is None else len(indices)
    return Lessons(images=images, batches=batches, loss=Teacher(net.detector, loss))


def _stored(settings: DetectSettings) -> dict[str, Any]:
    """Settings as plain values, without what only classification has."""
    values = asdict(settings)
    for name in ("augment", "smoothing"):
        del values["training"][name]
    return values


def usual_batch(images: int) -> int:
    """Images a step: 16, fewer where an epoch would have fewer than four steps."""
    return min(BATCH, max(1, images // 4))


def detect_training(epochs: float, batch: int, lr: float | None, seed: int) -> Settings:
    """How a detector is trained, see `train_detect`.

    Raises:
        InputError: a value that cannot be.
    """
    for name, value in (("epochs", epochs), ("batch", batch), ("lr", LR if lr is None else lr)):
        if not 0 < value < float("inf"):
            raise InputError(f"{name} is {value}; it must be above 0")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must be at least 0 and below 2^32")
    return Settings(
        epochs=epochs,
        batch=batch,
        lr=LR * batch / BATCH if lr is None else lr,
        warmup=min(1.0, epochs / 10),
        weight_decay=4e-5,
        average=0.99,
        bn_momentum=0.1,
        seed=seed,
    )


def read_splits(root: Path, images: str | Path | None) -> tuple[Annotated, Annotated]:
    """The train and val splits of a folder.

    Raises:
        InputError: there are none, or they have not the same classes.
    """
    files = find_annotations(root)
    beside = None if images is None else Path(images)
    train, val = (read_coco(files[name], images=beside) for name in ("train", "val"))
    check_classes(val, train.classes, str(train.file))
    return train, val


def _detector(folder: RunFolder, record: dict[str, Any]) -> Detector:
    stored = record["detector"]
    return Detector(
        network=load(folder.spec),
        classes=len(record["classes"]),
        resolution=stored["resolution"],
        extras=tuple(stored["extras"]),
    )


def _objects(annotated: Annotated) -> int:
    return sum(int((~picture.crowd).sum()) for picture in annotated.pictures)


def _first(batches: Any) -> list[Any]:
    return [next(iter(batches))]
