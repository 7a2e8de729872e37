"""`bneck search`: from images and a device to the network that meets a latency, for every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bneck.records.files import locked
from bneck.records.ledger import Ledger
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder
from bneck.runs.data import find_images
from bneck.runs.folder import fresh_folder, new_folder, record_of, resumable
from bneck.runs.search.pipeline import run_search
from bneck.runs.search.run import KIND, Run, new_run, resumed_run
from bneck.runs.search.settings import (
    BlockSettings,
    Method,
    SearchSettings,
    cores,
    proposals,
    target_ms,
    tuning,
)
from bneck.runs.start import Start, comparable, find_start, fitting
from bneck.runs.train import data_path
from bneck.specs.errors import InputError
from bneck.tasks.contract import Dataset, Task
from bneck.tasks.options import parted
from bneck.tasks.registry import DEFAULT, tasks
from bneck.tasks.registry import task as task_named

BUILTIN_EPOCHS, BUILTIN_STEPS = 4, 8
RECOVERY = 2  # epochs of what inherits weights, for each of the seed network's; see docs/results.md
STEPS, DELTA = 50, 0.01  # the paper's delta
HELDOUT = 0.2  # of the train images, on which proposals are scored
# Options of the block search, see `settings.BlockSettings`.
BLOCK_OPTIONS = (
    "space", "trials", "searcher", "objective", "reward", "exponent", "proxy_epochs", "batch", "top",
    "slack", "supernet", "ledger", "study",
)  # fmt: skip


def search(
    data: str | Path | None = None, target: str | Sequence[str] = (), *, task: str = DEFAULT,
    device: str = "local", runtime: str | None = None, precision: str = "fp32", threads: int = 1,
    seed_network: str | None = None, epochs: float | None = None, steps: int | None = None,
    delta: float | None = None, tail: bool | None = None, repeats: int = 2, seed: int = 0,
    workers: int | None = None, cluster: str | None = None, out: str | Path | None = None,
    start: str | None = None, method: Method | None = None, also: Sequence[str] = (), lose: float | None = None,
    retrain: bool = False,
    from_scratch: bool = False, progress: Progress | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Find the network for these images that meets a latency on this device, and ship it.

    Args:
        data: images, as the task reads them; None takes the built-in images, which only
            classification has.
        target: a latency, as "5ms", or a fraction of the seed network's, as "70%" (the default).
            Several give a network each; the first one is the run's own.
        task: a registered task, as "detect". The search changes the backbone and keeps the head.
        device: where latency is measured, as "ssh:pi@host"; "local" is this machine.
        runtime: onnxruntime, litert or openvino; None takes the device's usual one.
        precision: "fp32", "fp16" or "int8", of what is timed and shipped; training is in float.
        threads: of the runtime.
        seed_network: the network to narrow: a zoo name or a spec file; None takes that of the
            weights, or else the task's usual one.
        epochs: of the seed network, or of a full training run from random weights; what inherits
            the seed network's weights gets twice as many.
        steps: training steps that a proposal of NetAdapt gets (the paper's T).
        delta: least cut per step of NetAdapt, as a fraction of the seed's latency; None is 0.01.
        tail: whether NetAdapt narrows the last convs too; None is True.
        repeats: final training runs of the result and of the baseline.
        seed: everything random follows from it.
        workers: processes that train; None is one per core.
        cluster: a Ray cluster that trains: "auto" or "ray://HOST:10001".
        out: the run's folder, new or empty; None makes one under runs/.
        start: trained weights to begin with: a run, an import, a file, or a name on the hub; None
            begins with random weights.
        method: "importance" or "netadapt" (section 4.2); None is "netadapt" with `from_scratch`,
            else "importance".
        also: weights of other networks to compare with.
        lose: points of the score that the fastest network may lose, instead of a target.
        retrain: whether NetAdapt's result is trained from random weights, as in the paper.
        from_scratch: choose the blocks first (section 4.1); the seed network is then what they are
            compared with.
        progress: receives what happens.
        **options: options of the task that search takes; `bad_share` and `compute` as in `train`;
            with `from_scratch` those of the block search: `space`, `trials`, `searcher`,
            `objective`, `reward`, `exponent`, `proxy_epochs` (None is a third of `epochs`), `batch`,
            `top`, `slack`, `supernet`, `ledger`, `study`.

    Returns:
        The run's record as in its `run.json`, with its folder under "run".

    Raises:
        InputError: wrong input, or a target that is met already or that nothing reaches.
    """
    blocks, chosen = _block_options(options, from_scratch), task_named(task)
    rest = {k: v for k, v in options.items() if k not in BLOCK_OPTIONS}
    common, own = parted(chosen, "search", rest, tasks())
    common.check()
    targets = _targets(target, lose)
    place = data_path(chosen, data)
    narrowing = _narrowing(method, from_scratch, place, steps, delta, tail)
    if place is None and epochs is None:  # few and small images, so that a first try is quick
        epochs = BUILTIN_EPOCHS
    # Weights may have to be fetched, so all else that can be wrong is looked at before.
    _refuse_weights(seed_network)
    dataset = find_images(chosen, place, own, seed=seed)
    begin = None if start is None else _begin(start, seed_network, from_scratch, progress)
    network = seed_network or (chosen.default_network if begin is None else str(begin.folder))
    spec, wrapper = chosen.arrange(network, own, dataset)
    if begin is not None:
        spec = fitting(
            chosen, spec, wrapper, begin,
            advice="leave --seed-network out to narrow the network of the weights",
        )  # fmt: skip
    others = [_told(one, None, progress) for one in also]
    for one in others:  # which else would be refused when all else is trained
        comparable(chosen, own, dataset, wrapper, spec.resolution, one.folder)
    trainings = _trainings(chosen, dataset, started=begin is not None, seed=seed, epochs=epochs)
    settings = SearchSettings(
        task=chosen.name, options=own, seed_network=network, resolution=spec.resolution,
        targets=targets, lose=lose, retrain=retrain,
        also=tuple(one.text for one in others), **narrowing, **trainings,
        heldout=HELDOUT, repeats=repeats, seed=seed, workers=cores() if workers is None else workers,
        blocks=_block_settings(blocks, trainings["training"].epochs) if from_scratch else None,
        device=device, runtime=runtime, precision=precision, threads=threads, cluster=cluster,
        compute=common.compute, bad_share=common.bad_share,
        start=None if begin is None else begin.text,
    )  # fmt: skip
    settings.check()
    folder = RunFolder(Path(out) if out is not None else fresh_folder(KIND))
    with new_folder(folder.path, lambda: _trained(folder)):
        told = progress or Silent()
        return _carry(new_run(folder.path, settings, dataset, spec, wrapper, place, told, begin))


