"""`bneck search`: from images and a device to the network that meets a latency, for every task."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bneck.records.files import locked
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder
from bneck.runs.folder import fresh_folder
from bneck.runs.search.pipeline import run_search
from bneck.runs.search.run import KIND, Run, check_new, new_run, resumed_run
from bneck.runs.search.settings import (
    BlockSettings,
    SearchSettings,
    cores,
    proposals,
    tuning,
)
from bneck.runs.train import data_path, resume_training
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Dataset, Task
from bneck.tasks.options import TrainOptions, parted
from bneck.tasks.registry import DEFAULT, tasks
from bneck.tasks.registry import task as task_named
from bneck.training.settings import Settings

BUILTIN_EPOCHS, BUILTIN_STEPS = 6, 8
STEPS = 50
HELDOUT = 0.2  # of the train images, on which proposals are scored
# Options of the block search, see `settings.BlockSettings`.
BLOCK_OPTIONS = (
    "space", "trials", "searcher", "objective", "reward", "exponent", "proxy_epochs", "batch", "top",
    "slack", "supernet", "ledger", "study",
)  # fmt: skip


def search(
    data: str | Path | None = None,
    target: str = "70%",
    *,
    task: str = DEFAULT,
    device: str = "local",
    runtime: str | None = None,
    precision: str = "fp32",
    threads: int = 1,
    seed_network: str | None = None,
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
    **options: Any,
) -> dict[str, Any]:
    """Find the network for these images that meets a latency on this device, and ship it.

    Args:
        data: what the task reads; None takes the built-in images, which only classification has.
        target: a latency, as "5ms", or a fraction of the seed network's, as "70%".
        task: "classify", "detect", "segment" or another registered task. The search changes the
            backbone; what stands around it stays.
        device: where latency is measured; "local" is this machine (docs/devices.md has the others).
        runtime, precision, threads: what is timed and shipped (`Deployment.of`); training is in float.
        seed_network: the network to narrow: a zoo name or a spec file; None takes the task's usual one.
        epochs, steps: of every full training; T, the training steps that a proposal gets.
        delta: least latency cut per step, as a fraction of the seed's latency.
        tail: also narrow the convolutions after the last bneck, which section 4.2 leaves alone.
        repeats, seed: final trainings of result and baseline; everything random follows from seed.
        workers, cluster: processes that train, one per core; a Ray cluster, "auto" or "ray://HOST:10001".
        out: the run's folder, new or empty; None makes one under runs/.
        from_scratch: blocks first (4.1); the seed network is then what they are compared with.
        progress: receives what happens.
        options: with `from_scratch`, the fields of `settings.BlockSettings` (its `epochs` are
            `proxy_epochs` here, by default a third of `epochs`); the fields of the task's `Options`
            that search takes; `bad_share` and `compute` as in `train`.

    Returns:
        The run's record (`records.run.SearchRecord`), its folder under "run"; InputError if refused.
    """
    blocks = {k: v for k, v in options.items() if k in BLOCK_OPTIONS and v is not None}
    if blocks and not from_scratch:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in blocks)
        raise InputError(
            f"{flags} goes with --from-scratch, which searches blocks; add --from-scratch or leave it out"
        )
    rest = {k: v for k, v in options.items() if k not in BLOCK_OPTIONS}
    begun = _begun(task, data, seed_network, epochs, seed, rest)
    builtin = begun.place is None
    settings = SearchSettings(
        task=begun.task.name, options=begun.own, seed_network=begun.network,
        resolution=begun.spec.resolution, target=target, training=begun.training,
        tuning=tuning(begun.training),
        steps=steps if steps is not None else BUILTIN_STEPS if builtin else STEPS,
        delta=delta, kinds=proposals(tail=tail), heldout=HELDOUT, repeats=repeats, seed=seed,
        workers=cores() if workers is None else workers,
        blocks=_block_settings(blocks, begun.training.epochs) if from_scratch else None,
        device=device, runtime=runtime, precision=precision, threads=threads, cluster=cluster,
        compute=begun.common.compute, bad_share=begun.common.bad_share,
    )  # fmt: skip
    path = Path(out) if out is not None else fresh_folder(KIND)
    return _carried(path, settings, begun, progress or Silent())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What follows from a search's task and data."""

    task: Task
    common: TrainOptions
    own: Any
    place: str | None
    dataset: Dataset
    network: str
    spec: NetSpec
    wrapper: Wrapper
    training: Settings


