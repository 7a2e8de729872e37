"""Float, post-training and fine-tuned int8 of a trained network side by side, for every task."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bneck.data.vary import Augment
from bneck.devices.measure import measure
from bneck.devices.models import wrapped_model
from bneck.devices.protocol import Protocol, TimingError
from bneck.devices.runtimes import Runtime, runtime
from bneck.graphs.forms import form
from bneck.nets.calibrate import LayerError, layer_errors, naive
from bneck.nets.quantize import Quantized, emulation
from bneck.records.files import write_json
from bneck.records.progress import Advancing, Progress, Silent
from bneck.runs.answers import FileAnswers
from bneck.runs.data import Samples, data_name, run_images
from bneck.runs.export import CALIBRATING, CHECKED, calibrated, ending, format_of, size_mb
from bneck.runs.files import write_file
from bneck.runs.load import Trained, trained
from bneck.runs.measure import candidate_of_file, check_rounds
from bneck.runs.progress import Steps
from bneck.specs.errors import InputError
from bneck.tasks.contract import Data
from bneck.training.loop import OnStep, fit
from bneck.training.processes import ALONE, ProcessGroup, device_of
from bneck.training.settings import Settings

WORST = 10  # layers named in the report
PROBED = 16  # images that layers are rounded one by one on
EPOCHS = 2.0
LR = 1e-5  # peak of fine-tuning; 1e-4 spoils narrow networks, see docs/lab-log.md


def quantize(
    network: str | Path,
    *,
    data: str | Path | None = None,
    runtime_name: str = "litert",
    epochs: float | None = None,
    lr: float = LR,
    rounds: int = 20,
    out: str | Path | None = None,
    seed: int = 0,
    compute: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Quantize a trained network to int8, post-training and by fine-tuning (QAT), and compare.

    Every file is written, checked against its module and scored on the val images in the runtime
    itself; they are timed interleaved, and left untimed on too busy a machine. "naive" is what one
    scale per weight tensor and the plain extremes of activations would give, scored but not kept.

    Args:
        network: a finished run's or import's folder.
        data: a dataset as the task reads it, whose classes are found among the network's as `evaluate` finds
            them; None takes that of the run, split as the run split it.
        runtime_name: "litert", "onnxruntime" or "openvino".
        epochs: of fine-tuning, 2 by default; 0 leaves it out.
        lr: its peak learning rate.
        rounds: shuffled rounds of timing.
        out: the folder of the files and of quantize.json; None: `8bit` in the run's folder.
        seed: of the order of the images.
        compute: where to fine-tune: "cpu", "cuda" or "cuda:1"; None takes a GPU if there is one.
        progress: receives what happens.

    Returns:
        the record that quantize.json holds: `rows` with the scores, latency, ratio to float and size;
        `calibration`, which images the ranges are from; `layers`, the ten whose rounding alone changes the
        outputs most.

    Raises:
        InputError: an untrained network, no dataset, no such runtime.
    """
    told, engine = progress or Silent(), runtime(runtime_name)
    form(engine.name, "int8")
    check_rounds(1, rounds)
    epochs = EPOCHS if epochs is None else epochs
    if epochs < 0 or not lr > 0:
        raise InputError(f"epochs is {epochs} and lr {lr}; they must be at least 0 and above 0")
    run = trained(network)
    place = Path(out) if out is not None else Path(network) / "8bit"
    tuned = f", {epochs:g} epochs of QAT fine-tuning" if epochs else ""
    with tempfile.TemporaryDirectory() as scratch:
        dataset, images = run_images(run, data, Path(scratch), told)
        told.say(
            f"int8 of {run.spec.name} for {engine.name}: PTQ{tuned}, each file scored on "
            f"{dataset.splits['val']} val images, then {rounds} rounds of timing; files go to {place}"
        )
        job = _Job(run, images, dataset, engine, place, told)
        errors = job.compare(rounds, epochs=epochs, lr=lr, seed=seed, compute=compute)
    found = {
        "network": run.spec.name, "task": run.task.name, "data": data_name(run.record, data),
        "classes": list(dataset.classes), "images": dict(dataset.splits), "runtime": engine.name,
        "runtime_version": engine.version, "epochs": epochs,
        "calibration": job.calibrating.as_json(), "metrics": {"score": run.task.metric.name},
        "rows": list(job.rows.values()),
        "layers": [asdict(error) for error in errors[:WORST]],
    }  # fmt: skip
    write_json(place / "quantize.json", found)
    return found