def _targets(target: str | Sequence[str], lose: float | None) -> tuple[str, ...]:
    targets = (target,) if isinstance(target, str) else tuple(target)
    for one in targets:
        target_ms(one, 1.0)  # refuses what is no latency
    return targets if targets or lose is not None else ("70%",)


def _narrowing(
    method: Method | None, from_scratch: bool, place: str | None, steps: int | None,
    delta: float | None, tail: bool | None,
) -> dict[str, Any]:  # fmt: skip
    """The settings that say how to narrow; those of NetAdapt are refused next to another method."""
    method = method or ("netadapt" if from_scratch else "importance")
    given = {"--steps": steps, "--delta": delta, "--tail": tail}
    used = [flag for flag, value in given.items() if value is not None]
    if used and method == "importance":
        raise InputError(
            f"{', '.join(used)} belongs to NetAdapt, and this search narrows by importance; leave it out, or "
            "add --method netadapt"
        )
    if steps is None:
        steps = BUILTIN_STEPS if place is None else STEPS
    return {
        "method": method, "steps": steps, "delta": DELTA if delta is None else delta,
        "kinds": proposals(tail=tail is not False),
    }  # fmt: skip


def _trainings(
    chosen: Task, dataset: Dataset, *, started: bool, seed: int, epochs: float | None
) -> dict[str, Any]:
    """How the seed network, what inherits its weights, and a proposal are trained."""
    if epochs is not None and not 0 < epochs < float("inf"):
        raise InputError(f"epochs is {epochs}; it must be a number above 0")
    how = {"images": dataset.splits["train"], "seed": seed}
    training = chosen.recipe(None, started=started, epochs=epochs, **how)
    recovery = replace(training, epochs=RECOVERY * training.epochs)
    return {"training": training, "recovery": recovery, "tuning": tuning(training)}


def _begin(
    start: str, seed_network: str | None, from_scratch: bool, progress: Progress | None
) -> Start:
    if from_scratch:
        raise InputError(
            "--from-scratch searches for blocks, which have no weights yet; leave it or --from out"
        )
    return _told(start, seed_network, progress)


def _told(start: str, network: str | None, progress: Progress | None) -> Start:
    begun = find_start(start, network, progress)
    begun.tell(progress)
    return begun


def _block_options(options: Mapping[str, Any], from_scratch: bool) -> dict[str, Any]:
    blocks = {k: v for k, v in options.items() if k in BLOCK_OPTIONS and v is not None}
    if blocks and not from_scratch:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in blocks)
        raise InputError(
            f"{flags} goes with --from-scratch, which searches blocks; add --from-scratch or leave it out"
        )
    return blocks


def _trained(folder: RunFolder) -> bool:
    """Whether a run holds work that is worth keeping when it is refused."""
    begun = Ledger(folder.ledger)
    return any(begun.find(event=event) for event in ("blocks begun", "training begun"))


def _refuse_weights(network: str | None) -> None:
    """Raise InputError for a seed network whose weights the search would drop."""
    if network is None:
        return
    folder = RunFolder(Path(network))
    if folder.run_json.is_file() or folder.weights.is_file():
        raise InputError(
            f"a search trains {network} from random weights, so the weights of that run would be dropped; "
            f"narrow them with --from {network}, or name its {folder.spec} to search from its architecture"
        )


def _block_settings(options: Mapping[str, Any], epochs: float) -> BlockSettings:
    given: dict[str, Any] = {"proxy_epochs": max(1, round(epochs / 3)), **options}
    made = BlockSettings(epochs=given.pop("proxy_epochs"), **given)
    made.check()
    if made.ledger is not None:
        from bneck.nas.ledger import check_ledger

        check_ledger(made.ledger)  # before anything is measured
    return made


def _carry(run: Run) -> dict[str, Any]:
    if run.settings.blocks is not None and run.record["state"] != "finished":
        from bneck.runs.search.blocks import search_blocks

        search_blocks(run)
    if run.settings.blocks is None or run.settings.blocks.objective == "reward":
        run_search(run)
    return {"run": str(run.folder.path), **run.folder.read()}


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
    folder = RunFolder(Path(run))
    record_of(folder, KIND)  # what is no search is refused before a lock is left in it
    with locked(folder.path / ".lock"), resumable(folder.path):
        return _carry(resumed_run(folder, folder.read(), progress or Silent()))
