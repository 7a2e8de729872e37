"""How a search trains and judges detectors: images stored once, COCO's mAP as the judge."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bneck.data.coco import Annotated, ground_truth
from bneck.data.pictures import MARGIN, BoxAugment, Stored, store, varied
from bneck.nets.detector import DetectorNet, build_detector
from bneck.nets.shrink_wrapped import shrink_detector
from bneck.nets.weights import load_weights
from bneck.recipes.detect import (
    DetectSettings,
    adopt_detect,
    detect_lessons,
    evaluate_detect,
    read_splits,
)
from bneck.recipes.detect_export import export_detect
from bneck.recipes.detect_judge import EVAL_BATCH, detected, results
from bneck.recipes.held_out import Indices, held_out
from bneck.recipes.progress import Silent
from bneck.recipes.run import Run
from bneck.recipes.shipping import format_of
from bneck.recipes.trainer import Judged
from bneck.records.files import write_bytes
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import Ssdlite
from bneck.tasks.average_precision import average_precision
from bneck.tasks.boxes import Found
from bneck.tasks.detect import Teacher, predict
from bneck.train.loop import Settings, fit

CHANCE = 0.005  # mAP of a detector that has learned nothing
ANNOTATED = "annotated.pickle"  # train and val, in the scratch folder
PLAIN = BoxAugment(crop=False, flip=False, colour=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectTrainer:
    """Which images: a folder with COCO json files, and where their pixels are stored for all processes."""

    data: Path
    images: Path | None
    scratch: Path
    resolution: int
    loss: str
    wrapper: Ssdlite
    heldout_share: float
    seed: int

    @property
    def metric(self) -> str:
        return "mAP"

    @property
    def chance(self) -> float:
        return CHANCE

    def prepared(self, spec: NetSpec) -> NetSpec:
        return spec

    def open(self) -> _Opened:
        """The stored train images, which of them are held out, and the val split."""
        return _open(self)

    def fitted(self) -> int:
        return len(self.open().fit)

    def build(self, spec: NetSpec, seed: int) -> DetectorNet:
        return build_detector(self.wrapper.detector(spec), seed=seed)

    def load(self, spec: NetSpec, weights: Path) -> DetectorNet:
        net = DetectorNet(self.wrapper.detector(spec))
        net.load_state_dict(load_weights(weights))
        return net.eval()

    def shrink(self, net: DetectorNet, spec: NetSpec) -> DetectorNet:
        return shrink_detector(net, self.wrapper.detector(spec))

    def fit(self, net: DetectorNet, settings: Settings, *, heldout: bool, **how: Any) -> None:
        opened = self.open()
        lessons = detect_lessons(
            opened.train,
            net,
            settings,
            loss=self.loss,
            augment=BoxAugment(),
            indices=opened.fit if heldout else None,
        )
        fit(net, lessons, settings, **how)

    def judge(self, net: DetectorNet, *, heldout: bool) -> Judged:
        """mAP; the precision over all scores and overlaps moves with every box."""
        opened = self.open()
        if heldout:
            kept = _chosen(opened.train.annotated, opened.heldout)
            found = _seen(net, opened.train, opened.heldout)
            pictures = list(kept.pictures)
        else:
            pictures, found, bad = detected(net, opened.val, Silent())
            kept = opened.val.without(bad)
        entries = results(pictures, found, kept.ids)
        score = average_precision(ground_truth(kept), entries)["AP"] or 0.0
        return Judged(score=score, expected=score)

    def ship(self, run: Run, spec: NetSpec, weights: Path) -> dict[str, Any]:
        """The found network as a finished run of detection, in `found` of the search's folder."""
        path = run.folder.found
        settings = DetectSettings(
            data=str(self.data),
            images=None if self.images is None else str(self.images),
            start=None,
            loss=self.loss,
            training=run.settings.training,
        )
        record = adopt_detect(path, self.load(spec, weights), weights, settings, run.progress)
        shipped: dict[str, Any] = {"export": record["export"]["model.onnx"]}
        on = run.settings.deployment
        if not on.is_plain:
            exported = export_detect(
                path, format_of(on), precision=on.precision, progress=run.progress
            )
            file = Path(exported["file"])
            judged = evaluate_detect(file, self.data, images=self.images, progress=run.progress)
            shipped["shipped"] = {
                **exported, "file": f"{path.name}/{file.name}", "score": judged["AP"],
            }  # fmt: skip
        return shipped


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    train: Stored
    fit: Indices
    heldout: Indices
    val: Annotated


@lru_cache(maxsize=1)
def _open(trainer: DetectTrainer) -> _Opened:
    train, val = pickle.loads((trainer.scratch / ANNOTATED).read_bytes())
    side = round(trainer.resolution * MARGIN)
    stored = store(train, side, trainer.scratch, name="train")
    indices = np.arange(len(stored.images))
    return _Opened(stored, *held_out(indices, trainer.heldout_share, trainer.seed), val)


def _chosen(annotated: Annotated, indices: Indices) -> Annotated:
    return replace(annotated, pictures=tuple(annotated.pictures[i] for i in indices))


def _seen(net: DetectorNet, stored: Stored, indices: Indices) -> list[Found]:
    """What a net finds in stored images, whole and unvaried."""
    found: list[Found] = []
    side = net.detector.resolution
    for start in range(0, len(indices), EVAL_BATCH):
        part = indices[start : start + EVAL_BATCH]
        images, _, _ = varied(stored, part, side, PLAIN, (0, 0), net.normalisation)
        found += predict(net, net.detector, images)
    return found


def detect_trainer(run: Run) -> DetectTrainer:
    """Decode the run's images once, for all its processes.

    Raises:
        InputError: no such data, too many bad images, no boxes, or no faster-coco-eval.
    """
    settings, task = run.settings, run.settings.detect
    assert task is not None
    assert run.data is not None
    _check_evaluator()
    images = None if task.images is None else Path(task.images)
    train, val = read_splits(run.data, images)
    trainer = DetectTrainer(
        data=run.data.resolve(),
        images=images,
        scratch=run.folder.scratch / "pack",
        resolution=settings.resolution,
        loss=task.loss,
        wrapper=Ssdlite(classes=len(train.classes), extras=task.extras),
        heldout_share=settings.heldout,
        seed=settings.seed,
    )
    Teacher(trainer.wrapper.detector(settings.seed_spec()), task.loss)  # refuses an unknown loss
    # Read once here and handed to all processes, which neither parse the json nor open the images.
    write_bytes(trainer.scratch / ANNOTATED, pickle.dumps((train, val)))
    run.progress.stage("reading images", len(train.pictures))
    side = round(settings.resolution * MARGIN)
    stored = store(train, side, trainer.scratch, name="train", on_image=run.progress.advance)
    if not any(len(picture.boxes) for picture in stored.annotated.pictures):
        raise InputError(f"{train.file} has no boxes to learn from; annotate some images")
    if "data" not in run.record:
        dropped = [*stored.annotated.dropped, *val.dropped]
        run.record["data"] = {
            "name": run.data.name,
            "classes": list(train.classes),
            "resolution": settings.resolution,
            "train": len(stored.images),
            "val": len(val.pictures),
            "heldout": len(trainer.open().heldout),
            "bad": [[entry.what, entry.reason] for entry in dropped],
        }
        run.save()
    return trainer


def _check_evaluator() -> None:
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError:
        raise InputError(
            "faster-coco-eval is not installed; install it with: pip install 'bneck[detect]'"
        ) from None
