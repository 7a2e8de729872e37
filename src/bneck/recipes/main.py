"""The functions behind `import bneck`: each is the Python twin of a command."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from bneck.recipes.command import command_line
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.run import Run, check_new, new_run, resumed_run
from bneck.recipes.search import run_search
from bneck.recipes.search_task import TaskOptions, about
from bneck.recipes.settings import BlockSettings, SearchSettings, small_data
from bneck.records.files import locked
from bneck.records.run import RunFolder
from bneck.search.reward import Kind
from bneck.search.study import Objective
from bneck.specs.errors import InputError

_T = TypeVar("_T")


class BlockOptions(TypedDict, total=False):
    """What a search from scratch may be told besides; see `recipes.settings.BlockSettings`.

    space: where blocks are searched: mnasnet, v3-large, v3-small or a yaml file. trials: networks of it
    that are trained. searcher: one of `bneck.search.searchers.SEARCHERS`. objective: "reward" finds one
    network, "pareto" the front of accuracy and latency. reward: "hard", "absolute" or "paper"
    (`bneck.search.reward`), exponent: its w or beta. proxy_epochs: of a trial that is not stopped
    early; by default a third of `epochs`. batch: networks asked for at once. top: how many of the best
    are trained in full. slack: share by which the blocks may be slower than the target, for NetAdapt
    to narrow; 0 skips NetAdapt. supernet: epochs of shared weights that judge all trials; None trains
    every trial. ledger: a database's URL for the trials; by default a journal file in
    the run's folder. study: a name in that ledger; runs that give the same one judge its trials together.
    """

    space: str
    trials: int
    searcher: str
    objective: Objective
    reward: Kind
    exponent: float | None
    proxy_epochs: int | None
    batch: int
    top: int
    slack: float
    supernet: float | None
    ledger: str | None
    study: str | None


class SearchOptions(BlockOptions, TaskOptions, total=False):
    """All options that only some searches have."""


def search(
    data: str | Path | None = None,
    target: str = "70%",
    *,
    task: str = "classify",
    device: str = "local",
    runtime: str | None = None,
    precision: str = "fp32",
    seed_network: str | None = None,
    resolution: int | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    delta: float = 0.01,
    tail: bool = True,
    repeats: int = 2,
    seed: int = 0,
    workers: int | None = None,
    cluster: str | None = None,
    out: str | Path | None = None,
    from_scratch: bool = False,
    progress: Progress | None = None,
    **options: Unpack[SearchOptions],
) -> dict[str, Any]:
    """Find the network for these images that meets a latency on this device, and ship it.

    Args:
        data: a folder `train/CLASS/*` and `val/CLASS/*`, or `CLASS/*`, which is split; None takes
            the built-in images (6,000 of Fashion-MNIST); of other tasks, what they are trained on.
        target: a latency, as "5ms", or a share of the seed network's, as "70%".
        task: "classify", "detect" or "segment"; the network changes, what stands round it does not.
        device: where latency is measured; "local" is this machine (docs/devices.md has the others).
        runtime, precision: what is timed and shipped (`Deployment.of`); training is in float.
        seed_network: the network to narrow: a zoo name or a spec file; None takes v3-small,
            with `+dagger` for a detector and `+rf2` for a segmenter.
        resolution: side in pixels; None: the network's, 48 for the built-in images, 320 to detect.
        epochs, steps: of every full training; T, the steps that judge a proposal.
        delta: least cut of a step as a share of the seed's latency.
        tail: also narrow the convs behind the last bneck, which section 4.2 leaves alone.
        repeats, seed: final trainings of result and baseline; everything random follows from seed.
        workers, cluster: processes that train, one a core; a Ray cluster, "auto" or "ray://HOST:10001".
        out: the run's folder, new or empty; None makes one under runs/.
        from_scratch: blocks first (4.1); the seed network is then what they are compared with.
        progress: receives what happens; None tells nobody.
        options: with `from_scratch`, what `BlockOptions` lists; for a task, what `TaskOptions` lists.

    Returns:
        The run's record (`records.run.SearchRecord`), its folder under "run"; InputError if refused.
    """
    folder = None if data is None else Path(data)
    blocks, given = _sorted(options)
    found = about(
        task, folder, given, seed_network=seed_network, resolution=resolution, epochs=epochs,
        steps=steps, seed=seed,
    )  # fmt: skip
    settings = small_data(
        **found.settings(),
        target=target,
        delta=delta,
        tail=tail,
        repeats=repeats,
        seed=seed,
        workers=workers,
        cluster=cluster,
        blocks=_block_settings(blocks, found.epochs) if from_scratch else None,
        device=device,
        runtime=runtime,
        precision=precision,
    )
    path = Path(out) if out is not None else _fresh_folder()
    return _begin(path, settings, folder, progress or Silent())


def _sorted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the block search, and those of the task that were given.

    Raises:
        InputError: an option that is neither.
    """
    kinds = (BlockOptions.__annotations__, TaskOptions.__annotations__)
    if unknown := [name for name in options if not any(name in kind for kind in kinds)]:
        raise InputError(
            f"a search has no option {', '.join(unknown)}; see BlockOptions and TaskOptions for all"
        )
    blocks, task = ({k: v for k, v in options.items() if k in kind} for kind in kinds)
    return blocks, {k: v for k, v in task.items() if v is not None}


def _begin(
    path: Path, settings: SearchSettings, folder: Path | None, progress: Progress
) -> dict[str, Any]:
    check_new(path, settings)
    with _busy(path):
        run = new_run(path, settings, folder, progress, _command())
        try:
            return _carry(run)
        except InputError:
            # Refused; later, what was trained is kept.
            if "uniform" not in run.record and not run.ledger.find(event="blocks begun"):
                shutil.rmtree(path)
            raise


def resume(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Go on with a search that was broken off; a finished one gets its report written anew.

    Args:
        run: the run's folder.
        progress: receives what happens; None tells nobody.

    Returns:
        The run's record, as `search` returns it.

    Raises:
        InputError: no run, one of another version, or one that another process works on.
    """
    path = Path(run)
    RunFolder(path).read()  # what is no run is refused before a lock is left in it
    with _busy(path):
        return _carry(resumed_run(path, progress or Silent()))


def _carry(run: Run) -> dict[str, Any]:
    if run.settings.blocks is not None and run.record["state"] != "finished":
        from bneck.recipes.block_search import search_blocks

        search_blocks(run)
    if run.settings.blocks is None or run.settings.blocks.objective == "reward":
        run_search(run)
    return {"run": str(run.folder.path), **run.folder.read()}


def _block_settings(options: Mapping[str, Any], epochs: float) -> BlockSettings:
    given: dict[str, Any] = dict(options)
    proxy = given.pop("proxy_epochs", None)
    return BlockSettings(**given, epochs=_given(proxy, max(1, round(epochs / 3))))


def _command() -> str:
    return command_line("bneck.search(...)")


def _given(value: _T | None, default: _T) -> _T:
    return default if value is None else value


def _busy(path: Path) -> Any:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the run's folder {path} cannot be made: {error.strerror}; choose another --out"
        ) from None
    return locked(path / ".lock")


def _fresh_folder() -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"search-{stamp}"
