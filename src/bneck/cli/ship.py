"""The commands about files and runtimes: measure, export, quantize, ship, table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from bneck.cli.bars import bars
from bneck.cli.ending import (
    FOLDER,
    IMAGE,
    command,
    print_ending,
    print_quantized,
    print_shipped,
)
from bneck.cli.generated import together, with_options
from bneck.cli.options import (
    NAMES,
    RUNTIMES,
    Device,
    Json,
    TaskName,
    Threads,
    print_json,
    print_line,
    print_table,
)
from bneck.cli.tables import measurement_table, quantize_table, ship_table
from bneck.specs.errors import InputError
from bneck.tasks.options import option


@with_options("measure")
def measure(
    networks: Annotated[
        list[str], Argument(help=NAMES[:-1] + ", or a file that export has written.")
    ],
    threads: Threads = 1,
    rounds: Annotated[int, Option(help="Shuffled rounds; at least 3.")] = 20,
    device: Device = "local",
    runtime: Annotated[
        list[str] | None,
        Option(help=f"Runtime: {RUNTIMES}; may be given several times; default the device's."),
    ] = None,
    precision: Annotated[
        list[str], Option(help="fp32, fp16 or int8; may be given several times.")
    ] = ["fp32"],  # noqa: B006
    task: TaskName = None,
    against: Annotated[
        str | None, Option(help="paper: its ratios (Tables 3 and 4) next to ours.")
    ] = None,
    profile: Annotated[
        bool, Option("--profile", help="Also print the times of single operators (adb devices).")
    ] = False,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Measure latency on a device, batch 1, everything interleaved. Python: bneck.measure(...)

    Ratios are to the first line, taken round by round. On a device that others use, compare the fastest runs.
    """
    from bneck.runs.measure import measure as measure_networks

    if against not in (None, "paper"):
        raise InputError(f"against is {against!r}; allowed is paper")
    with bars() as progress:
        found = measure_networks(
            *networks, task=task, threads=threads, rounds=rounds, device=device, runtime=runtime,
            precision=precision, profile=profile, on_round=progress.on_round, **given,
        )  # fmt: skip
    if as_json:
        print_json([record.as_json() for record in found])
        return
    print_table(measurement_table(found, paper=against == "paper"))
    for one in found:
        if one.profile is not None:
            print(f"\n{one.network}, {one.precision}\n{one.profile}")


