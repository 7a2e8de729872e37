"""The commands that make pages: reproduce, compare, demo."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bneck.cli.bars import bars
from bneck.cli.options import (
    BenchmarkModel,
    Device,
    Json,
    OnnxRuntimeWeb,
    Runtime,
    Threads,
    print_json,
    print_table,
    use_tools,
)
from bneck.cli.tables import exhibit_tables, subjects_table


def reproduce(
    names: Annotated[
        list[str],
        Argument(help="table1 to table9, figure1, figure2, figure7, figure8, figure9, or all."),
    ],
    quick: Annotated[
        bool, Option("--quick", help="Fewer rounds, segmenters at half size only.")
    ] = False,
    runtime: Runtime = None,
    device: Device = "local",
    benchmark_model: BenchmarkModel = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    threads: Threads = 1,
    runs: Annotated[
        list[Path] | None,
        Option(
            help="A finished run, or a file of bneck evaluate --json, whose accuracy counts; may be given "
            "several times."
        ),
    ] = None,
    latencies: Annotated[
        list[Path] | None,
        Option(help="A file of bneck measure --json, or an earlier latencies.json."),
    ] = None,
    measure: Annotated[bool, Option(help="Measure latencies.")] = True,
    out: Annotated[
        Path | None, Option(help="The folder to write; default runs/reproduce-TIME.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The paper's tables and figures next to ours, with what is missing named. Python: bneck.reproduce(...)"""
    from bneck.paper.reproduce import reproduce as make

    use_tools(benchmark_model, onnxruntime_web)
    with bars() as progress:
        found = make(
            *names, quick=quick, runtime=runtime, device=device, threads=threads, runs=runs or (),
            latencies=latencies or (), measure=measure, out=out, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(found.as_json())
        return
    for exhibit in found.exhibits:
        print(f"\n{exhibit.title}")
        for table in exhibit_tables(exhibit):
            print_table(table)
        for note in exhibit.notes:
            print(f"- {note}")
        if exhibit.missing:
            print(f"Not here: {exhibit.missing_what}. What would fill it in:")
            print("\n".join(f"  {command}" for command in exhibit.missing))
    print(f"\n{found.files[0]}")


def compare(
    places: Annotated[
        list[str],
        Argument(help="Runs' folders, spec files, names of networks; the first is the reference."),
    ],
    measure: Annotated[
        bool, Option("--measure", help="Time all classifiers now, interleaved.")
    ] = False,
    rounds: Annotated[int, Option(help="Shuffled rounds of --measure; at least 3.")] = 10,
    device: Device = "local",
    runtime: Runtime = None,
    benchmark_model: BenchmarkModel = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    threads: Threads = 1,
    out: Annotated[Path, Option(help="The page to write.")] = Path("compare.html"),
    as_json: Json = False,
) -> None:
    """Runs and networks on one page: costs, scores, blocks, what differs. Python: bneck.compare(...)"""
    from bneck.runs.compare import compare as make

    use_tools(benchmark_model, onnxruntime_web)
    with bars() as progress:
        found = make(
            *places, measure=measure, rounds=rounds, device=device, runtime=runtime, threads=threads, out=out,
            on_round=progress.on_round,
        )  # fmt: skip
    if as_json:
        print_json(found.as_json())
        return
    print_table(subjects_table(found.subjects))
    print(found.page)


def demo(
    run: Annotated[str, Argument(help="A finished run's folder or an exported .onnx file.")],
    onnxruntime_web: Annotated[
        Path | None,
        Option(help="The folder of the npm package; default $BNECK_ONNXRUNTIME_WEB."),
    ] = None,
    picture: Annotated[Path | None, Option(help="A first picture.")] = None,
    port: Annotated[int, Option(help="Port on this machine; 0 for any free one.")] = 0,
    as_json: Json = False,
) -> None:
    """Serve a page in which a classifier looks at pictures or the camera. Python: bneck.demo(run)

    It is served until Ctrl-C, on this machine alone.
    """
    from bneck.runs.demo import demo as make

    with make(run, onnxruntime_web=onnxruntime_web, picture=picture, port=port) as server:
        if as_json:
            print_json({"address": server.address})
        else:
            print(f"{server.address} (Ctrl-C ends it)")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.wait()