class _Job:
    """The files of one comparison."""

    def __init__(
        self, run: Trained, data: Data, dataset: Any, engine: Runtime, folder: Path,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.run, self.data, self.engine = run, data, engine
        self.folder, self.progress = folder, progress
        self.size = run.task.size(run.spec, run.wrapper, run.task.Options())
        samples = Samples(run, dataset=dataset)
        self.calibrating = samples.drawn("train", self.size, CALIBRATING)
        self.checked = samples.of("val", self.size, CHECKED)
        self.rows: dict[str, dict[str, Any]] = {}

    def compare(self, rounds: int, *, epochs: float, **how: Any) -> list[LayerError]:
        """Write, score and time all; what rounding each layer alone does comes back."""
        hswish = form(self.engine.name, "int8")
        post = calibrated(self.run, self.calibrating, self.engine, self.progress)
        self.add("fp32", None)
        self.score_only("naive", naive(self.run.net, self.calibrating.batches(), hswish))
        self.add("ptq", post)
        if epochs:
            how |= {"epochs": epochs, "progress": self.progress}
            self.add("qat", tune(self.run, post, self.data, **how))
        time_rows(list(self.rows.values()), self.engine.name, rounds, self.progress)
        return layer_errors(self.run.net, post, self.calibrating.first(PROBED))

    def add(self, name: str, quantized: Quantized | None) -> None:
        """Write, check and score one file."""
        path = self.folder / f"{name}{self.engine.suffix}"
        check = write_file(
            self.run.task, self.run.net, path, self.checked, record=self.run.record,
            options=self.run.task.Options(), engine=self.engine,
            precision="int8" if quantized else "fp32", quantized=quantized, scored=True,
        )  # fmt: skip
        self.rows[name] = {
            "name": name, **self._scored(path), "size_mb": size_mb(path), "file": str(path), **check,
        }  # fmt: skip

    def score_only(self, name: str, quantized: Quantized) -> None:
        """Score a file that nobody keeps, so how near it comes to its simulation is not asked."""
        task, net = self.run.task, self.run.net
        options = task.Options()
        data = wrapped_model(
            net.wrapped, self.engine, self.size, "int8", weights=quantized.weights, ranges=quantized.ranges,
            metadata=task.metadata(net, self.run.record, self.engine, "int8", self.size, options),
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}{self.engine.suffix}"
            self.engine.write(path, data)
            self.rows[name] = {"name": name, **self._scored(path), "size_mb": size_mb(path)}

    def _scored(self, path: Path) -> dict[str, Any]:
        found = self.data.evaluate(FileAnswers(path, self.engine.name), "val", self.progress)
        numbers = {k: v for k, v in found.details.items() if isinstance(v, float)}
        return {"score": found.score, **numbers}


def recovered(
    run: Trained,
    data: Data,
    engine: Runtime,
    *,
    compute: str | None = None,
    seed: int = 0,
    progress: Progress,
) -> dict[str, Any]:
    """The int8 file of a run that scores best on val: calibrated only, or fine-tuned with its rounding.

    Args:
        run: a finished run; the file goes into its folder.
        data: what it was trained on, opened already.
        engine: the runtime that the file is for.
        compute: where to fine-tune.
        seed: of the order of the images.
        progress: receives what happens.

    Returns:
        file, format, runtime, precision, size_mb, score; the scores of both as "ptq" and "qat"; the
        check of the file; `calibration`, which images the ranges are from.
    """
    assert run.folder is not None
    with tempfile.TemporaryDirectory(dir=run.folder.path) as scratch:
        job = _Job(run, data, None, engine, Path(scratch), progress)
        post = calibrated(run, job.calibrating, engine, progress)
        job.add("ptq", post)
        job.add("qat", tune(run, post, data, seed=seed, compute=compute, progress=progress))
        best = max(job.rows.values(), key=lambda row: row["score"])
        file = run.folder.path / f"model{ending('int8')}{engine.suffix}"
        for kept in Path(scratch).glob(f"{best['name']}.*"):  # OpenVINO's are two
            shutil.move(kept, file.with_suffix(kept.suffix))
    return {
        **best, "name": file.name, "file": str(file), "format": format_of(engine.name),
        "runtime": engine.name, "runtime_version": engine.version, "precision": "int8",
        **{row["name"]: row["score"] for row in job.rows.values()},
        "calibration": job.calibrating.as_json(),
    }  # fmt: skip


def tune(
    run: Trained,
    post: Quantized,
    data: Data,
    *,
    epochs: float = EPOCHS,
    lr: float = LR,
    seed: int = 0,
    compute: str | None = None,
    checkpoint: Path | None = None,
    progress: Progress,
) -> Quantized:
    """A calibrated network, fine-tuned with its rounding (QAT) on the train images of `data`.

    It learns the answers of the float network, not the labels.

    Args:
        run, post: the network, in float and calibrated.
        data: images in the classes of the network.
        epochs, lr, seed, compute: as in `quantize`.
        checkpoint: a file to save to and to resume from, see `training.loop.fit`.
        progress: receives the steps.

    Raises:
        TrainingError: see `training.loop.fit`.
    """
    settings = _settings(data.fitted(heldout=False), epochs, lr, seed)
    return fine_tune(
        run.net, post, data, settings, group=ProcessGroup(device=device_of(compute)),
        checkpoint=checkpoint, on_step=Steps(progress, "QAT fine-tuning"),
    )  # fmt: skip


def _settings(images: int, epochs: float, lr: float, seed: int) -> Settings:
    batch = min(64, max(4, images // 10))
    return Settings(
        epochs=epochs, batch=batch, lr=lr, schedule="cosine",
        warmup=min(0.25, epochs / 4), average=0.99, augment=Augment(area=(0.6, 1.0)), seed=seed,
        teach=1.0, temperature=1.0,  # labels alone cost a network that has learned from a teacher a point
    )  # fmt: skip


def fine_tune(
    net: Any,
    quantized: Quantized,
    data: Data,
    settings: Settings,
    *,
    group: ProcessGroup = ALONE,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> Quantized:
    """Quantisation-aware fine-tuning of a calibrated network of any task; its ranges stay.

    The float network is the teacher, as much as the settings say.

    Raises:
        TrainingError: see `training.loop.fit`.
    """
    simulated = emulation(net, quantized)
    problem = data.problem(simulated, settings, group=group, teacher=deepcopy(net))
    fit(simulated, problem, settings, group=group, checkpoint=checkpoint, on_step=on_step)
    return Quantized(
        weights=simulated.cpu().weights(), ranges=quantized.ranges, hswish=quantized.hswish
    )


def time_rows(
    rows: Sequence[dict[str, Any]], runtime_name: str, rounds: int, progress: Progress
) -> None:
    """Enter `latency_ms` and the `ratio` to the first into rows with a "file", if the machine is quiet."""
    kept = [row for row in rows if "file" in row]
    candidates = [candidate_of_file(Path(row["file"]), runtime_name) for row in kept]
    progress.stage("timing", rounds)
    try:
        protocol = Protocol(rounds=rounds)
        found = measure(candidates, protocol=protocol, on_round=Advancing(progress))
    except TimingError as error:  # what was trained and scored is worth more than its time
        progress.say(f"not timed: {error}")
        return
    for row, one in zip(kept, found, strict=True):
        row["latency_ms"] = one.latency_ms.median
        row["ratio"] = asdict(one.ratio(found[0]))
