"""The rows of `bneck ship`: a file for each runtime and precision at hand, checked, scored, timed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from bneck.devices.measure import measure
from bneck.devices.memory import memory_mb
from bneck.devices.models import check_heads
from bneck.devices.places import opened
from bneck.devices.protocol import Protocol
from bneck.devices.runtimes import FORMATS, MissingRuntime, Runtime, runtime
from bneck.graphs.forms import FORMS, PRECISIONS, Precision, form
from bneck.nets.quantize import Quantized
from bneck.records.files import write_json
from bneck.records.progress import Advancing, Progress
from bneck.runs.answers import FileAnswers, ModuleAnswers
from bneck.runs.data import Samples
from bneck.runs.export import CALIBRATING, CHECKED, calibrated, ending, size_mb
from bneck.runs.files import write_file
from bneck.runs.load import Trained
from bneck.runs.measure import LARGE, PATIENT, candidate_of_file
from bneck.runs.quantize import tune
from bneck.specs.errors import InputError
from bneck.specs.wrapper import PLAIN
from bneck.tasks.contract import Data, Dataset

Pair = tuple[Runtime, Precision]
TUNED = "-qat"  # what the name of a fine-tuned file adds
Skipped = tuple[str, str, str]  # runtime, precision ("" for all), why


@dataclass(slots=True)
class Row:
    """A file: where it lies, what it is, and what was found of it.

    `parts` are the endings of further files that belong to it. `epochs` are those of QAT fine-tuning, 0 for
    none. `latency_ms` has median, p10, p90, `ratio` is
    the time relative to fp32 in the same runtime; None where nothing was timed. `memory_mb` is None where it
    is unknown. `check` is what `Task.compare` found.
    """

    runtime: str
    runtime_version: str
    precision: str
    file: str
    size_mb: float
    score: float | None
    memory_mb: float | None
    sha256: str
    check: dict[str, Any] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    epochs: float = 0.0
    latency_ms: dict[str, float] | None = None
    ratio: float | None = None
    measured_on: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AtHand:
    """Runtimes with the precisions to write files for, and what was skipped."""

    pairs: list[Pair]
    skipped: list[Skipped]


def at_hand(
    run: Trained, device: str, runtimes: tuple[str, ...] = (), precisions: tuple[str, ...] = (),
    *, make: Callable[[str], Runtime] = runtime,
) -> AtHand:  # fmt: skip
    """What can be written here and timed on a device; torch's own file is none that ships without bneck.

    Args:
        run: the network; runtimes that have no files of its head are skipped.
        device: where it will run.
        runtimes, precisions: those asked for; () takes all.
        make: gives a runtime by its name.

    Raises:
        InputError: no such device, a runtime or precision that was asked for and is not there, or none is.
    """
    for kind in precisions:
        if kind not in PRECISIONS:
            raise InputError(f"there is no precision {kind!r}; known are {', '.join(PRECISIONS)}")
    shipped = [name for name in FORMATS.values() if name != "torch"]
    for name in runtimes:
        if name not in shipped:
            raise InputError(
                f"bneck ship writes no files for the runtime {name!r}; it writes them for {', '.join(shipped)}"
            )
    engines: list[Runtime] = []
    skipped: list[Skipped] = []
    missing: list[str] = []
    with opened(device) as there:
        for name in runtimes:
            there.check(name)
        for name in runtimes or tuple(one for one in shipped if one in there.runtimes):
            try:
                if run.wrapper != PLAIN:
                    check_heads(name)
                engine = make(name)
                there.version(name)
            except InputError as error:
                if runtimes:
                    raise
                skipped.append((name, "", str(error)))
                missing += [error.install] if isinstance(error, MissingRuntime) else []
            else:
                engines.append(engine)
    if not engines:
        how = f"; install one, for example with: {missing[0]}" if missing else ""
        raise InputError(f"no runtime is at hand for {device}{how}")
    kinds = [one for one in PRECISIONS if not precisions or one in precisions]
    pairs: list[Pair] = [
        (engine, kind) for engine, kind in product(engines, kinds) if (engine.name, kind) in FORMS
    ]
    if not pairs:
        named = ", ".join(one.name for one in engines)
        raise InputError(f"{named} does not run {', '.join(precisions)}; name another --precision")
    return AtHand(pairs, skipped)


class Rows:
    """Writes the files into a folder, one after the other; those of an earlier, interrupted try are taken.

    `state` says what they are files of; with another one everything is written again. With `epochs` of QAT
    fine-tuning each runtime also has a fine-tuned int8 file.
    """

    def __init__(
        self, run: Trained, dataset: Dataset, data: Data, folder: Path, begun: Path,
        state: dict[str, Any], progress: Progress, *, epochs: float = 0.0,
    ) -> None:  # fmt: skip
        self.run, self.data, self.folder, self.progress = run, data, folder, progress
        self.begun, self.state, self.epochs = begun, state, epochs
        self.skipped: list[Skipped] = []
        self.calibration: dict[str, Any] | None = None
        self.size = run.task.size(run.spec, run.wrapper, run.task.Options())
        samples = Samples(run, dataset=dataset)
        self.drawn = samples.drawn("train", self.size, CALIBRATING)
        self.checked = samples.of("val", self.size, CHECKED)
        self._quantized: dict[tuple[str, float], Quantized] = {}
        self._done = self._earlier()

    def all(self, pairs: Sequence[Pair]) -> list[Row]:
        """A row for every pair whose file can be written; the others are skipped with a reason.

        Raises:
            InputError: none can be written.
        """
        found = []
        for engine, precision in pairs:
            for epochs in (0.0, self.epochs) if precision == "int8" and self.epochs else (0.0,):
                try:
                    found.append(self._row(engine, precision, epochs))
                except InputError as error:
                    kind = f"{precision}{TUNED if epochs else ''}"
                    self.skipped.append((engine.name, kind, str(error)))
        if not found:
            raise InputError(self.skipped[0][2])
        return found

    def float_score(self, rows: Sequence[Row]) -> float | None:
        """What the float network scores: its file, or where none was written the module."""
        plain = next((one for one in rows if one.precision == "fp32"), None)
        if plain is not None:
            return plain.score
        answers = ModuleAnswers(self.run.task, self.run.net, self.run.labels)
        return self.data.evaluate(answers, "val", self.progress).score

    def _row(self, engine: Runtime, precision: Precision, epochs: float) -> Row:
        last = ending(precision) + (TUNED if epochs else "")
        path = self.folder / f"model{last}{engine.suffix}"
        key = f"{engine.name} {engine.version} {precision} {epochs:g}"
        done = self._done.get(key)
        if precision == "int8":
            self.calibration = self.drawn.as_json()
        if done is not None and path.is_file() and done.sha256 == _digest(engine, path):
            return done
        self.folder.mkdir(exist_ok=True)
        task, record = self.run.task, self.run.record
        check = write_file(
            task, self.run.net, path, self.checked, record=record, options=task.Options(), engine=engine,
            precision=precision, scored=True,
            quantized=self._rounded(engine, epochs) if precision == "int8" else None,
        )  # fmt: skip
        self.progress.stage(f"{precision} in {engine.name}", 1)
        answers = FileAnswers(path, engine.name)
        parts = [".bin"] if path.with_suffix(".bin").is_file() else []
        row = Row(
            runtime=engine.name, runtime_version=engine.version, precision=precision, file=path.name,
            size_mb=size_mb(path), score=self.data.evaluate(answers, "val", self.progress).score,
            memory_mb=memory_mb(path, engine.name, (self.run.spec.channels, *self.size)),
            sha256=_digest(engine, path), check=check, parts=parts, epochs=epochs,
        )  # fmt: skip
        self._done[key] = row
        kept = {name: asdict(one) for name, one in self._done.items()}
        write_json(self.begun, {"state": self.state, "rows": kept})
        return row

    def _rounded(self, engine: Runtime, epochs: float) -> Quantized:
        """The network in int8, calibrated and fine-tuned once for each form of h-swish."""
        hswish = form(engine.name, "int8")
        if (hswish, epochs) not in self._quantized:
            if epochs:
                made = tune(
                    self.run, self._rounded(engine, 0.0), self.data, epochs=epochs, progress=self.progress,
                    checkpoint=self.folder / f"{hswish}-{epochs:g}.checkpoint",
                )  # fmt: skip
            else:
                made = calibrated(self.run, self.drawn, engine, self.progress)
            self._quantized[hswish, epochs] = made
        return self._quantized[hswish, epochs]

    def _earlier(self) -> dict[str, Row]:
        held = json.loads(self.begun.read_text("utf-8")) if self.begun.is_file() else {}
        if held.get("state") != json.loads(json.dumps(self.state)):
            shutil.rmtree(self.folder, ignore_errors=True)  # checkpoints of another network too
            return {}
        names = {one.name for one in fields(Row)}
        return {
            name: Row(**{key: v for key, v in values.items() if key in names})
            for name, values in held["rows"].items()
        }


def timed(
    rows: Sequence[Row], folder: Path, device: str, threads: int, rounds: int, progress: Progress
) -> None:  # fmt: skip
    """Enter latencies, measured interleaved on a device.

    Raises:
        TimingError: the machine was too busy.
    """
    candidates = [candidate_of_file(folder / one.file, one.runtime) for one in rows]
    large = any(one.size[1] * one.size[2] >= LARGE for one in candidates)
    protocol = replace(PATIENT if large else Protocol(), threads=threads, rounds=rounds)
    progress.stage("timing", rounds)
    found = measure(candidates, place=device, protocol=protocol, on_round=Advancing(progress))
    plain = {
        row.runtime: one for row, one in zip(rows, found, strict=True) if row.precision == "fp32"
    }
    for row, one in zip(rows, found, strict=True):
        row.latency_ms = asdict(one.latency_ms)
        row.measured_on = asdict(one.device)
        if row.runtime in plain:
            row.ratio = one.ratio(plain[row.runtime]).median


def _digest(engine: Runtime, path: Path) -> str:
    """Of all bytes that the runtime loads."""
    return hashlib.sha256(engine.read(path)).hexdigest()
