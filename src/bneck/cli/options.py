"""What several commands share: options, and printing for programs and for people."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


class Task(StrEnum):
    """What a network is for."""

    CLASSIFY = "classify"
    DETECT = "detect"
    SEGMENT = "segment"


TASKS = "What the network is for; detect puts SSDLite round it, segment (LR-)R-ASPP."

NAMES = "A network (v3-large, v3-small-0.75+relu@192), a spec file or a run's folder."
Json = Annotated[bool, typer.Option("--json", help="Print json for programs.")]


class HeadName(StrEnum):
    """A segmenter's head."""

    LRASPP = "lraspp"
    RASPP = "raspp"


HeadOption = Annotated[HeadName, typer.Option(help="Of a segmenter.")]
Filters = Annotated[int, typer.Option(help="F of a segmenter's head (Table 7).")]
OutputStride = Annotated[
    int | None,
    typer.Option(help="8, 16 or 32, of a segmenter; default 16, or the name's (+os32)."),
]


Device = Annotated[
    str,
    typer.Option(help="Where: local, ssh:[USER@]HOST[:PORT], adb:SERIAL or browser[:PORT]."),
]
BenchmarkModel = Annotated[
    Path | None,
    typer.Option(
        help="For adb: TensorFlow Lite's benchmark_model for the phone; or BNECK_BENCHMARK_MODEL."
    ),
]
OnnxRuntimeWeb = Annotated[
    Path | None,
    typer.Option(
        help="For browser: the folder of the npm package; or BNECK_ONNXRUNTIME_WEB.",
    ),
]


def use_tools(benchmark_model: Path | None, onnxruntime_web: Path | None) -> None:
    """Let this process find what the user supplies for devices, where the environment says it."""
    for name, path in (
        ("BNECK_BENCHMARK_MODEL", benchmark_model),
        ("BNECK_ONNXRUNTIME_WEB", onnxruntime_web),
    ):
        if path is not None:
            os.environ[name] = str(path)


ClassList = Annotated[
    Path | None,
    typer.Option(help="One class a line, 'name' or 'name R G B'; default DATA/classes.txt."),
]
ImageFolder = Annotated[
    Path | None, typer.Option(help="Of a detector: where images lie, if not beside the json.")
]
Ignore = Annotated[
    list[int] | None, typer.Option(help="An id of the masks that means no class; besides 255.")
]


GlobalPool = Annotated[
    bool, typer.Option("--global-pool", help="Pool the whole map, not 49 x 49 windows.")
]
ImageSize = Annotated[
    str | None, typer.Option(help="HEIGHTxWIDTH that images are brought to; default their own.")
]
Crop = Annotated[
    str | None, typer.Option(help="HEIGHTxWIDTH trained on; default the image, at most 769.")
]
Loss = Annotated[str, typer.Option(help="Of a detector: focal, or mining (hard negatives).")]
Balance = Annotated[bool, typer.Option("--balance", help="Weigh rare classes more in the loss.")]


def print_json(value: Any) -> None:
    """Print plain values as json."""
    print(json.dumps(value, indent=1))


def print_table(table: Table) -> None:
    """Print a table; on a narrow terminal, and in a file, lines may get long, but no digit is cut off."""
    console = Console()
    wide = console.options.update(max_width=1_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