def _begun(
    name: str,
    data: str | Path | None,
    seed_network: str | None,
    epochs: float | None,
    seed: int,
    options: Mapping[str, Any],
) -> _Begun:
    """Look at the task, its options and its data.

    Raises:
        InputError: one of them cannot be.
    """
    chosen = task_named(name)
    common, own = parted(chosen, "search", options, tasks())
    common.check()
    if epochs is not None and not 0 < epochs < float("inf"):
        raise InputError(f"epochs is {epochs}; it must be a number above 0")
    place = data_path(chosen, data)
    network = chosen.default_network if seed_network is None else seed_network
    _without_weights(network)
    dataset = chosen.find(place, own, seed=seed)
    spec, wrapper = chosen.arrange(network, own, dataset)
    training = chosen.recipe(
        None, images=dataset.splits["train"], started=False, seed=seed,
        epochs=BUILTIN_EPOCHS if epochs is None and place is None else epochs,
    )  # fmt: skip
    return _Begun(
        task=chosen, common=common, own=own, place=place, dataset=dataset, network=network, spec=spec,
        wrapper=wrapper, training=training,
    )  # fmt: skip


def _carried(
    path: Path, settings: SearchSettings, begun: _Begun, progress: Progress
) -> dict[str, Any]:
    """A new run, from its beginning to its end; one that is refused leaves no folder."""
    check_new(path, settings)
    with _busy(path):
        run = new_run(
            path, settings, begun.dataset, begun.spec, begun.wrapper, begun.place, progress
        )
        try:
            return _carry(run)
        except InputError:
            # Refused; later, what was trained is kept.
            if "uniform" not in run.record and not run.ledger.find(event="blocks begun"):
                shutil.rmtree(path)
            raise


def _without_weights(network: str) -> None:
    """Raise InputError for a seed network whose weights the search would drop."""
    folder = RunFolder(Path(network))
    if folder.run_json.is_file() or folder.weights.is_file():
        raise InputError(
            f"a search trains {network} from random weights, so the weights of that run would be dropped; name "
            f"its {folder.spec} to search from its architecture"
        )


def resume_search(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Resume a search; a finished one gets its report again.

    Args:
        run: the run's folder.
        progress: receives what happens.

    Returns:
        The run's record, as `search` returns it.

    Raises:
        InputError: no run, one of another version, or one that another process works on.
    """
    path = Path(run)
    record = RunFolder(path).read()  # what is no run is refused before a lock is left in it
    if record.get("kind", KIND) != KIND:
        raise InputError(
            f"{path} is a run of kind {record['kind']!r}, not a search; resume a training with bneck train "
            "--resume"
        )
    with _busy(path):
        return _carry(resumed_run(path, progress or Silent()))


def _carry(run: Run) -> dict[str, Any]:
    if run.settings.blocks is not None and run.record["state"] != "finished":
        from bneck.runs.search.blocks import search_blocks

        search_blocks(run)
    if run.settings.blocks is None or run.settings.blocks.objective == "reward":
        run_search(run)
    return {"run": str(run.folder.path), **run.folder.read()}


def _block_settings(options: Mapping[str, Any], epochs: float) -> BlockSettings:
    given: dict[str, Any] = dict(options)
    proxy = given.pop("proxy_epochs", None)
    return BlockSettings(**given, epochs=max(1, round(epochs / 3)) if proxy is None else proxy)


def _busy(path: Path) -> Any:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the run's folder {path} cannot be made: {error.strerror}; choose another --out"
        ) from None
    return locked(path / ".lock")


def resume(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Resume a training or a search that was interrupted; a finished one gets its report again.

    Raises:
        InputError: not such a run, or one that another process works on.
    """
    kind = RunFolder(Path(run)).read().get("kind")
    if kind == "search":
        return resume_search(run, progress=progress)
    if kind == "train":
        return resume_training(run, progress=progress)
    raise InputError(f"{run} is a run of kind {kind!r}, which has nothing to resume")
