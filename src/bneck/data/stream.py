"""Images decoded again each time they are used, for data too large to be packed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bneck.data.folders import DataError
from bneck.data.images import CENTRAL
from bneck.data.regions import Region, Size, read_region
from bneck.data.sources import Source, too_many_bad
from bneck.data.vary import Plan, draw_region

T = TypeVar("T")
UNREADABLE = -100  # the label of an image that cannot be read, which the loss leaves out


class Stream:
    """A split whose images are read and decoded by threads; see `data.batches.Images`.

    The crop of an image depends only on (seed, epoch, index of the image), not on the number of
    threads. Images that cannot be read are collected in `bad`, by index; DataError if they are more
    than `bad_share` of the images.
    """

    # Threads, not processes: reading, decoding and resizing run outside Python's lock, and a killed
    # run leaves no processes behind.
    def __init__(
        self, source: Source, *, bad_share: float = 0.01, threads: int | None = None
    ) -> None:
        if not 0 <= bad_share <= 1:
            raise DataError(f"bad_share is {bad_share!r}; it must be from 0 to 1")
        self.source = source
        self.bad: dict[int, str] = {}
        self.bad_share = bad_share
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, "images")

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        return self.source.labels

    def crops(
        self, indices: npt.NDArray[np.int64], draws: npt.NDArray[np.float32], plan: Plan
    ) -> tuple[Tensor, Tensor]:
        """Random crops; `draws` decide on mirroring, the image's own random numbers on the rest."""

        def choose(index: int) -> Callable[[Size], Region]:
            rng = np.random.default_rng((*plan.seeds, 3, index))
            return partial(draw_region, augment=plan.augment, rng=rng)

        images, labels = self._read(indices, choose, plan.resolution, plan.device)
        if plan.augment.flip:
            mirrored = torch.from_numpy(np.flatnonzero(draws[:, 4] < 0.5)).to(plan.device)
            images[mirrored] = images[mirrored].flip(3)
        return images.float(), labels

    def centres(
        self, indices: npt.NDArray[np.int64], resolution: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        images, labels = self._read(indices, lambda _: _central, resolution, device)
        return images.float(), labels

    def _read(
        self,
        indices: npt.NDArray[np.int64],
        choose: Callable[[int], Callable[[Size], Region]],
        resolution: int,
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        def read(index: int) -> Tensor | str:
            return self.source.pixels(
                partial(read_region, choose=choose(index), resolution=resolution), index
            )

        images = torch.empty((len(indices), 3, resolution, resolution), dtype=torch.uint8)
        labels = self.labels[indices].copy()
        for place, found in enumerate(self._pool.map(read, map(int, indices))):
            if isinstance(found, str):
                images[place], labels[place] = 0, UNREADABLE
                self._note(int(indices[place]), found)
            else:
                images[place] = found
        return images.to(device), torch.from_numpy(labels).to(device)

    def _note(self, index: int, reason: str) -> None:
        self.bad[index] = reason
        if len(self.bad) > self.bad_share * len(self.labels):
            named = [(self.source.names[i], why) for i, why in self.bad.items()]
            raise too_many_bad(named, len(self.labels), self.bad_share)


def _central(size: Size) -> Region:
    width, height = size
    side = max(1, round(min(width, height) * CENTRAL))
    return (width - side) // 2, (height - side) // 2, side, side


def ahead(items: Iterator[T], count: int = 2) -> Generator[T]:
    """The same items, `count` of them made before they are asked for, by a thread."""
    end = object()
    with ThreadPoolExecutor(1, "ahead") as pool:
        waiting: deque[Future[T | object]] = deque()
        try:
            for _ in range(count):
                waiting.append(pool.submit(next, items, end))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()
