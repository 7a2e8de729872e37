"""Segmentation from a folder of images and masks to a judged network: train, evaluate, resume."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from bneck.data.pairs import Scenery, list_pairs
from bneck.data.scenes import Scenes, as_batch
from bneck.nets.segmenter import SegmentNet, build_segmenter
from bneck.nets.weights import save_weights
from bneck.recipes.folder import begin, finish, fresh_folder, go_on, new_record
from bneck.recipes.progress import Progress, Silent, Steps
from bneck.recipes.segment_export import write_model
from bneck.recipes.segment_files import judge_file, open_segmenter, scenery_of, scenes_of_file
from bneck.recipes.segment_runs import load_run, save_picture
from bneck.recipes.segmenters import KIND, named_segmenter, run_segmenter
from bneck.recipes.splits import run_scenery
from bneck.records.files import write_bytes, write_json, write_text
from bneck.records.run import RunFolder, task_run
from bneck.report.overlay import overlay
from bneck.report.segment import write_segment_report
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.segmenter import Head, Segmenter
from bneck.specs.text import to_text
from bneck.tasks.segment import Evaluation, Score, predict
from bneck.tasks.segment import evaluate as evaluate_scenes
from bneck.train.journal import Journal
from bneck.train.segment import SegmentSettings, train_segmenter

CROP = 769  # side of the DeepLab line's crops
EPOCHS, BATCH, LR = 50.0, 8, 0.1
LEAST_WINDOW = 32  # a side of a window that is judged by: one pixel of the coarsest map
SHOWN = 3  # best and worst images that are drawn

Size = tuple[int, int]


class SegmentOptions(TypedDict, total=False):
    """What `train_segment` may be told; every one has a default.

    `head`, `filters`, `output_stride` and `global_pool` are those of `named_segmenter`. `classes` is
    the class list where the data holds none, `ignore` are ids of masks that mean no class, besides
    255. Images are brought to `size`, (height, width) in pixels, and stay as they are without;
    `crop` is trained on, the whole image, at most 769 a side, without. `epochs` is 50, `batch` 8 and
    `lr`, the first rate, 0.1 for 8 images a step. `balance` weighs classes in the loss by the median
    class's pixels over theirs. Everything random follows from `seed`.
    """

    head: Head
    filters: int
    output_stride: int | None
    global_pool: bool
    classes: str | Path | None
    ignore: Sequence[int]
    size: Size | None
    crop: Size | None
    epochs: float | None
    batch: int | None
    lr: float | None
    balance: bool
    seed: int


def train_segment(
    network: str | Path | NetSpec,
    data: str | Path,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Unpack[SegmentOptions],
) -> dict[str, Any]:
    """Train R-ASPP or LR-ASPP round a network from scratch, and judge it.

    By the protocol of the DeepLab line, which the paper refers to (6.4): SGD with momentum 0.9, poly
    schedule, random scale from 0.5 to 2 in steps of 0.25, crop, flip, single-scale evaluation of
    whole images. The paper's number of steps is unpublished. Changed for short trainings: batch
    norm's momentum 0.1, a warm-up of an epoch at most, an average over some 100 steps.

    `bneck train v3-small+rf2 --task segment --data camvid --classes classes.txt --size 180x240` takes
    about a second a batch of 8 on one core; docs/results.md has what it reached.

    Args:
        network: a zoo name, a spec file, a run's folder; `+rf2` is the paper's reduced tail.
        data: a folder, see `bneck.data.pairs.list_pairs`.
        out: the run's folder, new or empty; None makes one under runs/.
        progress: receives what happens; None tells nobody.
        options: see `SegmentOptions`.

    Returns:
        The run's record, as in its `run.json`, with its folder under "run".

    Raises:
        InputError: wrong input; the message is one sentence.
    """
    ignore, seed = options.get("ignore", ()), options.get("seed", 0)
    scenery = list_pairs(
        Path(data), classes=_path(options.get("classes")), ignore=ignore, seed=seed
    )
    seg = named_segmenter(
        network,
        classes=len(scenery.labels.names),
        head=options.get("head", "lraspp"),
        filters=options.get("filters", 128),
        output_stride=options.get("output_stride"),
        global_pool=options.get("global_pool", False),
    )
    settings = segment_settings(scenery, Path(data), options)
    segment_training(settings).check()
    folder = RunFolder(Path(out) if out is not None else fresh_folder(KIND))
    record = _new_record(seg, scenery, settings)
    told = progress or Silent()
    return begin(folder, seg.network, record, lambda folder, _: _carry(folder, told))


def adopt_segment(
    path: Path,
    seg: Segmenter,
    weights: Path,
    data: Path,
    options: SegmentOptions,
    progress: Progress,
) -> dict[str, Any]:
    """A run of segmentation whose training took place elsewhere: judged, exported, reported.

    Args:
        path: the run's folder; one that was broken off is gone on with.
        seg: what was trained.
        weights: the file of its trained weights.
        data: the folder that it was trained on.
        options: what it was trained by.
        progress: receives what happens.
    """
    folder = RunFolder(path)
    if not folder.run_json.is_file():
        scenery = list_pairs(
            data, classes=_path(options.get("classes")), ignore=options.get("ignore", ()),
            seed=options.get("seed", 0),
        )  # fmt: skip
        write_text(folder.spec, to_text(seg.network))
        write_bytes(folder.weights, weights.read_bytes())
        write_json(
            folder.run_json, _new_record(seg, scenery, segment_settings(scenery, data, options))
        )
    return go_on(folder, KIND, lambda folder, _: _carry(folder, progress))


def resume_segment(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Go on with a training that was broken off, from its last checkpoint.

    Raises:
        InputError: no run of segmentation, or one that another process works on.
    """
    told = progress or Silent()
    return go_on(RunFolder(Path(run)), KIND, lambda folder, _: _carry(folder, told))


