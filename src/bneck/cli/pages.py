"""The commands that make pages: reproduce, compare, demo."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from bneck.cli.bars import bars
from bneck.cli.generated import together, with_options
from bneck.cli.options import RUNTIME, WHERE, Json, print_json, print_line, print_table
from bneck.cli.tables import exhibit_tables, subjects_table
from bneck.tasks.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceOptions:
    """The options of `bneck reproduce`, with the names and defaults of `bneck.reproduce`."""

    quick: bool = option(False, "Fewer rounds, segmenters at half size only.")
    runtime: str | None = option(None, RUNTIME)
    device: str = option("local", WHERE)
    threads: int = option(1, "Threads of the runtime.")
    runs: tuple[Path, ...] = option(
        (), "A finished run, or a file of bneck evaluate --json, whose accuracy counts; may be given "
        "several times."
    )  # fmt: skip
    latencies: tuple[Path, ...] = option(
        (), "A file of bneck measure --json, or an earlier latencies.json."
    )
    measure: bool = option(True, "Measure latencies.", flag="--measure/--no-measure")
    out: Path | None = option(None, "The folder to write; default runs/reproduce-TIME.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """The options of `bneck compare`, with the names and defaults of `bneck.compare`."""

    measure: bool = option(False, "Time all classifiers now, interleaved.")
    rounds: int = option(10, "Shuffled rounds of --measure; at least 3.")
    device: str = option("local", WHERE)
    runtime: str | None = option(None, RUNTIME)
    threads: int = option(1, "Threads of the runtime.")
    out: Path = option(Path("compare.html"), "The page to write.")


@with_options("reproduce", ReproduceOptions)
def reproduce(
    names: Annotated[
        list[str],
        Argument(help="table1 to table9, figure1, figure2, figure7, figure8, figure9, or all."),
    ],
    as_json: Json = False,
    **given: Any,
) -> None:
    """The paper's tables and figures next to ours, with what is missing named. Python: bneck.reproduce(...)"""
    from bneck.paper.reproduce import reproduce as make

    if given.get("measure") is False:
        together("--measure", given, ("quick", "runtime", "device", "threads"))
    with bars() as progress:
        found = make(*names, progress=progress, **given)
    if as_json:
        print_json(found.as_json())
        return
    for exhibit in found.exhibits:
        print(f"\n{exhibit.title}")
        for table in exhibit_tables(exhibit):
            print_table(table)
        for note in exhibit.notes:
            print_line(f"- {note}")
        if exhibit.missing:
            print(f"Not here: {exhibit.missing_what}. What would fill it in:")
            print("\n".join(f"  {command}" for command in exhibit.missing))
    print(f"\n{found.files[0]}")


@with_options("compare", CompareOptions)
def compare(
    places: Annotated[
        list[str],
        Argument(help="Runs' folders, spec files, names of networks; the first is the reference."),
    ],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Runs and networks on one page: costs, scores, blocks, what differs. Python: bneck.compare(...)"""
    from bneck.runs.compare import compare as make

    if not given.get("measure"):
        together("--measure", given, ("rounds", "device", "runtime", "threads"))
    with bars() as progress:
        found = make(*places, on_round=progress.on_round, **given)
    if as_json:
        print_json(found.as_json())
        return
    print_table(subjects_table(found.subjects))
    print(f"files: {found.page}")


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
