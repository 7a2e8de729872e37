"""Exporting a network of any task to a runtime's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from bneck.devices.models import check_heads
from bneck.devices.runtimes import FORMATS, Runtime, runtime
from bneck.graphs.forms import PRECISIONS, form
from bneck.nets.calibrate import calibrate
from bneck.nets.quantize import Quantized
from bneck.records.progress import Progress, Silent
from bneck.runs.data import Drawn, Samples
from bneck.runs.files import write_file
from bneck.runs.folder import check_file
from bneck.runs.load import Trained, named
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import PLAIN
from bneck.tasks.checks import advice
from bneck.tasks.options import parted
from bneck.tasks.registry import tasks

CHECKED, CALIBRATING = 32, 128  # images that a file is checked with, and int8 is calibrated on


def export(
    network: str | Path | NetSpec,
    format: str = "onnx",
    *,
    precision: str = "fp32",
    task: str | None = None,
    out: str | Path | None = None,
    data: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write a network as a file that a runtime runs, checked against the module on real images.

    Args:
        network: a finished run's or import's folder; a zoo name or spec file gives random weights.
        format: "onnx", "tflite", "openvino", "pte" or "torch".
        precision: "fp32", "fp16" (weights in half precision) or "int8" (post-training quantization).
        task: of a zoo name or a spec file, None the default one; a run knows its own.
        out: the file; None: `model` in the run's folder, or the network's name here.
        data: a folder of pictures to calibrate and check with; None takes those of the run: int8 is
            calibrated on train images and checked on val images.
        progress: receives what happens.
        **options: options of the task that export takes (docs/commands.md).

    Returns:
        file, network, task, format, runtime, precision, size in pixels, size_mb, whether it is
        trained, how the check went (see `Task.compare`), `calibration` (the images of an int8 file), and
        `notes`, sentences.

    Raises:
        InputError: no such network or format, a runtime that is not installed or has no such files,
            no images to calibrate with, or a file that does not answer as the module does.
    """
    told = progress or Silent()
    check_format(format, precision)
    run = named(network, task)
    if run.wrapper != PLAIN:
        check_heads(FORMATS[format])
    engine = runtime(FORMATS[format])
    _, own = parted(run.task, "export", options, tasks())
    size = run.task.size(run.spec, run.wrapper, own)
    samples = Samples(run, data)
    if precision == "int8" and not samples.known:
        raise InputError(
            "int8 needs images like those that the network will see, to calibrate with; pass a folder of a "
            "few hundred with --data"
        )
    quantized, calibration = None, {}
    if precision == "int8":
        drawn = samples.drawn("train", size, CALIBRATING)
        quantized, calibration = calibrated(run, drawn, engine, told), drawn.as_json()
    path = Path(out) if out is not None else _next_to(run, own, precision, engine.suffix)
    check_file(path, engine.suffix, replaces=engine.suffix != ".safetensors")
    check = write_file(
        run.task, run.net, path, samples.of("val", size, CHECKED), record=run.record, options=own,
        engine=engine, precision=precision, quantized=quantized,  # type: ignore[arg-type]
    )  # fmt: skip
    return {
        "file": str(path), "network": run.spec.name, "task": run.task.name, "format": format,
        "runtime": engine.name, "runtime_version": engine.version, "precision": precision,
        "size": list(size), "trained": bool(run.record), "size_mb": size_mb(path), **check,
        **({"calibration": calibration} if calibration else {}),
        "notes": advice(check, run.task.agrees) if run.record else [],
    }  # fmt: skip


def check_format(format: str, precision: str) -> None:
    """Whether there is such a format, and its runtime runs that precision.

    Raises:
        InputError: there is none, or it does not.
    """
    if format not in FORMATS:
        raise InputError(f"there is no format {format!r}; known are {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise InputError(f"there is no precision {precision!r}; known are {', '.join(PRECISIONS)}")
    form(FORMATS[format], precision)


def format_of(runtime_name: str) -> str:
    """The export format of what a runtime loads."""
    return next(name for name, engine in FORMATS.items() if engine == runtime_name)


def calibrated(run: Trained, images: Drawn, engine: Runtime, progress: Progress) -> Quantized:
    """A net in int8, post-training, in a runtime's form; which images it is calibrated on is said.

    Raises:
        InputError: too few images, or the runtime knows no int8.
    """
    progress.say(images.line())
    progress.stage("calibrating", len(images.names))

    def told() -> Iterator[Tensor]:
        for batch in images.batches():
            yield batch
            progress.advance(len(batch))

    return calibrate(run.net, told(), form(engine.name, "int8"))


def size_mb(path: Path) -> float:
    """Size of a model's files in megabytes (10^6 bytes)."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def ending(precision: str) -> str:
    """What a file's name says of its precision: nothing for fp32."""
    return "" if precision == "fp32" else f"-{precision}"


def _next_to(run: Trained, options: Any, precision: str, suffix: str) -> Path:
    last = ending(precision) + suffix
    if run.folder is not None:
        # Files whose outputs differ have different names, as those that a training writes.
        finished = run.task.finished
        stems = {finished(own): Path(name).stem for name, own in run.task.variants()}
        return run.folder.path / f"{stems.get(finished(options), 'model')}{last}"
    return Path(run.spec.name.replace("/", "-") + last)
