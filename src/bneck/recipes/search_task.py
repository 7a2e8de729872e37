"""What follows from a search's task, data and options, before anything is begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from bneck.data.folders import list_images
from bneck.data.pairs import list_pairs
from bneck.recipes.detect import EPOCHS as DETECT_EPOCHS
from bneck.recipes.detect import read_splits
from bneck.recipes.run import METRICS
from bneck.recipes.segment import EPOCHS as SEGMENT_EPOCHS
from bneck.recipes.settings import DetectTask, SegmentTask
from bneck.specs.errors import InputError
from bneck.specs.text import resolve
from bneck.tasks.detect.head import ssdlite
from bneck.tasks.segment.head import Head

BUILTIN_IMAGES, BUILTIN_RESOLUTION, BUILTIN_EPOCHS, BUILTIN_STEPS = 5_000, 48, 6, 8
FOLDER_EPOCHS, FOLDER_STEPS = 30, 50
SEEDS = {"classify": "v3-small", "detect": "v3-small+dagger", "segment": "v3-small+rf2"}

Size = tuple[int, int]


class TaskOptions(TypedDict, total=False):
    """What a search for a detector or a segmenter may be told besides.

    Of a detector, as in `train_detect`: images, loss. Of a segmenter, as in `SegmentOptions`: head,
    filters, output_stride, global_pool, classes, ignore, size, crop, balance.
    """

    images: str | Path | None
    loss: str
    head: Head
    filters: int
    output_stride: int | None
    global_pool: bool
    classes: str | Path | None
    ignore: Sequence[int]
    size: Size | None
    crop: Size | None
    balance: bool


DETECT_OPTIONS = ("images", "loss")
SEGMENT_OPTIONS = tuple(name for name in TaskOptions.__annotations__ if name not in DETECT_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What follows from a search's task and data; what was given stands."""

    seed_network: str
    images: int
    resolution: int
    epochs: float
    steps: int = FOLDER_STEPS
    detect: DetectTask | None = None
    segment: SegmentTask | None = None

    def settings(self) -> dict[str, Any]:
        """As `recipes.settings.small_data` takes it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def about(
    task: str,
    folder: Path | None,
    options: Mapping[str, Any],
    *,
    seed_network: str | None,
    resolution: int | None,
    epochs: float | None,
    steps: int | None,
    seed: int,
) -> About:
    """Look at the data and the options of a search's task.

    Raises:
        InputError: no such task or data, or options of another task.
    """
    if task not in METRICS:
        raise InputError(f"there is no task {task!r}; known are {', '.join(METRICS)}")
    allowed = {"detect": DETECT_OPTIONS, "segment": SEGMENT_OPTIONS}.get(task, ())
    if foreign := [name for name in options if name not in allowed]:
        raise InputError(
            f"{', '.join(foreign)} cannot be given for the task {task}; leave it out or choose another task"
        )
    network = SEEDS[task] if seed_network is None else seed_network
    if task == "classify":
        found = _classifying(folder, network, seed)
    elif folder is None:
        raise InputError(
            f"a search for the task {task} needs images of yours; name a folder by --data"
        )
    elif task == "detect":
        found = _detecting(folder, network, options)
    elif resolution is not None:
        raise InputError("a segmenter has a size, not a resolution; write --size 512x1024")
    else:
        found = _segmenting(folder, network, seed, options)
    given = {"resolution": resolution, "epochs": epochs, "steps": steps}
    return replace(found, **{name: v for name, v in given.items() if v is not None})  # type: ignore[arg-type]


def _classifying(folder: Path | None, seed_network: str, seed: int) -> About:
    resolution = resolve(seed_network).resolution  # refuses an unknown network
    if folder is None:
        return About(
            seed_network=seed_network,
            images=BUILTIN_IMAGES,
            resolution=BUILTIN_RESOLUTION,
            epochs=BUILTIN_EPOCHS,
            steps=BUILTIN_STEPS,
        )
    return About(
        seed_network=seed_network,
        images=len(list_images(folder, seed=seed).train),
        resolution=resolution,
        epochs=FOLDER_EPOCHS,
    )


def _detecting(folder: Path, seed_network: str, options: Mapping[str, Any]) -> About:
    detector, images = ssdlite(seed_network), options.get("images")
    train, _ = read_splits(folder, images)
    return About(
        seed_network=seed_network,
        images=len(train.pictures),
        resolution=detector.resolution,
        epochs=DETECT_EPOCHS,
        detect=DetectTask(
            images=None if images is None else str(Path(images).resolve()),
            loss=options.get("loss", "focal"),
            extras=detector.extras,
        ),
    )


def _segmenting(folder: Path, seed_network: str, seed: int, options: Mapping[str, Any]) -> About:
    named = {k: v for k, v in options.items() if k not in ("classes", "ignore")}
    classes, ignore = options.get("classes"), tuple(options.get("ignore", ()))
    size = options.get("size")
    scenery = list_pairs(
        folder, classes=None if classes is None else Path(classes), ignore=ignore, seed=seed
    )
    return About(
        seed_network=seed_network,
        images=len(scenery.split("train")),
        # A segmenter has a size; pictures of its network show the maps of its height.
        resolution=size[0] if size else resolve(seed_network).resolution,
        epochs=SEGMENT_EPOCHS,
        segment=SegmentTask(
            classes=None if classes is None else str(Path(classes).resolve()),
            ignore=ignore,
            **named,
        ),
    )
