"""`bneck choose`: which published network suits a device, and with images which one becomes the best there."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bneck.devices.deployment import Deployment
from bneck.records.files import locked, write_json
from bneck.records.progress import Progress, Silent
from bneck.records.run import RunFolder
from bneck.runs.choose.contest import Contest
from bneck.runs.choose.finals import ship
from bneck.runs.choose.known import USUAL, known_networks
from bneck.runs.choose.table import device_table, draw_front
from bneck.runs.choose.weights import AtHand, at_hand
from bneck.runs.data import data_record
from bneck.runs.folder import (
    check_file,
    finish,
    fresh_folder,
    new_folder,
    new_record,
    record_of,
    resumable,
)
from bneck.runs.search.settings import target_ms
from bneck.runs.train import data_path
from bneck.specs.errors import InputError
from bneck.tasks.contract import Task
from bneck.tasks.options import parted
from bneck.tasks.registry import DEFAULT, tasks
from bneck.tasks.registry import task as task_named

KIND = "choose"
FIRST = "timm/mobilenetv3_small_100.lamb_in1k"


def choose(
    data: str | Path | None = None, target: str | None = None, *, task: str = DEFAULT,
    device: str = "local", runtime: str | None = None, precision: str = "fp32", threads: int = 1,
    start: Sequence[str] = (), resolution: int | None = None, epochs: float | None = None,
    repeats: int = 2, seed: int = 0, workers: int | None = None, plot: str | Path | None = None,
    again: bool = False, out: str | Path | None = None, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure the published networks on a device; with images choose among those there are weights of.

    Without `data` all published networks are measured. With it, networks that are too slow even at half
    their latency are dropped, the others get one epoch behind a frozen backbone from the weights at hand,
    and the best go into a search, where the best of all ships (docs/how-to/choose.md).

    Args:
        data: images, as classification reads them; None only measures.
        target: a latency, as "5ms"; needed with `data`.
        task: only classification is chosen for.
        device: where latency is measured, as in `bneck.search`.
        runtime: onnxruntime, litert or openvino; None takes the device's usual one.
        precision: "fp32", "fp16" or "int8", of what is timed and shipped.
        threads: of the runtime.
        start: further weights: runs, imports, files, names on the hub.
        resolution: of all networks, in pixels; None is 224.
        epochs: of the search's seed network.
        repeats: final training runs of the search's result and baseline.
        seed: everything random follows from it.
        workers: processes that train; None is one per core.
        plot: an svg file for published accuracy over latency; only without `data`.
        again: measure anew what earlier choices on this device have measured.
        out: the run's folder, new or empty; None makes one under runs/. Only with `data`.
        progress: receives what happens.

    Returns:
        Without `data`: `device`, `target_ms` and `networks`, the fastest first. With it, the record as in
        `run.json`, with its folder under "run" and that of the run that ships under "shipped".

    Raises:
        InputError: no target with images, one that nothing reaches, no weights, another task.
    """
    chosen, told = task_named(task), progress or Silent()
    if reason := chosen.cannot.get(KIND):
        raise InputError(f"bneck choose --task {task}: {reason}")
    limit_ms = None if target is None else _limit_ms(target)
    on = Deployment.of(device, runtime, precision, threads=threads)
    if data is None:
        given = {
            "--from": start, "--resolution": resolution, "--epochs": epochs, "--repeats": repeats != 2,
            "--seed": seed, "--workers": workers, "--out": out,
        }  # fmt: skip
        _refuse(given, "goes with --data, which names images to choose for")
        if plot is not None:
            check_file(Path(plot), ".svg", option="--plot")
        found = device_table(known_networks(), on, limit_ms, told, again=again)
        if plot is not None:
            draw_front(found, Path(plot))
        return found
    _refuse({"--plot": plot}, "draws published accuracy, and goes without --data")
    if target is None or limit_ms is None:
        raise InputError("a choice for your images needs a target; add one, as --target 5ms")
    settings = {
        "device": device, "runtime": on.runtime, "precision": precision, "threads": threads,
        "start": list(start), "resolution": resolution or USUAL, "epochs": epochs, "repeats": repeats,
        "seed": seed, "workers": workers,
    }  # fmt: skip
    known: Any = {"target": target, "target_ms": limit_ms, "settings": settings}
    return _new(chosen, data, on, known, out, told, again=again)


