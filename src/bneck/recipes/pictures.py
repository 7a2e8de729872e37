"""Real images to check and calibrate a network with, whether or not they have labels."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.builtin import fashion_pack
from bneck.data.folders import SUFFIXES, list_images
from bneck.data.images import Pixels, read_square
from bneck.data.pack import Packed, pack, stored_side
from bneck.nets.build import Net
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError

BUILTIN = "built-in"


def data_of(record: dict[str, Any] | None, data: str | Path | None) -> Path | str | None:
    """Where a network's images are: `data`, else those of its run; None where nobody knows."""
    if data is not None:
        return Path(data)
    settings = (record or {}).get("settings") or {}
    if "data" not in settings:
        return None
    return Path(settings["data"]) if settings["data"] else BUILTIN


def record_of(network: object) -> dict[str, Any] | None:
    """The record of the run that a network is named by; None for a zoo name or a spec file."""
    if not isinstance(network, str | Path):
        return None
    folder = RunFolder(Path(network))
    return folder.read() if folder.run_json.is_file() else None


def class_names(record: dict[str, Any] | None, count: int) -> list[str]:
    """The names of a run's classes, or numbers where it has none."""
    record = record or {}
    names = record.get("classes") or (record.get("data") or {}).get("classes") or ()
    return [str(name) for name in names] if len(names) == count else [str(i) for i in range(count)]


def some_images(data: Path | str, net: Net, count: int) -> Tensor:
    """`count` images, spread evenly over what is there, as the net takes them.

    Args:
        data: a folder that is searched for image files, or `BUILTIN`.
        net: says the resolution and the normalisation.
        count: how many at most.

    Raises:
        InputError: no readable image there.
    """
    side = net.spec.resolution
    if data == BUILTIN:
        with tempfile.TemporaryDirectory() as folder:
            packed = fashion_pack(Path(folder), side)
            chosen = [
                _central(packed.train.images[i], side).copy()
                for i in _spread(len(packed.train.labels), count)
            ]
    else:
        root = Path(data)
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        squares = [read_square(files[i], stored_side(side)) for i in _spread(len(files), count)]
        chosen = [_central(square, side) for square in squares if not isinstance(square, str)]
        if not chosen:
            raise InputError(f"{root} has no readable images; give a folder of pictures")
    return normalise(torch.from_numpy(np.stack(chosen)), net.normalisation)


def labelled(data: Path | str, net: Net, names: Sequence[str], folder: Path) -> Packed:
    """The labelled images of a network, decoded into `folder`.

    Raises:
        InputError: no dataset there, or one of other classes.
    """
    if data == BUILTIN:
        packed = fashion_pack(folder, net.spec.resolution)
    else:
        packed = pack(list_images(Path(data)), net.spec.resolution, folder)
    if len(packed.classes) != net.spec.classes:
        raise InputError(
            f"{data} has {len(packed.classes)} classes and the network {net.spec.classes}; give the "
            "images that it was trained on"
        )
    if set(names) != set(map(str, range(len(names)))) and tuple(names) != packed.classes:
        raise InputError(
            f"the classes of {data} are not the network's: {', '.join(packed.classes[:3])}, ... against "
            f"{', '.join(names[:3])}, ...; give the images that it was trained on"
        )
    return packed


def _spread(there: int, count: int) -> list[int]:
    if not there:
        return []
    return sorted({int(i) for i in np.linspace(0, there - 1, min(count, there))})


def _central(image: Pixels, side: int) -> Pixels:
    start = (image.shape[1] - side) // 2
    return image[:, start : start + side, start : start + side]
