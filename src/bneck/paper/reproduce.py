"""The paper's tables and figures next to what the code gives: the Python equivalent of `bneck reproduce`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from bneck.devices.places import usual_runtime
from bneck.graphs.forms import form
from bneck.paper import figures, tables
from bneck.paper.scores import Scores
from bneck.paper.timing import Timing, Wanted, measured, read_timing
from bneck.records.commit import commit
from bneck.records.files import write_json
from bneck.records.progress import Progress, Silent
from bneck.report.blocks import Block, Paragraph
from bneck.report.exhibits import Exhibit, exhibit_blocks
from bneck.report.numbers import duration, listed
from bneck.report.page import write_pages
from bneck.specs.errors import InputError

Make = Callable[[Timing, Scores], Exhibit]

EXHIBITS: dict[str, Make] = {
    "table1": lambda timing, scores: tables.printed_network(1),
    "table2": lambda timing, scores: tables.printed_network(2),
    **{f"table{number}": getattr(tables, f"table{number}") for number in range(3, 10)},
    **{f"figure{number}": getattr(figures, f"figure{number}") for number in (1, 2, 7, 8, 9)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What was reproduced, the files that hold it, and the seconds it took."""

    exhibits: tuple[Exhibit, ...]
    files: tuple[Path, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for a json file."""
        return {
            "exhibits": [exhibit.as_json() for exhibit in self.exhibits],
            "files": [str(path) for path in self.files],
            "seconds": self.seconds,
        }


def reproduce(
    *names: str,
    quick: bool = False,
    runtime: str | None = None,
    device: str = "local",
    threads: int = 1,
    runs: Sequence[str | Path] = (),
    latencies: Sequence[str | Path] = (),
    measure: bool = True,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Compare the paper's tables and figures with what is counted, measured and recorded here.

    Counts are always made. Latencies are measured now, unless they are handed in. Accuracies come from
    recorded runs on the paper's data alone; where there is none, the exhibit names the command that
    would make it. Nothing is estimated.

    Args:
        names: table1 to table9, figure1, figure2, figure7, figure8, figure9, or all.
        quick: six rounds instead of twenty, segmenters at half size only, fewer widths in Fig. 8.
        runtime: of classifiers; None takes the device's usual one. Detectors and segmenters run in ONNX
            Runtime.
        device: where classifiers are timed, as in `bneck.measure`; the others on this machine.
        threads: of the runtime.
        runs: folders of finished runs, `8bit` folders of bneck quantize, or files that bneck evaluate
            --json printed: their accuracies.
        latencies: files of bneck measure --json, or an earlier latencies.json, instead of measuring.
        measure: False leaves all latencies out.
        out: the folder for the page and its files; None makes one under runs/.
        progress: receives what happens.

    Raises:
        InputError: no such table or figure, runtime, run or file.
    """
    started = time.perf_counter()
    chosen = _chosen(names)
    if threads < 1:
        raise InputError(f"threads is {threads}; it must be at least 1")
    engine = runtime or usual_runtime(device)
    form(engine, "fp32")
    scores, timing = Scores(runs), read_timing(latencies)
    if measure and not latencies:
        timing = measured(
            _wanted(chosen, quick, engine), quick=quick, runtime=engine, device=device, threads=threads,
            progress=progress or Silent(),
        )  # fmt: skip
    exhibits = tuple(EXHIBITS[name](timing, scores) for name in chosen)
    folder = Path(out or f"runs/reproduce-{datetime.now():%Y%m%d-%H%M%S}")
    found = Reproduction(exhibits=exhibits, files=(), seconds=time.perf_counter() - started)
    return replace(found, files=tuple(_write(found, folder, timing)))


def _chosen(names: Sequence[str]) -> list[str]:
    for name in names:
        if name != "all" and name not in EXHIBITS:
            raise InputError(
                f"there is no {name!r} to reproduce; known are {', '.join(EXHIBITS)} and all"
            )
    if not names:
        raise InputError("there is nothing to reproduce; name a table or figure, or all")
    return [name for name in EXHIBITS if name in names or "all" in names]


def _wanted(chosen: Sequence[str], quick: bool, runtime: str) -> Wanted:
    wanted, fused_only = (
        Wanted(),
        runtime != "onnxruntime",
    )  # which alone takes a graph that bneck edited
    for name in chosen:
        number = int(name[-1])
        if name.startswith("table"):
            tables.want_table(number, wanted, fused_only=fused_only)
        else:
            figures.want_figure(number, wanted, quick=quick, fused_only=fused_only)
    if any(precision == "int8" for _, precision in wanted.networks):
        form(runtime, "int8")
    return wanted


def _write(found: Reproduction, folder: Path, timing: Timing) -> list[Path]:
    lead = (
        "Counts are exact. Latencies were measured on the machine that each section names, with random "
        "weights, and compare as ratios. Accuracies are those of recorded runs on the paper's data; where "
        "there is none the cell is empty, and the section names the command that would fill it in."
    )
    blocks: list[Block] = [Paragraph(lead, "lead")]
    for exhibit in found.exhibits:
        blocks += exhibit_blocks(exhibit)
    title = "Searching for MobileNetV3, reproduced"
    what = listed([exhibit.name for exhibit in found.exhibits])
    head = f"bneck reproduce: {what}; {duration(found.seconds)}, commit {commit()}"
    page, twin, *pictures = write_pages(folder / "reproduce", title, blocks, head=head)
    files = [page, twin, folder / "reproduce.json", *pictures]
    write_json(files[2], found.as_json())
    if timing.found:
        files.append(folder / "latencies.json")
        write_json(files[-1], timing.as_json())
    return files
