"""The commands about trained weights: import published ones, evaluate any."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bneck.cli import detection, segmentation
from bneck.cli.bars import Bars
from bneck.cli.options import ClassList, Ignore, ImageFolder, Json, print_json
from bneck.specs.errors import InputError


def import_weights(
    file: Annotated[
        Path,
        typer.Argument(
            help="A torch, safetensors or TFLite file of torchvision, timm or TensorFlow."
        ),
    ],
    network: Annotated[
        str,
        typer.Option("--as", help="Which network it is: a name with its width, or a spec file."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; default runs/import-TIME.")
    ] = None,
    source: Annotated[
        str,
        typer.Option(help="timm or timm-tf (a port of TensorFlow weights), if names do not tell."),
    ] = "auto",
    padding: Annotated[
        str | None, typer.Option(help="same or symmetric; default the source's.")
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Of pixels from 0 to 1, as 0.5,0.5,0.5; default the source's."),
    ] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    bn_eps: Annotated[
        float | None, typer.Option(help="Batch norm's epsilon; default the source's.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Classes that the file must have; default 1000 or 1001.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Class names: a line each, json by index, or csv.")
    ] = None,
    excuse: Annotated[
        list[str] | None, typer.Option(help="Names that may stay unmatched, as classifier.*")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import published weights as a folder that every command takes for a network.

    Python: bneck.import_weights(file, network)
    """
    from bneck.recipes.imports import import_weights as import_file

    record = import_file(
        file,
        network,
        out=out,
        source=source,
        padding=padding,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        bn_eps=bn_eps,
        classes=classes,
        labels=labels,
        excuse=excuse or (),
    )
    if as_json:
        print_json(record)
        return
    print(_imported(record))
    for note in record["notes"]:
        print(f"- {note}")


def evaluate(
    network: Annotated[
        str,
        typer.Argument(
            help="The folder of a search, a training or an import, or an exported file."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images: CLASS/*, val/CLASS/*, or a labels.csv beside them. Of a detector: COCO json and "
            "images, of a segmenter: images and masks. Default: val of the run's own."
        ),
    ] = None,
    crop: Annotated[
        str, typer.Option(help="central (the middle 87.5 %) or resize (shorter side to 256 / 224).")
    ] = "central",
    resolution: Annotated[
        int | None, typer.Option(help="Input side in pixels; default the network's.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A list of classes by index, or a labels.csv elsewhere.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of a detector's or segmenter's data: train, val, test.")
    ] = "val",
    classes: ClassList = None,
    ignore: Ignore = None,
    sliding: Annotated[
        str | None,
        typer.Option(help="HEIGHTxWIDTH of a segmenter's sliding windows; default whole images."),
    ] = None,
    images: ImageFolder = None,
    as_json: Json = False,
) -> None:
    """Judge a trained network on labelled images.

    Python: bneck.evaluate(network, data); of a detector bneck.evaluate_detect(run), of a segmenter
    bneck.evaluate_segment(run)
    """
    from bneck.recipes.exported import task_of

    task = task_of(network)
    if task == "detect":
        detection.evaluate(network, data, split, images, as_json)
        return
    if task == "segment":
        segmentation.evaluate(network, data, split, classes, ignore, sliding, as_json)
        return
    from bneck.recipes.evaluate import evaluate as evaluate_network

    with Bars(Console(stderr=True)) as bars:
        found = evaluate_network(
            network, data, crop=crop, resolution=resolution, labels=labels, progress=bars
        )
    if as_json:
        print_json(found)
        return
    print(
        f"{found['name']}: top-1 {found['top1']:.1%}, top-5 {found['top5']:.1%}, loss {found['loss']:.3f} "
        f"on {found['n']} images ({found['crop']} crop, {found['resolution']} px, {found['padding']} padding)"
    )
    for note in found["notes"]:
        print(f"- {note}")
    if found["bad"]:
        print(f"- {len(found['bad'])} unreadable images left out")


def _imported(record: dict[str, Any]) -> str:
    mean, std = (
        " ".join(f"{v:.4g}" for v in record["normalisation"][key]) for key in ("mean", "std")
    )
    return (
        f"{record['name']} from {record['source']['layout']} weights, {record['class_count']} classes, "
        f"{record['padding']} padding, mean {mean}, std {std}: {record['run']}"
    )


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"{option} is {text!r}; write three numbers, as 0.5,0.5,0.5") from None
