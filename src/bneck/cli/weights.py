"""The commands about trained weights: import published ones, evaluate any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from bneck.cli.bars import bars
from bneck.cli.ending import FOLDER, command, print_ending
from bneck.cli.generated import with_options
from bneck.cli.options import Json, new_table, print_json, print_line, print_table
from bneck.cli.train import print_scores
from bneck.specs.errors import InputError
from bneck.tasks.options import option

File = Annotated[
    str | None,
    Argument(
        help="A torch, safetensors or TFLite file of torchvision, timm or TensorFlow, or a name on the "
        "hub: timm/NAME.TAG[@REVISION], hf:ORG/REPO[@REVISION]."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """The options of `bneck import`, with the names and defaults of `bneck.import_weights`."""

    out: Path | None = option(None, "The folder to write; default runs/import-TIME.")
    source: str = option(
        "auto", "timm or timm-tf (a port of TensorFlow weights), if names do not tell."
    )
    padding: str | None = option(None, "same or symmetric; default the source's.")
    mean: str | None = option(
        None, "Input mean of pixels from 0 to 1, as 0.5,0.5,0.5; default the source's."
    )
    std: str | None = option(None, "Input std, as --mean.")
    bn_eps: float | None = option(None, "Batch norm's epsilon; default the source's.")
    classes: int | None = option(None, "Classes that the file must have; default 1000 or 1001.")
    weights: str | None = option(
        None,
        "raw or ema: which of a checkpoint's weights; default the averaged ones (EMA) if it has them.",
    )
    labels: Path | None = option(None, "Class names: a line each, json by index, or csv.")
    allow_unmatched: tuple[str, ...] = option((), "Names that may stay unmatched, as classifier.*")


@with_options("import", ImportOptions)
def import_weights(
    file: File = None,
    network: Annotated[
        str | None,
        Option(
            "--as",
            help="Which network it is: a name with its width, or a spec file; default found out.",
        ),
    ] = None,
    known: Annotated[
        bool, Option("--list", help="Print published networks that are known to fit.")
    ] = False,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Import published weights as a folder that every command takes for a network.

    Python: bneck.import_weights(file)
    """
    if known:
        if file is not None or network is not None or given:
            raise InputError("--list prints what is known and imports nothing; leave the rest out")
        _print_known(as_json)
        return
    if file is None:
        raise InputError(
            "a file or a name of published weights is needed, as in: bneck import "
            "timm/mobilenetv3_small_100.lamb_in1k (bneck import --list prints more)"
        )
    from bneck.runs.imports import import_weights as import_file

    given |= {name: _numbers(name, given[name]) for name in ("mean", "std") if name in given}
    with bars() as progress:
        record = import_file(file, network, progress=progress, **given)
    _print_imported(record, as_json)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise InputError(f"--{option} is {text!r}; write three numbers, as 0.5,0.5,0.5") from None


@with_options("evaluate")
def evaluate(
    network: Annotated[
        str,
        Argument(help="The folder of a search, a training or an import, or an exported file."),
    ],
    data: Annotated[
        str | None,
        Option(
            help="Images as the task reads them (docs/reference/data.md); default the run's own."
        ),
    ] = None,
    split: Annotated[str, Option(help="Split to score: val, test, train.")] = "val",
    compute: Annotated[str | None, Option(help="Where: cpu, cuda or cuda:1.")] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Score a trained network on a dataset. Python: bneck.evaluate(network, data)"""
    from bneck.runs.evaluate import evaluate as evaluate_network
    from bneck.tasks.registry import task as task_named

    with bars() as progress:
        found = evaluate_network(
            network, data, split=split, compute=compute, progress=progress, **given
        )
    if as_json:
        print_json(found)
        return
    print(f"{found['name']}, {found['precision']}:")
    print_scores(task_named(found["task"]), [found])
    if found.get("left_out"):
        print_line(f"- {len(found['left_out'])} unreadable images left out")
    for note in found["notes"]:
        print_line(f"- {note}")


def _print_known(as_json: bool) -> None:
    from bneck.imports.published import KNOWN

    rows = [one.as_json() for one in KNOWN]
    if as_json:
        print_json(rows)
        return
    cells = [
        (
            row["name"], row["network"], f"{row['top1']:.1f}", f"{row['params'] / 1e6:.2f}",
            f"{row['size_mb']:.1f}", row["license"],
        )
        for row in rows
    ]  # fmt: skip
    print_table(
        new_table(
            "published weights that fit; top-1 on ImageNet as their publishers say",
            ("name", "network", "top-1 %", "params M", "MB", "license"), cells, left=(0, 1, 5),
        )
    )  # fmt: skip
    print_line(
        "timm/... is fetched by name, as in: bneck train --from NAME --data FOLDER; a .pth file is passed "
        "by its path"
    )


def _print_imported(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    mean, std = (
        " ".join(f"{v:.4g}" for v in record["normalisation"][key]) for key in ("mean", "std")
    )
    for note in record["notes"]:
        print_line(f"- {note}")
    print_ending(
        f"{record['name']} from {record['source']['layout']} weights, {record['class_count']} classes, "
        f"{record['padding']} padding, mean {mean}, std {std}",
        (record["run"],),
        command("search", "--from", record["run"], "--data", FOLDER, "--target", "50%"),
    )
