"""Real images to check a file with and to calibrate int8 on: the run's own, or a folder's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bneck.data.folders import SUFFIXES
from bneck.runs.load import Trained
from bneck.specs.errors import InputError
from bneck.tasks.contract import Dataset, Size

LEAST, ALL_NUMBERS = 8, 1 << 27  # images at least, and numbers of all images beyond that: 0.5 GB


class Samples:
    """Images for a network.

    Args:
        run: the network.
        data: a folder of pictures; None takes the run's own data. A network without a run is checked
            on the built-in images where its task has some.
        dataset: the images themselves, where they are at hand.
    """

    def __init__(
        self, run: Trained, data: str | Path | None = None, dataset: Dataset | None = None
    ) -> None:
        self.run, self.data, self.dataset = run, data, dataset

    @property
    def known(self) -> bool:
        """Whether there are images of the kind that the network will see."""
        return self.data is not None or "path" in (self.run.record.get("data") or {})

    def of(self, split: str, size: Size, count: int) -> Tensor:
        """`count` images spread evenly over a split, brought to `size` and normalised: (N, C, H, W).

        Fewer where they are large (21 of 1024 x 2048 pixels); those that cannot be read are left out.
        Of a folder of pictures every split is all of it.

        Raises:
            InputError: no image can be read.
        """
        most = max(LEAST, ALL_NUMBERS // (3 * size[0] * size[1]))
        return self.run.task.samples(
            self._source(), split, size=size, count=min(count, most),
            normalisation=self.run.net.normalisation,
        )  # fmt: skip

    def _source(self) -> Dataset | Sequence[Path]:
        if self.dataset is not None:
            return self.dataset
        if self.data is not None:
            root = Path(self.data)
            found = sorted(
                p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()
            )
            if not found:
                raise InputError(f"{root} has no pictures; pass a folder of pictures with --data")
            return found
        if self.known:
            return run_dataset(self.run)
        if not self.run.task.builtin:
            raise InputError(
                f"a network of the task {self.run.task.name} is checked on pictures; pass a folder of "
                "pictures with --data"
            )
        return self.run.task.find(None, self.run.options, seed=0)


def run_dataset(run: Trained, data: str | Path | None = None) -> Dataset:
    """The dataset of a run, split as the run split it; or another, split alike.

    Raises:
        InputError: the run knows no dataset, or it is gone, or has other classes than the run.
    """
    known: dict[str, Any] = run.record.get("data") or {}
    if data is None and "path" not in known:
        raise InputError(
            f"{run.folder.path if run.folder else run.spec.name} knows no dataset; pass one with --data"
        )
    seed = (run.record.get("options") or {}).get("seed", 0)
    place = known["path"] if data is None else str(data)
    found = run.task.find(place, run.options, seed=seed)
    if tuple(found.classes) != run.labels and run.record.get("classes"):
        raise InputError(
            f"the classes of {place} are not the network's: {', '.join(found.classes[:5])} instead of "
            f"{', '.join(run.labels[:5])}; pass the images that it was trained on"
        )
    return found
