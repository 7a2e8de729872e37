"""`bneck ship`: a network in every runtime and precision at hand; the fastest file that loses little."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from bneck.devices.protocol import TimingError
from bneck.records.commit import commit
from bneck.records.files import locked, write_json, write_text
from bneck.records.progress import Progress, Silent
from bneck.runs.data import data_name, run_images
from bneck.runs.load import Trained, trained
from bneck.runs.measure import check_rounds
from bneck.runs.quantize import EPOCHS
from bneck.runs.ship.card import card
from bneck.runs.ship.rows import Row, Rows, at_hand, timed
from bneck.specs.errors import InputError
from bneck.tasks.contract import Dataset

FOLDER, RECORD, CARD = "ship", "ship.json", "model-card.md"
WORK, BEGUN = "files", "rows.json"  # while it works: every file, and what is known of each
LOSE = 1.0  # points
EXACT = 1e-9  # of points: 100 * (0.8 - 0.79) is a little more than 1


def ship(
    network: str | Path,
    *,
    data: str | Path | None = None,
    device: str = "local",
    runtime: Sequence[str] = (),
    precision: Sequence[str] = (),
    lose: float = LOSE,
    epochs: float = 0.0,
    threads: int = 1,
    rounds: int = 20,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a trained network's file for every runtime and precision, and keep the fastest that loses little.

    Each file is checked against the module, scored on the val images in its own runtime on this machine, and
    timed on the device, all interleaved. Called again after an interruption, files that are done are taken as
    they are.

    Args:
        network: a finished run's, search's or import's folder.
        data: a dataset as the task reads it, see `quantize`; None takes the run's.
        device: where the files are timed; it decides which runtimes there are.
        runtime, precision: those to try; () takes all that are installed, here and on the device.
        lose: points of the task's metric, in percent, that the file may lose to float.
        epochs: of QAT fine-tuning: each runtime then also has an int8 file that is fine-tuned; 0 for none.
        threads, rounds: of the runtime; shuffled rounds of timing.
        out: the folder; None: `ship` in the run's folder.
        progress: receives what happens.

    Returns:
        the record that ship.json holds: `rows` with runtime, precision, size, score, its loss in points,
        latency and memory; `skipped` with the reasons; `picked`, the place of the file in `rows`, None where
        none is good enough; `file` and `card`; `notes`, sentences.

    Raises:
        InputError: an untrained network, no runtime at hand, no val images, or a folder with other files.
    """
    told = progress or Silent()
    check_rounds(threads, rounds)
    if not 0 <= lose <= 100:
        raise InputError(f"lose is {lose}; it must be from 0 to 100 points")
    if not epochs >= 0:
        raise InputError(f"epochs is {epochs}; it must be at least 0")
    run = trained(network)
    assert run.folder is not None
    hand = at_hand(run, device, tuple(runtime), tuple(precision))
    folder = Path(out) if out is not None else run.folder.path / FOLDER
    weights = hashlib.sha256(run.folder.weights.read_bytes()).hexdigest()
    _check_folder(folder, run, weights)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"), tempfile.TemporaryDirectory() as scratch:
        dataset, images = run_images(run, data, Path(scratch), told)
        _check_val(dataset, data_name(run.record, data))
        state = _state(weights, dataset)
        rows = Rows(
            run, dataset, images, folder / WORK, folder / WORK / BEGUN, state, told, epochs=epochs
        )
        found, skipped = rows.all(hand.pairs), [*hand.skipped, *rows.skipped]
        base = rows.float_score(found)
        notes = _times(found, folder / WORK, device, threads, rounds, told)
        notes += _improved(found, base, lose, network)
        picked = _picked(found, base, lose, notes)
        record = {
            "network": run.spec.name, "digest": run.spec.digest(), "weights": weights, "task": run.task.name,
            "metric": run.task.metric.name, "data": data_name(run.record, data),
            "images": dict(dataset.splits), "calibration": rows.calibration, "device": device,
            "threads": threads, "lose": lose, "epochs": epochs, "float": base,
            "rows": [{**asdict(one), "loss": _loss(one, base)} for one in found],
            "skipped": [dict(zip(("runtime", "precision", "why"), one, strict=True)) for one in skipped],
            "picked": None if picked is None else found.index(picked), "notes": notes,
        }  # fmt: skip
        _keep(folder, record, run, picked)
    return record


def _check_val(dataset: Dataset, where: str) -> None:
    """Raise InputError where there are no images to judge a file on."""
    if not dataset.splits.get("val"):
        raise InputError(
            f"{where} has no val images, so no file can be judged; add some, or pass other images with --data"
        )


def _state(weights: str, dataset: Dataset) -> dict[str, Any]:
    """What files that an interrupted call has left must be of, to be taken."""
    return {
        "weights": weights, "version": metadata.version("bneck"), "commit": commit(),
        "data": [str(dataset.place), dict(dataset.splits), dataset.facts.get("fingerprint")],
    }  # fmt: skip


