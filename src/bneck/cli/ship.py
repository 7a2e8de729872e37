"""The commands about files and runtimes: measure, export, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bneck.cli.bars import Bars
from bneck.cli.generated import with_options
from bneck.cli.options import (
    NAMES,
    BenchmarkModel,
    Device,
    Json,
    OnnxRuntimeWeb,
    TaskName,
    print_json,
    print_table,
    use_tools,
)
from bneck.cli.tables import measurement_table, quantize_table
from bneck.records.measurement import Measurement
from bneck.specs.errors import InputError
from bneck.tasks.registry import DEFAULT

RUNTIMES = "onnxruntime, litert, openvino, executorch, torch or torch-compiled"


Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        help=f"The engine: {RUNTIMES}; may be given several times. Default: the device's."
    ),
]


@with_options("measure")
def measure(
    networks: Annotated[
        list[str], typer.Argument(help=NAMES[:-1] + ", or a file that export has written.")
    ],
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    rounds: Annotated[int, typer.Option(help="Shuffled rounds; at least 3.")] = 20,
    device: Device = "local",
    runtime: Runtimes = None,
    precision: Annotated[
        list[str], typer.Option(help="fp32, fp16 or int8; may be given several times.")
    ] = ["fp32"],  # noqa: B006
    task: TaskName = None,
    against: Annotated[
        str | None, typer.Option(help="paper: its ratios (Tables 3 and 4) next to ours.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Of adb devices: also the times of single operators.")
    ] = False,
    benchmark_model: BenchmarkModel = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Measure latency on a device, batch 1, everything interleaved. Python: bneck.measure(...)

    Ratios are to the first line, taken round by round.
    """
    from bneck.runs.measure import measure as measure_networks

    if against not in (None, "paper"):
        raise InputError(f"against is {against!r}; allowed is paper")
    use_tools(benchmark_model, onnxruntime_web)
    with Bars(Console(stderr=True)) as bars:

        def on_round(done: int, of: int) -> None:
            if done == 1:  # what cannot be measured is refused before
                bars.stage("measuring", of)
            bars.advance(1)

        found = measure_networks(
            *networks, task=task or DEFAULT, threads=threads, rounds=rounds, device=device,
            runtime=runtime, precision=precision, profile=profile, on_round=on_round, **given,
        )  # fmt: skip
    _print_measured(found, as_json, against)


def _print_measured(found: list[Measurement], as_json: bool, against: str | None) -> None:
    if as_json:
        print_json([record.as_json() for record in found])
        return
    print_table(measurement_table(found, paper=against == "paper"))
    for one in found:
        if one.profile is not None:
            print(f"\n{one.network}, {one.precision}\n{one.profile}")


@with_options("export")
def export(
    network: Annotated[str, typer.Argument(help=NAMES)],
    format: Annotated[str, typer.Option(help="onnx, tflite, openvino, pte or torch.")] = "onnx",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 (weights alone), or int8 (post-training quantization).")
    ] = "fp32",
    task: TaskName = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; default model.* in the run's folder, or NAME.*.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Images to calibrate and check with; default the run's.")
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Write a network as a file for a runtime, checked against it. Python: bneck.export(network)"""
    from bneck.runs.export import export as export_network
    from bneck.tasks.registry import task as task_named

    with Bars(Console(stderr=True)) as bars:
        found = export_network(
            network, format, precision=precision, task=task or DEFAULT, out=out, data=data,
            progress=bars, **given,
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    print(
        f"{found['file']}: {found['network']}, {found['precision']}, {found['size_mb']:.2f} MB for "
        f"{found['runtime']} {found['runtime_version']}; on {found['images']} images "
        f"{task_named(found['task']).check_line(found)}"
    )
    if not found["trained"]:
        print("- the weights are random: a name of the zoo or a spec file has none")


def quantize(
    network: Annotated[
        str, typer.Argument(help="The folder of a search, a training or an import.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="A dataset as the task reads it; default the run's.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="litert, onnxruntime or openvino.")] = "litert",
    epochs: Annotated[
        float | None,
        typer.Option(help="Epochs of QAT fine-tuning, default 2; 0 for none."),
    ] = None,
    lr: Annotated[float, typer.Option(help="Its peak learning rate at a batch of 64.")] = 1e-4,
    rounds: Annotated[int, typer.Option(help="Shuffled rounds of timing.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; default 8bit in the run's folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of the images.")] = 0,
    compute: Annotated[
        str | None, typer.Option(help="Where to fine-tune: cpu, cuda or cuda:1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare float, post-training (PTQ) and fine-tuned (QAT) int8. Python: bneck.quantize(network)"""
    from bneck.runs.quantize import quantize as quantize_network

    with Bars(Console(stderr=True)) as bars:
        found = quantize_network(
            network,
            data=data,
            runtime_name=runtime,
            epochs=epochs,
            lr=lr,
            rounds=rounds,
            out=out,
            seed=seed,
            compute=compute,
            progress=bars,
        )
    if as_json:
        print_json(found)
        return
    print_table(quantize_table(found))
    worst = ", ".join(f"{e['layer']} {e['alone']:.1%}" for e in found["layers"][:5])
    print(f"rounding one layer alone changes the scores most in {worst}")


def table(
    network: Annotated[str, typer.Argument(help=NAMES)],
    device: Device = "local",
    runtime: Annotated[
        str | None,
        typer.Option(help="onnxruntime, litert or openvino. Default: the device's."),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="The file; default the user's cache folder.")
    ] = None,
    benchmark_model: BenchmarkModel = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    as_json: Json = False,
) -> None:
    """Fill the latency table of a network and all narrower ones. Python: bneck.latency_table(network)"""
    from bneck.runs.search.latency import latency_table

    use_tools(benchmark_model, onnxruntime_web)
    with Bars(Console(stderr=True)) as bars:
        found = latency_table(
            network,
            device=device,
            runtime_name=runtime,
            precision=precision,
            threads=threads,
            out=out,
            progress=bars,
        )
    if as_json:
        print_json(found)
        return
    print(
        f"{found['file']}: {found['entries']} rows of {found['network']} in {found['runtime']} "
        f"{precision}{'' if device == 'local' else ' on ' + device}, the "
        f"network itself {found['seed_ms']:.3f} ms; {found['summary']}"
    )
