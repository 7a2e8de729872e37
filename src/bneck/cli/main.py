"""`bneck`: the commands. Each is a thin shell over the Python function that its help names."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from bneck.cli import choose, networks, pages, search, ship, train, weights
from bneck.cli.generated import with_options
from bneck.cli.options import Json, print_json
from bneck.specs.errors import InputError, RefusedElsewhere
from bneck.tasks.registry import tasks

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, train, shrink and ship the vision network that fits your data and your device.",
)

# Where modules come from that the base install leaves out.
_SEARCH = ("torch", "onnx", "onnxruntime", "PIL", "loky", "optuna", "safetensors", "scipy")
EXTRAS = dict.fromkeys(_SEARCH, "search")
EXTRAS |= {"tflite": "tflite", "pyarrow": "train", "ray": "cluster"}

STOPPED = 130  # what Ctrl-C ends in
RESUME = "stopped; resume it with: bneck search --resume RUN, or bneck train --resume RUN"


@with_options("predict")
def predict(
    run: Annotated[str, typer.Argument(help="A finished run's folder or an exported file.")],
    images: Annotated[list[Path], typer.Argument(help="Images.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to draw what was found: picture.png, or a folder for several."),
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Print what a trained network says of images, and draw it. Python: bneck.predict(run, images)"""
    from bneck.runs.predict import predict as predict_images

    found = predict_images(run, images, out=out, **given)
    if as_json:
        print_json(found)
        return
    paints = [name for task in tasks() for name in task.paints]
    for one in found:
        drawn = [one[key] for key in ("picture", *paints) if one.get(key)]
        print(" -> ".join([f"{one['image']}: {one['line']}", *drawn]))


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, finished or not.")],
    as_json: Json = False,
) -> None:
    """Write a run's report again: report.md, and of a search report.html. Python: bneck.write_report(run)"""
    from bneck.runs.report import write_report

    files = [str(path) for path in write_report(run)]
    if as_json:
        print_json({"files": files})
    else:
        print("\n".join(files))


def convert(
    data: Annotated[Path, typer.Argument(help="The folder with Annotations/*.xml and JPEGImages.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the json files go; default DATA/annotations.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert VOC xml to the COCO json that detection is trained on. Python: bneck.convert(data)"""
    from bneck.runs.data import convert as convert_data

    files, left_out = convert_data(data, out)
    if as_json:
        left = [[one.what, one.why] for one in left_out]
        print_json({"files": {split: str(file) for split, file in files.items()}, "left_out": left})
        return
    for split, path in files.items():
        print(f"{split}: {path}")
    for one in left_out:
        print(f"- left out: {one.what}, {one.why}")


for command in (
    networks.show, networks.count, networks.zoo, ship.measure, choose.choose, search.search, train.train,
    predict, report, convert, ship.export, ship.quantize, ship.table, weights.evaluate, pages.reproduce,
    pages.compare, pages.demo,
):  # fmt: skip
    app.command()(command)
app.command("import")(weights.import_weights)


def run() -> None:
    """The entry point: errors of the user's making end in one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        code = app(standalone_mode=False)
        said = RESUME if code == STOPPED else ""
    except InputError as error:
        code, said = 2, "" if isinstance(error, RefusedElsewhere) else str(error)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        code, said = 2, f"this needs {module}, which is not installed; install it with: "
        said += f"pip install 'bneck[{EXTRAS[module]}]'"
    except typer.TyperException as error:
        message = error.format_message().strip().removesuffix(".").removesuffix("?")
        message = message.replace(". Did you mean", "; did you mean")
        code, said = 2, f"{message}; see --help" if message else ""  # empty: help was printed
    if said:
        print(f"bneck: {said}", file=sys.stderr)
    sys.exit(code)
