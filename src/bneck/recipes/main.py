"""The functions behind `import bneck`: each is the Python twin of a command."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from bneck.data.folders import list_images
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.run import new_run, resumed_run
from bneck.recipes.search import run_search
from bneck.recipes.settings import small_data
from bneck.records.files import locked
from bneck.specs.errors import InputError
from bneck.specs.text import resolve

BUILTIN_IMAGES, BUILTIN_RESOLUTION, BUILTIN_EPOCHS, BUILTIN_STEPS = 5_000, 48, 6, 8
FOLDER_EPOCHS, FOLDER_STEPS = 30, 50


def search(
    data: str | Path | None = None,
    target: str = "70%",
    *,
    device: str = "local",
    seed_network: str = "v3-small",
    resolution: int | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    delta: float = 0.01,
    repeats: int = 2,
    seed: int = 0,
    workers: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the network for these images that meets a latency on this device, and ship it.

    Args:
        data: a folder `train/CLASS/*` and `val/CLASS/*`, or `CLASS/*`, which is split; None takes
            the built-in images (6,000 of Fashion-MNIST).
        target: a latency, as "5ms", or a share of the seed network's, as "70%".
        device: where latency is measured; "local" is this machine.
        seed_network: the network to narrow: a zoo name, a spec file, a run folder.
        resolution: input side in pixels; None takes 48 for the built-in images, else the network's.
        epochs: of every full training.
        steps: T, the training steps that judge a proposal.
        delta: least cut of a step as a share of the seed's latency.
        repeats: final trainings of the result and of the uniform-width baseline.
        seed: everything random follows from it.
        workers: processes that judge proposals; None takes one a core.
        out: the run's folder, new or empty; None makes one under runs/.
        resume: an unfinished run's folder to go on with; every other argument is taken from it.
        progress: receives what happens; None tells nobody.

    Returns:
        The run's record, as in `run.json` (see `bneck.records.run.SearchRecord`), with its folder
        under "run".

    Raises:
        InputError: wrong input; the message is one sentence.
    """
    if device != "local":
        raise InputError(f"there is no device {device!r}; known are local")
    if resume is not None:
        path = Path(resume)
        with _busy(path):
            return _carry(resumed_run(path, progress or Silent()))
    folder = None if data is None else Path(data)
    builtin = folder is None
    settings = small_data(
        seed_network=seed_network,
        resolution=resolution
        or (BUILTIN_RESOLUTION if builtin else resolve(seed_network).resolution),
        images=BUILTIN_IMAGES if folder is None else len(list_images(folder, seed=seed).train),
        target=target,
        epochs=epochs or (BUILTIN_EPOCHS if builtin else FOLDER_EPOCHS),
        steps=steps or (BUILTIN_STEPS if builtin else FOLDER_STEPS),
        delta=delta,
        repeats=repeats,
        seed=seed,
        workers=workers,
    )
    path = Path(out) if out is not None else _fresh_folder()
    command = (
        " ".join(["bneck", *sys.argv[1:]]) if sys.argv[0].endswith("bneck") else "bneck.search(...)"
    )
    with _busy(path):
        return _carry(new_run(path, settings, folder, progress or Silent(), command))


def _carry(run: Any) -> dict[str, Any]:
    run_search(run)
    return {"run": str(run.folder.path), **run.record}


def _busy(path: Path) -> Any:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; a run needs a folder")
    return locked(path / ".lock")


def _fresh_folder() -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"search-{stamp}"
