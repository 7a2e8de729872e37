"""The commands about files and runtimes: measure, export, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bneck.cli import detection, segmentation
from bneck.cli.bars import Bars
from bneck.cli.options import (
    NAMES,
    TASKS,
    BenchmarkModel,
    Device,
    Filters,
    HeadName,
    HeadOption,
    Json,
    OnnxRuntimeWeb,
    OutputStride,
    Task,
    print_json,
    print_table,
    use_tools,
)
from bneck.cli.tables import measurement_table, quantize_table
from bneck.devices.runtimes import file_runtimes
from bneck.records.measurement import Measurement
from bneck.specs.errors import InputError

RUNTIMES = "onnxruntime, litert, openvino, executorch, torch or torch-compiled"


Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        help=f"The engine: {RUNTIMES}; may be given several times. Default: the device's."
    ),
]


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
    task: Annotated[Task, typer.Option(help=TASKS)] = Task.CLASSIFY,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of a segmenter's image; default 512x1024.")
    ] = None,
    head: HeadOption = HeadName.LRASPP,
    filters: Filters = 128,
    output_stride: OutputStride = None,
    against: Annotated[
        str | None, typer.Option(help="paper: its ratios (Tables 3 and 4) beside ours.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Of adb devices: also the times of single operators.")
    ] = False,
    benchmark_model: BenchmarkModel = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    as_json: Json = False,
) -> None:
    """Measure latency on a device, batch 1, everything interleaved. Python: bneck.measure(...)

    Ratios are to the first line, taken round by round.
    """
    from bneck.recipes.detectors import measure_detectors
    from bneck.runs.networks import measure as measure_networks

    if against not in (None, "paper"):
        raise InputError(f"against is {against!r}; allowed is paper")
    engines = runtime or ["onnxruntime"]
    if task != Task.CLASSIFY:
        _check_here(task, device, profile, networks)
    use_tools(benchmark_model, onnxruntime_web)
    if task == Task.SEGMENT:
        made = segmentation.named(networks, head.value, filters, output_stride)
        segmentation.measure(made, size, threads, rounds, engines, precision, as_json)
        return
    if task == Task.DETECT:
        raced = measure_detectors(
            *networks, threads=threads, rounds=rounds, runtime=engines, precision=precision
        )
        _print_measured(raced, as_json, None)
        return
    with Bars(Console(stderr=True)) as bars:

        def on_round(done: int, of: int) -> None:
            if done == 1:
                bars.stage("measuring", of)
            bars.advance(1)

        found = measure_networks(
            *networks,
            threads=threads,
            rounds=rounds,
            device=device,
            runtime=runtime,
            precision=precision,
            profile=profile,
            on_round=on_round,
        )
    _print_measured(found, as_json, against)


def _check_here(task: Task, device: str, profile: bool, networks: list[str]) -> None:
    """What is timed by task is made up here, and runs here."""
    if device != "local" or profile:
        raise InputError(
            f"to {task} is measured on this machine so far; leave --device and --profile out, or give a "
            "file that bneck export has written, without --task"
        )
    for name in networks:
        if Path(name).is_file() and file_runtimes(Path(name)):
            raise InputError(f"{name} is an exported file, which knows its task; leave --task out")


def _print_measured(found: list[Measurement], as_json: bool, against: str | None) -> None:
    if as_json:
        print_json([record.as_json() for record in found])
        return
    print_table(measurement_table(found, paper=against == "paper"))
    for one in found:
        if one.profile is not None:
            print(f"\n{one.network}, {one.precision}\n{one.profile}")


def export(
    network: Annotated[str, typer.Argument(help=NAMES)],
    format: Annotated[str, typer.Option(help="onnx, tflite, openvino, pte or torch.")] = "onnx",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 (weights alone), or int8 (post-training).")
    ] = "fp32",
    out: Annotated[
        Path | None, typer.Option(help="The file; default model.* in the run's folder, or NAME.*.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Pictures to calibrate and check with; default the run's.")
    ] = None,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Fold the normalisation in: the file takes uint8 RGB.")
    ] = False,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of a segmenter's image; default the run's.")
    ] = None,
    argmax: Annotated[
        bool, typer.Option("--argmax", help="Of a segmenter: classes come out, not scores.")
    ] = False,
    decode: Annotated[
        bool, typer.Option("--decode", help="Of a detector as onnx: boxes come out, suppressed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a network as a file for a runtime, checked against it. Python: bneck.export(network)

    Of a detection run bneck.export_detect(run), of a segmentation run bneck.export_segment(run), both
    as onnx, tflite or openvino.
    """
    segments = segmentation.is_run(network)
    if pixels and (segments or detection.is_run(network)):
        raise InputError(f"--pixels goes with classifiers, and {network} is none")
    if decode and not detection.is_run(network):
        raise InputError(f"--decode goes with a detector's run, and {network} is none")
    if segments:
        segmentation.export(network, format, precision, out, data, size, argmax, as_json)
        return
    if size is not None or argmax:
        raise InputError(f"--size and --argmax go with a segmenter's run, and {network} is none")
    if detection.is_run(network):
        detection.export(network, format, precision, out, data, decode, as_json)
        return
    from bneck.recipes.export import export as export_network

    with Bars(Console(stderr=True)) as bars:
        found = export_network(
            network, format, precision=precision, out=out, data=data, pixels=pixels, progress=bars
        )
    if as_json:
        print_json(found)
        return
    print(
        f"{found['file']}: {found['network']}, {found['precision']}, {found['size_mb']:.2f} MB for "
        f"{found['runtime']} {found['runtime_version']}; on {found['images']} images labels agree on "
        f"{found['label_agreement']:.1%}, scores differ by {found['largest_difference']:.1e} of the largest"
    )
    if not found["trained"]:
        print("- the weights are random: a name of the zoo or a spec file has none")


def quantize(
    network: Annotated[
        str, typer.Argument(help="The folder of a search, a training or an import.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Images: train/CLASS/* and val/CLASS/*; default the run's.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="litert, onnxruntime or openvino.")] = "litert",
    epochs: Annotated[
        float | None,
        typer.Option(help="Of a classifier's fine-tuning in 8 bits, default 2; 0 for none."),
    ] = None,
    lr: Annotated[float, typer.Option(help="Its peak learning rate at a batch of 64.")] = 1e-4,
    rounds: Annotated[int, typer.Option(help="Shuffled rounds of timing.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; default 8bit in the run's folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order of the images.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare float, post-training and fine-tuned 8 bits. Python: bneck.quantize(network)

    Of a detection or segmentation run float and post-training 8 bits, by mAP or mIOU on val.
    """
    from bneck.recipes.quantize import quantize as quantize_network

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
    from bneck.runs.search.tables import latency_table

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
