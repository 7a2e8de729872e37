"""Which images a run is trained on and which are for validation: the same for every command.

Data that comes undivided is divided by the run's own seed. Whoever divides it by another judges on
images that the network has seen, or calibrates on those that it is judged on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bneck.data.coco import Annotated, find_annotations, read_coco
from bneck.data.find import find_images
from bneck.data.folders import SUFFIXES
from bneck.data.pairs import Scenery, list_pairs
from bneck.data.sources import Source, Sources, file_source
from bneck.specs.errors import InputError

BUILTIN = "Fashion-MNIST (built in)"

Settings = dict[str, Any]  # of a run's record


def run_source(record: dict[str, Any], split: str, data: str | Path | None = None) -> Source:
    """The images of a run's split, whatever its task; without labels unless it is a classifier's.

    Of `data` that is not the run's own, all pictures below that folder, whatever the split.

    Raises:
        InputError: no such data or split, or no pictures there.
    """
    settings = record["settings"]
    if not is_own(settings, data):
        assert data is not None
        return folder_source(Path(data))
    task = record.get("task", record["kind"])
    if task == "detect":
        pictures = run_annotated(settings, split).pictures
        return file_source([picture.path for picture in pictures])
    if task == "segment":
        return file_source([pair.image for pair in run_scenery(settings).split(split)])
    found = run_sources(settings)
    return found.train if split == "train" else found.val


def folder_source(root: Path) -> Source:
    """All pictures below a folder.

    Raises:
        InputError: there are none.
    """
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise InputError(f"{root} has no pictures; give a folder of pictures by --data")
    return file_source(paths)


def is_own(settings: Settings, data: str | Path | None) -> bool:
    """Whether `data` is what a run of these settings was trained on; None is."""
    own = settings["data"]
    return data is None or (own is not None and own in (str(data), str(Path(data).resolve())))


def run_sources(settings: Settings, data: str | Path | None = None) -> Sources:
    """The images of a classification run, or of `data`, divided as the run's are where it must be.

    Raises:
        DataError: no such data, or labels that make no dataset.
    """
    place = settings["data"] if data is None else data
    return find_images(place, seed=settings.get("seed", 0))


def run_annotated(
    settings: Settings,
    split: str,
    data: str | Path | None = None,
    images: str | Path | None = None,
) -> Annotated:
    """A split of a detection run, or of `data`: a folder with COCO json files, or one of these.

    Raises:
        DataError: no such data or split.
    """
    root = Path(settings["data"] if data is None else data)
    beside = images if images is not None or data is not None else settings["images"]
    file = root if root.is_file() else find_annotations(root, (split,))[split]
    return read_coco(file, images=None if beside is None else Path(beside))


def run_scenery(
    settings: Settings,
    data: str | Path | None = None,
    classes: str | Path | None = None,
    ignore: Sequence[int] | None = None,
) -> Scenery:
    """The image-mask pairs of a segmentation run, or of `data`, divided as the run's are.

    Raises:
        DataError: no such data, or no class list.
    """
    listed = classes if classes is not None or data is not None else settings["classes"]
    return list_pairs(
        Path(settings["data"] if data is None else data),
        classes=None if listed is None else Path(listed),
        ignore=settings.get("ignore", ()) if ignore is None else ignore,
        seed=settings.get("seed", 0),
    )
