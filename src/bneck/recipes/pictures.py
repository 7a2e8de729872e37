"""Real images to check and calibrate a network with, whether or not they have labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bneck.data.batches import normalise
from bneck.data.images import Encoded, Pixels, read_square
from bneck.data.pack import Packed, pack_sources, stored_side
from bneck.data.sources import Source, Sources
from bneck.nets.build import Net
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError
from bneck.specs.normalisation import Normalisation


def record_of(network: object) -> dict[str, Any] | None:
    """The record of the run that a network is named by; None for a zoo name or a spec file."""
    if not isinstance(network, str | Path):
        return None
    folder = RunFolder(Path(network))
    return folder.read() if folder.run_json.is_file() else None


def record_settings(network: object) -> dict[str, Any]:
    """The settings of the run that a network is named by; nothing where there are none."""
    return dict((record_of(network) or {}).get("settings") or {})


def class_names(record: dict[str, Any] | None, count: int) -> list[str]:
    """The names of a run's classes, or numbers where it has none."""
    record = record or {}
    names = record.get("classes") or (record.get("data") or {}).get("classes") or ()
    return [str(name) for name in names] if len(names) == count else [str(i) for i in range(count)]


def some_images(source: Source, net: Net, count: int) -> Tensor:
    """`count` images, spread evenly over the source, as the net takes them.

    Raises:
        InputError: none can be read.
    """
    return spread_images(
        source, partial(_central, side=net.spec.resolution), count, net.normalisation
    )


def spread_images(
    source: Source,
    read: Callable[[Encoded], Pixels | str],
    count: int,
    normalisation: Normalisation,
) -> Tensor:
    """`count` images at most, evenly spread and normalised: (N, C, H, W); unreadable ones left out.

    Raises:
        InputError: none can be read.
    """
    there = len(source.names)
    chosen = np.unique(np.linspace(0, there - 1, min(count, there)).astype(int))
    found = [source.pixels(read, int(i)) for i in chosen]
    images = [pixels for pixels in found if not isinstance(pixels, str)]
    if not images:
        raise InputError(
            f"no image can be read, the first is {source.names[0]} ({found[0]}); give others by --data"
        )
    return normalise(torch.from_numpy(np.stack(images)), normalisation)


def packed_images(found: Sources, net: Net, names: Sequence[str], folder: Path) -> Packed:
    """The labelled images of a network, decoded into `folder`.

    Raises:
        InputError: they are of other classes.
    """
    if len(found.classes) != net.spec.classes:
        raise InputError(
            f"the data has {len(found.classes)} classes and the network {net.spec.classes}; give the "
            "images that it was trained on"
        )
    if set(names) != set(map(str, range(len(names)))) and tuple(names) != found.classes:
        raise InputError(
            f"the classes of the data are not the network's: {', '.join(found.classes[:3])}, ... against "
            f"{', '.join(names[:3])}, ...; give the images that it was trained on"
        )
    return pack_sources(found, net.spec.resolution, folder)


def _central(image: Encoded, side: int) -> Pixels | str:
    square = read_square(image, stored_side(side))
    if isinstance(square, str):
        return square
    start = (square.shape[1] - side) // 2
    return square[:, start : start + side, start : start + side]
