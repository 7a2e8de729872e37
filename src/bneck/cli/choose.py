"""`bneck choose`: the published networks on a device, and the one for some images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from typer import Option

from bneck.cli.bars import bars
from bneck.cli.ending import print_choice, print_device
from bneck.cli.generated import alone, with_options
from bneck.cli.options import WHERE, Json, TaskName, new_table, print_json, print_table
from bneck.tasks.options import option
from bneck.tasks.registry import DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class ChooseOptions:
    """The options of `bneck choose`, with the names and defaults of `bneck.choose`."""

    target: str | None = option(None, "Latency target: 5ms or 800us; needed with --data.")
    device: str = option("local", WHERE)
    runtime: str | None = option(
        None, "Runtime on the device: onnxruntime, litert or openvino; default the device's."
    )
    precision: str = option(
        "fp32", "Precision that is timed and shipped: fp32, fp16 or int8; training is in float."
    )
    threads: int = option(1, "Threads of the runtime when latency is measured.")
    start: tuple[str, ...] = option(
        (),
        "Weights to choose among besides imports and the hub's cache: a run, an import, a file, or a "
        "name on the hub; may be given several times.",
        flag="--from",
    )
    resolution: int | None = option(None, "Input side in pixels of all networks; default 224.")
    epochs: float | None = option(None, "Epochs of the search's seed network.")
    repeats: int = option(2, "Final training runs of the search's result and baseline.")
    seed: int = option(0, "Seed of everything random.")
    workers: int | None = option(None, "Worker processes; default one per core.")
    plot: Path | None = option(
        None, "An svg file to draw published accuracy over latency in; without --data."
    )
    again: bool = option(False, "Measure again what an earlier choice has measured.")


@with_options("choose", ChooseOptions)
def choose(
    data: Annotated[
        str | None,
        Option(help="Your images, as classification reads them; default: only the device's table."),
    ] = None,
    task: TaskName = None,
    out: Annotated[Path | None, Option(help="The run's folder; default runs/choose-TIME.")] = None,
    resume: Annotated[
        Path | None, Option(help="An unfinished choice's folder to go on with.")
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Measure the published networks on a device, and choose the one for your images.

    Python: bneck.choose(...), bneck.resume(run)
    """
    from bneck.runs.choose import main

    with bars() as progress:
        if resume is not None:
            alone(resume, {"data": data, "task": task, "out": out, **given})
            found = main.resume_choice(resume, progress=progress)
        else:
            found = main.choose(data, task=task or DEFAULT, out=out, progress=progress, **given)
    if as_json:
        print_json(found)
    elif "networks" in found:
        print_table(_device_table(found))
        print_device(found, given.get("plot"))
    else:
        print_table(_scored_table(found))
        print_choice(found)


def _device_table(found: dict[str, Any]) -> Table:
    rows = [
        (
            "*" if row["within"] else "", row["network"], str(row["resolution"]),
            f"{row['latency_ms']:.3f}", f"{row['p10_ms']:.3f}", f"{row['p90_ms']:.3f}",
            "" if row["top1"] is None else f"{row['top1']:.1f}", row["source"] or "", row["license"] or "",
            row["command"] or "",
        )
        for row in found["networks"]
    ]  # fmt: skip
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    title = (
        f"{found['device']}, {found['runtime']} {found['runtime_version']}, {found['precision']}, {threads}, "
        "batch 1; top-1 on ImageNet where it is published"
    )
    columns = (
        "", "network", "px", "median ms", "p10", "p90", "top-1 %", "of", "license", "fetches its weights",
    )  # fmt: skip
    return new_table(title, columns, rows, left=(0, 1, 7, 8, 9))


def _scored_table(found: dict[str, Any]) -> Table:
    """How the weights at hand were ranked, and what the finalists came to."""
    finals = {one["weights"]: one for one in found["finals"]}
    rows = [
        (
            one["network"], one["origin"], f"{one['measured_ms']:.3f}", f"{one['score']:.1%}",
            _final(finals.get(one["weights"])),
        )
        for one in found["scored"]
    ]  # fmt: skip
    columns = ("network", "weights", "median ms", f"{found['metric']}, frozen epoch", "in the end")
    return new_table("", columns, rows, left=(0, 1))


def _final(one: dict[str, Any] | None) -> str:
    """What a finalist came to; nothing for the others."""
    if one is None:
        return ""
    return f"{one['final_score']:.1%} at {one['latency_ms']:.3f} ms"
