"""`bneck`: the commands. Each is a thin shell over the Python function that its help names."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from errno import ENAMETOOLONG
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bneck.cli import choose, networks, overview, pages, search, ship, train, weights
from bneck.cli.bars import WIDE
from bneck.cli.generated import with_options
from bneck.cli.options import Json, print_json, print_line
from bneck.devices.installed import extra_of
from bneck.specs.errors import InputError, RefusedElsewhere
from bneck.tasks.registry import tasks

_EMPTY = re.compile(r"--[a-z-]+=\s*")
STOPPED = 130  # what Ctrl-C ends in
FIRST = """\
bneck fits a vision network to your images and your device.
What to do first:

  bneck doctor    see what this machine has and lacks
  bneck search    try a whole search on built-in images
                  (4 to 7 minutes on two cores)
  bneck search --data photos --target 50% \\
    --from timm/mobilenetv3_small_100.lamb_in1k
                  from published weights to a network for
                  your images (photos/CLASS/*.jpg)
  bneck runs      list the runs in ./runs

All commands:         bneck --help
Options of a command: bneck search --help"""


class Stopped(Exception):
    """Ctrl-C, with the notes of what was stopped."""


class Commands(TyperGroup):
    """The commands, with Ctrl-C as an error that keeps its notes; Typer drops them."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped(*getattr(stop, "__notes__", ())) from None


app = typer.Typer(
    cls=Commands,
    pretty_exceptions_enable=False,
    # The columns of Typer's panels would cut words off in a terminal that is too narrow for them.
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= WIDE else None,
    invoke_without_command=True,
    help="Find, train, shrink and ship the vision network that fits your data and your device.",
)


@app.callback()
def first(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Say what to do first where no command is named."""
    if version:
        print(f"bneck {metadata.version('bneck')}")
    elif context.invoked_subcommand is None:
        print(FIRST)


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
    predict, report, convert, ship.export, ship.quantize, ship.ship, ship.table, weights.evaluate,
    pages.reproduce, pages.compare, pages.demo, overview.runs, overview.doctor,
):  # fmt: skip
    app.command()(command)
app.command("import")(weights.import_weights)


def _check_empty(given: Sequence[str]) -> None:
    """Raise InputError for an empty argument, which is what a shell makes of a variable that is not set."""
    for before, one in zip(("bneck", *given), given, strict=False):
        if not one.strip() or _EMPTY.fullmatch(one):
            where = one if one.strip() else f"after {before}"
            raise InputError(f"the argument {where} is empty; give a value, or leave it out")


def with_notes(error: InputError) -> str:
    """The sentence of an error, and what was noted on the way, such as how to go on."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())])


def run() -> None:
    """The entry point: errors of the user's making end in one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        _check_empty(sys.argv[1:])
        code = app(standalone_mode=False)
        said = ""
    except Stopped as stop:
        code, said = STOPPED, "; ".join(["stopped", *stop.args])
    except InputError as error:
        code, said = 2, "" if isinstance(error, RefusedElsewhere) else with_notes(error)
    except OSError as error:
        if error.errno != ENAMETOOLONG:
            raise
        code, said = (
            2,
            f"a path has {len(str(error.filename))} characters, too long for a file; check it",
        )
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = extra_of(module)
        if extra is None:
            raise
        code = 2
        said = f"this needs {module}, which is not installed; install it with: {extra.install}"
    except typer.TyperException as error:
        message = error.format_message().strip().removesuffix(".").removesuffix("?")
        message = message.replace(". Did you mean", "; did you mean")
        code, said = 2, f"{message}; see --help" if message else ""  # empty: help was printed
    if said:
        print_line(f"bneck: {said}", stderr=True)
    sys.exit(code)