def evaluate_segment(
    run: str | Path,
    data: str | Path | None = None,
    *,
    split: str = "val",
    classes: str | Path | None = None,
    ignore: Sequence[int] | None = None,
    sliding: Size | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge a run's segmenter on a split: mIOU from one confusion matrix, at the masks' own size.

    Args:
        run: a finished run's folder, or a file that export has written, which answers in its own
            runtime and at its own size then.
        data: None takes the data that the run was trained on, of a file that of the run in whose
            folder it lies.
        split: "train", "val" or "test".
        classes: the class list; None takes the run's, or that of `data`.
        ignore: ids that mean no class; None takes the run's.
        sliding: a window (height, width); None looks at whole images.
        progress: receives what happens; None tells nobody.

    Raises:
        InputError: no such run or split, or other classes than the run's.
    """
    folder, told = RunFolder(task_run(run)), progress or Silent()
    if folder.path.is_file():
        if sliding is not None:
            raise InputError(f"{folder.path} is made for one size; windows are for a run's folder")
        file = open_segmenter(folder.path)
        scenes = scenes_of_file(
            folder.path, file, data, split=split, classes=classes, ignore=ignore
        )
        found = _score_record(split, judge_file(file, scenes, told), scenes)
        precision = file.session.metadata.get("precision", "fp32")
        return {"file": str(folder.path), "precision": precision, **found}
    if sliding is not None and min(sliding) < LEAST_WINDOW:
        raise InputError(
            f"the window is {sliding[0]} x {sliding[1]} pixels; it must be at least {LEAST_WINDOW} a side"
        )
    record, net = load_run(folder)
    settings, names = record["settings"], record["labels"]["names"]
    scenery = scenery_of(settings, folder.path, names, data, classes, ignore)
    scenes = _scenes(scenery, split, settings, judged=True)
    return _score_record(split, _judge(net, scenes, told, split, sliding), scenes)


def _carry(folder: RunFolder, progress: Progress) -> dict[str, Any]:
    """From wherever the run stands to its end."""
    start = time.perf_counter()
    record = folder.read()
    settings = record["settings"]
    scenery = run_scenery(settings)
    if not folder.weights.is_file():
        _train(folder, record, scenery, progress)
    _, net = load_run(folder)
    record["scores"] = []
    for split in scenery.splits:
        if split == "train":
            continue
        scenes = _scenes(scenery, split, settings, judged=True)
        found = _judge(net, scenes, progress, split)
        record["scores"].append(_score_record(split, found, scenes))
        if split == "val":
            record["shown"] = _draw(folder, net, scenes, found, record)
            size = (settings["size"][0], settings["size"][1]) if settings["size"] else None
            record["export"] = write_model(
                net, record, scenes, folder.model, size=size, argmax=False
            )
    record["seconds"] = record.get("seconds", 0.0) + time.perf_counter() - start
    finish(folder, record)
    write_segment_report(folder.path)
    shutil.rmtree(folder.scratch, ignore_errors=True)
    return {"run": str(folder.path), **record}


def _train(folder: RunFolder, record: dict[str, Any], scenery: Scenery, progress: Progress) -> None:
    seg = run_segmenter(folder.path)
    scenes = _scenes(scenery, "train", record["settings"])
    progress.stage("read the masks", len(scenes))
    survey = scenes.survey(progress.advance)
    if survey.empty:
        progress.say(
            f"{len(survey.empty)} of {len(scenes)} masks are ignored altogether and left out, the first is "
            f"{scenes.pairs[survey.empty[0]].mask}"
        )
    unseen = [
        n for n, pixels in zip(scenery.labels.names, survey.pixels, strict=True) if not pixels
    ]
    if unseen:
        progress.say(f"no mask of train has a pixel of {', '.join(unseen)}")
    record["survey"] = {"pixels": survey.pixels.tolist(), "ignored": len(survey.empty)}
    indices = np.setdiff1d(np.arange(len(scenes)), survey.empty)
    training = segment_training(record["settings"])
    if record["settings"]["balance"]:
        training = replace(training, weights=survey.weights())
    net = build_segmenter(seg, seed=training.seed)
    steps = Steps(progress, "train", Journal(folder.path, batch=training.batch))
    checkpoint = folder.scratch / "checkpoint.safetensors"
    train_segmenter(net, scenes, indices, training, checkpoint=checkpoint, **steps.watching())
    losses = steps.losses
    record["final_loss"] = float(np.mean(losses[-20:])) if losses else None
    write_json(folder.run_json, record)
    save_weights(net.state_dict(), folder.weights)


def segment_settings(scenery: Scenery, data: Path, options: SegmentOptions) -> dict[str, Any]:
    """Plain values for the record, defaults filled in."""
    classes, size, crop = options.get("classes"), options.get("size"), options.get("crop")
    epochs, batch, lr = options.get("epochs"), options.get("batch"), options.get("lr")
    batch = BATCH if batch is None else batch
    return {
        "data": str(data.resolve()),
        "classes": None if classes is None else str(Path(classes).resolve()),
        "ignore": list(options.get("ignore", ())),
        "size": list(size) if size else None,
        "crop": list(crop or _crop(scenery, size)),
        "epochs": EPOCHS if epochs is None else epochs,
        "batch": batch,
        "lr": LR * batch / BATCH if lr is None else lr,
        "balance": options.get("balance", False),
        "seed": options.get("seed", 0),
    }


def _new_record(seg: Segmenter, scenery: Scenery, settings: dict[str, Any]) -> dict[str, Any]:
    labels = scenery.labels
    return {
        **new_record(KIND, "bneck.train_segment(...)"),
        "segmenter": seg.settings(),
        "labels": {
            "names": labels.names,
            "colours": labels.colours,
            "ids": [int(v) for v in labels.ids()[: len(labels.names)]],
        },
        "images": {name: len(pairs) for name, pairs in scenery.splits.items()},
        "settings": settings,
    }


def segment_training(settings: dict[str, Any]) -> SegmentSettings:
    """How a segmenter is trained, from the settings of a record."""
    usual = usual_training(settings["epochs"], settings["batch"], settings["seed"])
    return replace(usual, lr=settings["lr"], crop=(settings["crop"][0], settings["crop"][1]))


def usual_training(epochs: float, batch: int, seed: int) -> SegmentSettings:
    """How a segmenter is trained unless it is said otherwise, see `train_segment`."""
    return SegmentSettings(
        epochs=epochs,
        batch=batch,
        lr=LR * batch / BATCH,
        crop=(CROP, CROP),
        warmup=min(1.0, epochs / 10),
        average=0.99,
        bn_momentum=0.1,
        seed=seed,
    )


def _scenes(
    scenery: Scenery, split: str, settings: dict[str, Any], *, judged: bool = False
) -> Scenes:
    size = settings["size"]
    return Scenes(
        scenery.split(split),
        scenery.labels,
        size=(size[0], size[1]) if size else None,
        whole_masks=judged,
    )


def _judge(
    net: SegmentNet,
    scenes: Scenes,
    progress: Progress,
    split: str,
    sliding: Size | None = None,
) -> Evaluation:
    progress.stage(f"judge on {split}", len(scenes))
    return evaluate_scenes(net, scenes, sliding=sliding, on_scene=progress.advance)


def _score_record(split: str, found: Evaluation, scenes: Scenes) -> dict[str, Any]:
    score: Score = found.score
    names = scenes.labels.names
    return {
        "split": split,
        "images": len(scenes),
        "miou": _number(score.miou),
        "pixels": _number(score.pixels),
        "iou": {name: _number(value) for name, value in zip(names, score.iou, strict=True)},
    }


def _draw(
    folder: RunFolder, net: SegmentNet, scenes: Scenes, found: Evaluation, record: dict[str, Any]
) -> list[dict[str, Any]]:
    """Overlays of the best and the worst images, with what the run's record says of them."""
    order = [i for i in np.argsort(found.images) if not math.isnan(found.images[i])]
    worst, best = order[:SHOWN], order[::-1][: min(SHOWN, len(order) - SHOWN)]
    shown = []
    for what, indices in (("best", best), ("worst", worst)):
        for rank, index in enumerate(indices, start=1):
            image = scenes.read(int(index))[0]
            size = (image.shape[0], image.shape[1])
            labels = record["labels"]
            page = overlay(
                image, predict(net, as_batch(image), size), labels["names"], labels["colours"]
            )
            name = f"{what}-{rank}.png"
            save_picture(page, folder.path / name)
            pair = scenes.pairs[int(index)]
            shown.append({"file": name, "image": str(pair.image), "miou": found.images[index]})
    return shown


def _crop(scenery: Scenery, size: Size | None) -> Size:
    if size is None:
        first = Scenes(scenery.split("train")[:1], scenery.labels).read(0)[1]
        size = (first.shape[0], first.shape[1])
    return min(size[0], CROP), min(size[1], CROP)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