def _new(
    chosen: Task, data: str | Path, on: Deployment, known: Any, out: str | Path | None,
    progress: Progress, *, again: bool,
) -> dict[str, Any]:  # fmt: skip
    """A choice for some images in a new folder, from its beginning."""
    settings = known["settings"]
    place, own = data_path(chosen, data), _options(chosen, settings)
    dataset = chosen.find(place, own, seed=settings["seed"])
    hands = at_hand(settings["start"], progress)
    if not hands:
        raise InputError(
            "there are no weights at hand to choose among, neither imports nor in the hub's cache; fetch some, "
            f"as with: bneck import {FIRST} (bneck choose --target {known['target']} lists what suits this "
            "device)"
        )
    settings["start"] = [hand.text for hand in hands if hand.given]  # from wherever it is resumed
    folder = RunFolder(Path(out) if out is not None else fresh_folder(KIND))
    with new_folder(folder.path, lambda: any(folder.path.glob("probes/*/weights.safetensors"))):
        record: Any = {
            **new_record(KIND, "bneck.choose(...)"), "task": chosen.name, "metric": chosen.metric.name,
            "data": data_record(dataset, place), "classes": list(dataset.classes), **known,
        }  # fmt: skip
        write_json(folder.run_json, record)
        progress.say(f"{dataset.name}: {record['data']['found']}")
        progress.say(
            f"choose for {known['target_ms']:g} ms, in 3 parts: 1 measure the networks of {len(hands)} weights "
            "at hand and the published ones; 2 train each within reach for an epoch with a frozen backbone; 3 "
            f"search from the best; files go to {folder.path}"
        )
        contest = Contest(chosen, folder, record, own, on, progress)
        return _carry(contest, hands, again=again)


def resume_choice(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Resume a choice for some images; of a finished one the record comes back.

    Args:
        run: the run's folder.
        progress: receives what happens.

    Returns:
        The run's record, as `choose` returns it.

    Raises:
        InputError: no choice, or one that another process works on.
    """
    folder, told = RunFolder(Path(run)), progress or Silent()
    record: Any = record_of(folder, KIND)
    with locked(folder.path / ".lock"), resumable(folder.path):
        if record["state"] == "finished":
            return {"run": str(folder.path), **record}
        settings, chosen = record["settings"], task_named(record["task"])
        on = Deployment.of(
            settings["device"], settings["runtime"], settings["precision"],
            threads=settings["threads"],
        )  # fmt: skip
        contest = Contest(chosen, folder, record, _options(chosen, settings), on, told)
        hands = [] if "measured" in record else at_hand(settings["start"], told)
        return _carry(contest, hands)


def _options(chosen: Task, settings: dict[str, Any]) -> Any:
    """The task's own options."""
    _, own = parted(chosen, "train", {"resolution": settings["resolution"]}, tasks())
    return own


def _carry(contest: Contest, hands: Sequence[AtHand], *, again: bool = False) -> dict[str, Any]:
    """A choice from wherever it stands to its end; `hands` are weights that were not measured yet."""
    ranked = contest.scored(contest.within_reach(hands, again=again))
    contest.record["shipped"] = str(ship(contest, ranked))
    finish(contest.folder, contest.record)
    shutil.rmtree(contest.folder.scratch, ignore_errors=True)
    return {"run": str(contest.folder.path), **contest.record}


def _limit_ms(target: str) -> float:
    limit_ms = target_ms(target, math.nan)
    if math.isnan(limit_ms):
        raise InputError(
            f"the target is {target}, a share of a network's latency, and there is none yet; write a time "
            "with its unit, as 5ms"
        )
    return limit_ms


def _refuse(given: dict[str, Any], why: str) -> None:
    used = [flag for flag, value in given.items() if value not in (None, False, 0, (), [])]
    if used:
        raise InputError(f"{', '.join(used)} {why}; leave it out")