def _check_folder(folder: Path, run: Trained, weights: str) -> None:
    """Raise InputError for a folder that holds what another network's or no `ship` has written."""
    if not folder.exists() or (folder.is_dir() and not [*folder.glob("[!.]*")]):
        return
    if (folder / RECORD).is_file():
        held = json.loads((folder / RECORD).read_text("utf-8"))
        if held.get("digest") == run.spec.digest() or held.get("weights") == weights:
            return
        raise InputError(
            f"{folder} holds the file of {held.get('network')}, another network; choose another --out"
        )
    if not (folder / WORK / BEGUN).is_file():
        raise InputError(
            f"{folder} is not a folder that bneck ship has written; move it away or choose another --out"
        )


def _times(
    rows: Sequence[Row], folder: Path, device: str, threads: int, rounds: int, progress: Progress
) -> list[str]:
    """Enter the latencies; sentences on what could not be measured, and on int8 that does not pay."""
    try:
        timed(rows, folder, device, threads, rounds, progress)
    except TimingError as error:  # what was written and scored is worth more than its time
        return [f"not timed, so the smallest file is picked: {error}"]
    plain = {one.runtime: one for one in rows if one.precision == "fp32"}
    notes = []
    for one in rows:
        base = plain.get(one.runtime)
        if one.precision == "int8" and base is not None and (one.ratio or 0) > 1:
            notes.append(f"int8 is slower than fp32 in {one.runtime} here: {one.ratio:.2f} times")
    return notes


def _loss(row: Row, base: float | None) -> float | None:
    """Points lost to float."""
    return None if base is None or row.score is None else 100 * (base - row.score)


def _improved(
    rows: Sequence[Row], base: float | None, lose: float, network: str | Path
) -> list[str]:
    """What makes int8 lose less where it loses more than allowed in some runtimes, with the command."""
    far: dict[str, float] = {}
    for one in rows:
        loss = _loss(one, base)
        if one.precision == "int8" and loss is not None:
            far[one.runtime] = min(loss, far.get(one.runtime, loss))
    told = " and ".join(
        f"{loss:.1f} in {name}" for name, loss in far.items() if loss > lose + EXACT
    )
    if not told:
        return []
    done = max(one.epochs for one in rows)
    again = shlex.join(["bneck", "ship", str(network), "--epochs", f"{2 * done or EPOCHS:g}"])
    tuned = f" after {done:g} epochs of fine-tuning" if done else ""
    return [f"int8 loses {told}{tuned}, of {lose:g} points allowed; fine-tune it with: {again}"]


def _picked(rows: Sequence[Row], base: float | None, lose: float, notes: list[str]) -> Row | None:
    """The fastest of the rows that lose little enough; of rows without a time the smallest."""
    if base is None:
        notes.append("the score on val is undefined, so no file is picked")
        return None
    losses = [(_loss(one, base), one) for one in rows]
    near = [one for loss, one in losses if loss is not None and loss <= lose + EXACT]
    if not near:
        least = min((loss for loss, _ in losses if loss is not None), default=None)
        told = "none has a score" if least is None else f"the best loses {least:.1f}"
        notes.append(f"no file is within {lose:g} points of float: {told}; raise --lose")
        return None
    if all(one.latency_ms is not None for one in near):
        best = min(near, key=lambda one: one.latency_ms["median"] if one.latency_ms else 0.0)
    else:
        best = min(near, key=lambda one: one.size_mb)
    # Calibrated and fine-tuned, a network is computed in the same time.
    alike = [one for one in near if (one.runtime, one.precision) == (best.runtime, best.precision)]
    return max(alike, key=lambda one: one.score or 0.0)


def _keep(folder: Path, record: dict[str, Any], run: Trained, picked: Row | None) -> None:
    """Leave the picked file with its card and the record; all other files go."""
    if (folder / RECORD).is_file():
        before = json.loads((folder / RECORD).read_text("utf-8"))
        for name in before.get("files", ()):
            (folder / name).unlink(missing_ok=True)
    files = []
    if picked is not None:
        for part in sorted((folder / WORK).glob(f"{Path(picked.file).stem}.*")):
            if part.suffix in (Path(picked.file).suffix, *picked.parts):
                shutil.move(part, folder / part.name)
                files.append(part.name)
    record["files"] = files
    record["file"] = None if picked is None else str(folder / picked.file)
    record["card"] = None if picked is None else str(folder / CARD)
    if picked is None:
        (folder / CARD).unlink(missing_ok=True)
    else:
        write_text(folder / CARD, card(record, run, picked, folder))
    write_json(folder / RECORD, record)
    shutil.rmtree(folder / WORK)
