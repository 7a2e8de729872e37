"""Latency of networks of any task on a device, all interleaved in shuffled rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from bneck.devices.measure import Candidate
from bneck.devices.measure import measure as measure_candidates
from bneck.devices.models import wrapped_model
from bneck.devices.places import usual_runtime
from bneck.devices.protocol import Protocol
from bneck.devices.runtimes import file_runtimes, runtime
from bneck.records.measurement import Measurement
from bneck.records.run import RunFolder, task_run
from bneck.runs.answers import image_size
from bneck.runs.load import of_task, task_of, wrapper_of
from bneck.specs.errors import InputError, few
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, load
from bneck.specs.transforms import rename
from bneck.tasks.contract import Task
from bneck.tasks.options import flag_of, of_command, parted
from bneck.tasks.registry import DEFAULT, tasks
from bneck.tasks.registry import task as task_named

# Images of so many pixels take tenths of a second and more, so that few runs are enough for a burst.
LARGE = 1 << 17
PATIENT = Protocol(burst_ms=0.0, least_runs=1, warmup=1, first_warmup=1, max_repeats=2)


def measure(
    *networks: str | Path | NetSpec,
    task: str | None = None,
    threads: int = 1,
    rounds: int = 20,
    device: str = "local",
    runtime: str | Sequence[str] | None = None,
    precision: str | Sequence[str] = "fp32",
    profile: bool = False,
    on_round: Callable[[int, int], None] | None = None,
    **options: Any,
) -> list[Measurement]:
    """Latency of networks on a device at batch 1.

    Every network runs in every runtime and precision given; without one, in the device's usual
    runtime. A file that bneck export has written is measured as it is, in the runtime of its format;
    of a finished run the file for that runtime and precision where there is one. Everything else is a
    file of the spec with random weights, of a detector without decoding and NMS, whose time depends
    on what is found.

    Args:
        networks: zoo names, spec files, run folders, exported files or specs.
        task: of names and spec files, None the default one; a run knows its own.
        threads: of the runtime.
        rounds: shuffled rounds, at least 3.
        device: "local", "ssh:[USER@]HOST[:PORT]", "adb:SERIAL" or "browser[:PORT]".
        runtime: one or several of onnxruntime, litert, openvino, executorch, torch and torch-compiled;
            None takes the device's usual one.
        precision: one or several of "fp32", "fp16" and "int8".
        profile: ask the device for the times of single operators, too.
        on_round: called with (rounds done, rounds).
        **options: options of the task that measure takes (docs/commands.md).

    Raises:
        InputError: no such network, device or runtime, or a machine too busy to measure on.
    """
    if not networks:
        raise InputError(
            "there is nothing to measure; name a network, as in: bneck measure v3-small"
        )
    check_rounds(threads, rounds)
    chosen = task_named(task or DEFAULT)
    _, own = parted(chosen, "measure", options, tasks())
    _refuse_ignored(networks, task, chosen, options)
    usual = usual_runtime(device)
    runtimes = [runtime or usual] if runtime is None or isinstance(runtime, str) else list(runtime)
    precisions = [precision] if isinstance(precision, str) else list(precision)
    candidates = [
        _candidate(name, chosen, own, engine, kind)
        for engine, kind in product(runtimes, precisions)
        for name in networks
    ]
    # A file runs once, however many runtimes and precisions there are for the others.
    candidates = list(dict.fromkeys(candidates))
    if precisions != ["fp32"] and not any(one.precision in precisions for one in candidates):
        own = few(sorted({one.precision for one in candidates}))
        raise InputError(
            f"a precision of {few(precisions)} is asked for, and the files are measured as they are, in {own}; "
            "leave --precision out, or export a file in it"
        )
    large = any(one.size[1] * one.size[2] >= LARGE for one in candidates)
    protocol = replace(PATIENT if large else Protocol(), threads=threads, rounds=rounds)
    return measure_candidates(
        candidates, place=device, protocol=protocol, profile=profile, on_round=on_round
    )


def _refuse_ignored(
    networks: Sequence[str | Path | NetSpec],
    task: str | None,
    chosen: Task,
    options: Mapping[str, Any],
) -> None:
    """Raise InputError for options that a run or a file, which is measured as it is, would ignore."""
    if task is not None and all(map(_is_file, networks)):
        raise InputError(
            f"--task goes with names and spec files, and {networks[0]} is measured as it was exported; "
            "leave it out"
        )
    for name in networks:
        if isinstance(name, NetSpec):
            continue
        folder = RunFolder(task_run(name))
        if folder.run_json.is_file():
            of_task(name, folder.read(), task)
        elif not _is_file(name):
            continue
        kept = [
            one
            for one in of_command(chosen.Options, "measure")
            if options.get(one.name) is not None
        ]
        if kept:
            raise InputError(
                f"{', '.join(map(flag_of, kept))} goes with names and spec files, and {name} is measured as it "
                "was trained or exported; leave it out"
            )


def _is_file(name: str | Path | NetSpec) -> bool:
    """Whether a network is named by a file of a runtime."""
    return (
        not isinstance(name, NetSpec) and Path(name).is_file() and bool(file_runtimes(Path(name)))
    )


def check_rounds(threads: int, rounds: int) -> None:
    """Raise InputError where nothing can be measured so."""
    if threads < 1 or rounds < 3:
        raise InputError(f"threads is {threads} and rounds {rounds}; they must be at least 1 and 3")


def _candidate(
    name: str | Path | NetSpec, chosen: Task, own: Any, engine: str, precision: str
) -> Candidate:
    path = None if isinstance(name, NetSpec) else Path(name)
    if path is not None and path.is_file() and (fitting := file_runtimes(path)):
        return candidate_of_file(path, engine if engine in fitting else fitting[0])
    folder = None if path is None else RunFolder(task_run(path))
    if folder is not None and folder.run_json.is_file():
        return _of_run(folder, engine, precision)
    spec, wrapper = chosen.arrange(name, own, None)
    size = chosen.size(spec, wrapper, own)
    titled = Candidate(
        rename(spec, chosen.title(spec, wrapper)), None, engine, precision, wrapper=wrapper
    )
    if size == wrapper.size(spec):
        return titled
    model = wrapped_model(wrapper.around(spec), runtime(engine), size, precision)
    return replace(titled, model=model, pixels=size)


def _of_run(folder: RunFolder, engine: str, precision: str) -> Candidate:
    """A run's file for a runtime and precision; without one, its network with random weights."""
    from bneck.runs.export import ending

    record, spec = folder.read(), load(folder.spec)
    file = folder.path / f"model{ending(precision)}{runtime(engine).suffix}"
    if file.is_file():
        found = candidate_of_file(file, engine)
        return replace(found, spec=rename(found.spec, spec.name))
    wrapper = wrapper_of(task_of(record), spec, record)
    return Candidate(spec, None, engine, precision, wrapper=wrapper)


def candidate_of_file(path: Path, engine_name: str) -> Candidate:
    """An exported file as it is measured: its spec, precision and image as its metadata say.

    Raises:
        InputError: the runtime cannot load it, or it is none of bneck's.
    """
    engine = runtime(engine_name)
    model = engine.read(path)
    metadata = engine.load(model, threads=1).metadata
    if "spec" not in metadata:
        raise InputError(f"{path} was not exported by bneck: its metadata lacks the spec")
    sized = "size" in metadata or "resolution" in metadata
    return Candidate(
        rename(from_text(metadata["spec"]), path.name), model, engine_name,
        metadata.get("precision", "fp32"), pixels=image_size(metadata) if sized else None,
    )  # fmt: skip