@with_options("export")
def export(
    network: Annotated[str, Argument(help=NAMES)],
    format: Annotated[str, Option(help="onnx, tflite, openvino, pte or torch.")] = "onnx",
    precision: Annotated[
        str, Option(help="fp32, fp16 (weights alone), or int8 (post-training quantization).")
    ] = "fp32",
    task: TaskName = None,
    out: Annotated[
        Path | None, Option(help="The file; default model.* in the run's folder, or NAME.*.")
    ] = None,
    data: Annotated[
        Path | None, Option(help="Images to calibrate and check with; default the run's.")
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Write a network as a file for a runtime, checked against it. Python: bneck.export(network)"""
    from bneck.runs.export import export as export_network
    from bneck.tasks.registry import task as task_named

    with bars() as progress:
        found = export_network(
            network, format, precision=precision, task=task, out=out, data=data,
            progress=progress, **given,
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    for note in found["notes"]:
        print_line(f"- {note}")
    if not found["trained"]:
        print_line("- the weights are random: a name of the zoo or a spec file has none")
    checked, file = task_named(found["task"]).check_line(found), found["file"]
    print_ending(
        f"{found['network']}, {found['precision']}, {found['size_mb']:.2f} MB for {found['runtime']} "
        f"{found['runtime_version']}; on {found['images']} images {checked}",
        (file,),
        command("predict", file, IMAGE) if found["trained"] else command("measure", file),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """The options of `bneck quantize`, with the names and defaults of `bneck.quantize`."""

    data: Path | None = option(None, "A dataset as the task reads it; default the run's.")
    epochs: float | None = option(None, "Epochs of QAT fine-tuning, default 2; 0 for none.")
    lr: float = option(1e-5, "Peak learning rate of the fine-tuning.")
    rounds: int = option(20, "Shuffled rounds of timing.")
    out: Path | None = option(None, "The folder to write; default 8bit in the run's folder.")
    seed: int = option(0, "Seed of the order of the images.")
    compute: str | None = option(None, "Where to fine-tune: cpu, cuda or cuda:1.")


@with_options("quantize", QuantizeOptions)
def quantize(
    network: Annotated[str, Argument(help="The folder of a search, a training or an import.")],
    runtime: Annotated[str, Option(help="litert, onnxruntime or openvino.")] = "litert",
    as_json: Json = False,
    **given: Any,
) -> None:
    """Compare float, post-training (PTQ) and fine-tuned (QAT) int8. Python: bneck.quantize(network)"""
    from bneck.runs.quantize import quantize as quantize_network

    if given.get("epochs") == 0:
        together("--epochs above 0", given, ("lr", "compute", "seed"))
    with bars() as progress:
        found = quantize_network(network, runtime_name=runtime, progress=progress, **given)
    if as_json:
        print_json(found)
        return
    print_table(quantize_table(found))
    worst = ", ".join(f"{e['layer']} {e['alone']:.1%}" for e in found["layers"][:5])
    print_line(f"rounding one layer alone changes the scores most in {worst}")
    print_quantized(found, Path(found["rows"][0]["file"]).parent)


@with_options("ship")
def ship(
    network: Annotated[str, Argument(help="The folder of a search, a training or an import.")],
    device: Device = "local",
    lose: Annotated[float, Option(help="Points that the file may lose to float.")] = 1.0,
    epochs: Annotated[
        float, Option(help="Epochs of QAT fine-tuning for further int8 files; 0 for none.")
    ] = 0.0,
    data: Annotated[
        Path | None, Option(help="A dataset as the task reads it; default the run's.")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        Option(
            help="onnxruntime, litert, openvino or executorch; may be repeated; default all there are."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None, Option(help="fp32, fp16 or int8; may be repeated; default all.")
    ] = None,
    threads: Threads = 1,
    rounds: Annotated[int, Option(help="Shuffled rounds of timing; at least 3.")] = 20,
    out: Annotated[
        Path | None, Option(help="The folder to write; default ship in the run's folder.")
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Keep the fastest file that loses little, of every runtime and precision. Python: bneck.ship(run)"""
    from bneck.runs.ship.main import ship as ship_network

    with bars() as progress:
        found = ship_network(
            network, data=data, device=device, runtime=runtime or (), precision=precision or (), lose=lose,
            epochs=epochs, threads=threads, rounds=rounds, out=out, progress=progress, **given,
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    print_table(ship_table(found))
    for one in found["skipped"]:
        named = " ".join(part for part in (one["runtime"], one["precision"]) if part)
        print_line(f"- skipped: {named}: {one['why']}")
    for note in found["notes"]:
        print_line(f"- {note}")
    print_shipped(found)


@with_options("table")
def table(
    network: Annotated[str, Argument(help=NAMES)],
    device: Device = "local",
    runtime: Annotated[
        str | None, Option(help="onnxruntime, litert or openvino. Default: the device's.")
    ] = None,
    precision: Annotated[str, Option(help="fp32, fp16 or int8.")] = "fp32",
    threads: Threads = 1,
    out: Annotated[Path | None, Option(help="The file; default the user's cache folder.")] = None,
    as_json: Json = False,
) -> None:
    """Fill the latency table of a network and all narrower ones. Python: bneck.latency_table(network)"""
    from bneck.runs.search.latency import latency_table

    with bars() as progress:
        found = latency_table(
            network, device=device, runtime_name=runtime, precision=precision, threads=threads, out=out,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    where = [] if device == "local" else ["--device", device]
    print_ending(
        f"{found['entries']} rows of {found['network']} in {found['runtime']} {precision}"
        f"{'' if device == 'local' else ' on ' + device}, the network itself {found['seed_ms']:.3f} ms; "
        f"{found['summary']}",
        (found["file"],),
        command("search", "--seed-network", network, *where, "--data", FOLDER, "--target", "50%"),
    )
