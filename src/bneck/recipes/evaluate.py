"""Accuracy of a trained network on a folder of labelled images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.folders import Item
from bneck.data.images import CROPS, Crop, read_ahead, read_crop
from bneck.data.labels import Labelled, is_image_list, labelled_images, read_classes
from bneck.data.sources import Source, file_source
from bneck.devices.runtimes import file_runtimes, runtime
from bneck.export.files import FileNet
from bneck.nets.build import Net
from bneck.recipes.networks import Network, build
from bneck.recipes.pictures import class_names, record_settings
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.splits import BUILTIN, is_own, run_sources
from bneck.records.imported import class_places
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.tasks.classify import evaluate as judge

BATCH = 32
BAD_SHARE = 0.01  # of the images may be unreadable
IMAGENET = 1000  # classes; some networks have a background class before them


def evaluate(
    network: Network,
    data: str | Path | None = None,
    *,
    crop: str = "central",
    resolution: int | None = None,
    labels: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Top-1, top-5 and loss of a trained network.

    Args:
        network: the folder of a finished search or of an import, or a file that export has written,
            which answers in its own runtime then.
        data: a folder `CLASS/*` (or val/CLASS/* beside train), or images with a labels.csv (columns
            path and index). Class folders are found by the names or WNIDs that the network's record
            or `labels` has; else they are numbered in the order of their names. None, or what the run
            was trained on, takes the run's val images, divided off as they were for training.
        crop: "central", the middle 87.5 % of both sides resized to a square, or "resize", the
            shorter side resized to 256 / 224 of the resolution and the middle square of that.
        resolution: input side in pixels; None takes the network's.
        labels: a list of classes (see `bneck.data.labels.read_classes`), or a labels.csv that lies
            elsewhere.
        progress: receives what happens; None tells nobody.

    Returns:
        top1, top5 (shares), loss (nats), n, and what they were taken with; `notes` are sentences.

    Raises:
        InputError: no weights there, no images, classes that are not the network's, labels for the
            run's own images, or more than one image in a hundred unreadable.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    if crop not in CROPS:
        raise InputError(f"crop is {crop!r}; allowed are {', '.join(CROPS)}")
    listed = None if labels is None else Path(labels)
    net, record, place = _answering(network)
    own = record_settings(place.parent if place.is_file() else place)
    where = data if data is not None else own.get("data") or BUILTIN
    if "data" in own and is_own(own, data) and (listed is None or not is_image_list(listed)):
        fit = _own(class_names(record, net.spec.classes), own, where, listed)
    elif data is not None:
        found = _labelled(Path(data), class_places(record) if record else None, listed)
        fit = _fit(found, net.spec.classes, Path(data))
    else:
        raise InputError(f"--data is needed: a folder of images to judge {network} on")
    side = net.spec.resolution if resolution is None else resolution
    if side < 1:
        raise InputError(f"resolution is {side}; it must be a whole number of at least 1")
    progress.stage(f"evaluating {net.spec.name}", len(fit.images.names))
    batches = _Batches(net, fit, side, crop, progress)  # type: ignore[arg-type]
    accuracy = judge(net, batches, background=fit.background)
    batches.check()
    return {
        "network": str(place),
        "name": net.spec.name,
        "data": str(where),
        **asdict(accuracy),
        "classes": net.spec.classes,
        "crop": crop,
        "resolution": side,
        "padding": net.spec.padding,
        "normalisation": net.normalisation.as_json(),
        "bad": batches.bad,
        "notes": list(fit.notes),
        "seconds": time.perf_counter() - started,
    }


def _answering(network: Network) -> tuple[Net | FileNet, dict[str, Any] | None, Path]:
    """What answers, what is known of its classes, and where it lies."""
    if not isinstance(network, NetSpec) and Path(network).is_file():
        path = Path(network)
        if engines := file_runtimes(path):
            net = FileNet(path, runtime(engines[0]))
            return net, {"classes": net.classes}, path
    folder = _trained(network)
    record = folder.read() if folder.run_json.is_file() else None
    return build(folder.path), record, folder.path


def _trained(network: Network) -> RunFolder:
    folder = None if isinstance(network, NetSpec) else RunFolder(Path(network))
    if folder is None or not folder.weights.is_file():
        name = network.name if isinstance(network, NetSpec) else network
        raise InputError(
            f"{name} has no trained weights; give the folder of a finished search or of bneck import"
        )
    return folder


def _labelled(root: Path, known: dict[str, int] | None, listed: Path | None) -> Labelled:
    if listed is None:
        return labelled_images(root, known=known)
    if is_image_list(listed):
        return labelled_images(root, listed=listed)
    places = read_classes(listed).places
    found = labelled_images(root, known=places)
    if not found.named:
        raise InputError(f"{listed} does not name all class folders of {root}; add those it lacks")
    # Their indices are the list's, which may leave the background out.
    return Labelled(items=found.items, classes=None, named=False)


@dataclass(frozen=True, slots=True)
class Fit:
    """Images with labels as the scores have them; with `background`, without the first score."""

    images: Source
    background: bool
    notes: tuple[str, ...]


def _own(
    classes: list[str], settings: dict[str, Any], where: str | Path, listed: Path | None
) -> Fit:
    """The val images of the run that a network comes from."""
    if listed is not None:
        raise InputError(
            f"--labels numbers the classes of other images, and the run knows those of {where}, which it "
            "was trained on; leave --labels out"
        )
    found = run_sources(settings)
    if list(found.classes) != classes:
        raise InputError(
            f"{where} has the classes {', '.join(found.classes)} now, and the network was trained on "
            f"{', '.join(classes)}; bring these back, or give other images by --data"
        )
    note = f"judged on val, {len(found.val.names)} images that the run was not trained on"
    return Fit(found.val, False, (note,))


def _fit(found: Labelled, classes: int, root: Path) -> Fit:
    """Bring the data's classes and the network's together."""
    highest = max(item.label for item in found.items)
    held = found.classes or max(highest + 1, 1)
    if found.named:
        # By the network's own names, so its background counts; no image shows it.
        if classes == IMAGENET + 1 and all(item.label > 0 for item in found.items):
            return _shifted(found, True, "the network's background class is left out")
        return Fit(_source(found.items), False, ())
    of_imagenet = held == IMAGENET if found.classes else held <= IMAGENET
    if classes == IMAGENET + 1 and of_imagenet:
        note = f"the network has {classes} classes, the data {IMAGENET}: its background class is left out"
        return Fit(_source(found.items), True, (note,))
    if classes == IMAGENET and held == IMAGENET + 1:
        note = f"the data has {held} classes, the network {classes}: images of the background are left out"
        return _shifted(found, False, note)
    if held == classes or (found.classes is None and held < classes):
        return Fit(_source(found.items), False, ())
    what = f"has {held} classes" if found.classes else f"has labels up to {highest}"
    raise InputError(
        f"{root} {what} and the network {classes} classes; say which is which with --labels (a list of "
        "the classes by index), or take data of the network's classes"
    )


def _shifted(found: Labelled, background: bool, note: str) -> Fit:
    items = tuple(Item(item.path, item.label - 1) for item in found.items if item.label > 0)
    return Fit(_source(items), background, (note,))


def _source(items: Sequence[Item]) -> Source:
    return file_source([item.path for item in items], [item.label for item in items])


class _Batches:
    """Crops of all readable images as batches, and what was unreadable."""

    def __init__(
        self, net: Net | FileNet, fit: Fit, side: int, crop: Crop, progress: Progress
    ) -> None:
        self.net, self.images, self.progress = net, fit.images, progress
        self.read = partial(fit.images.pixels, partial(read_crop, side=side, crop=crop))
        self.bad: list[list[str]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        pixels, labels = [], []
        count = len(self.images.names)
        for number, crop in enumerate(read_ahead(range(count), self.read)):
            if isinstance(crop, str):
                self.bad.append([self.images.names[number], crop])
                self.check()
            else:
                pixels.append(crop)
                labels.append(int(self.images.labels[number]))
            if pixels and (len(pixels) == BATCH or number + 1 == count):
                images = normalise(torch.from_numpy(np.stack(pixels)), self.net.normalisation)
                yield images, torch.tensor(labels)
                pixels, labels = [], []
            self.progress.advance(1)

    def check(self) -> None:
        """Raise InputError once too many were unreadable."""
        if len(self.bad) > BAD_SHARE * len(self.images.names):
            path, reason = self.bad[0]
            raise InputError(
                f"{len(self.bad)} of {len(self.images.names)} images cannot be read, more than the allowed "
                f"{BAD_SHARE:.1%}: {path} ({reason}); replace or delete them"
            )
