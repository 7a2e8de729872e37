"""`bneck train`: the tasks that are learnt from a folder, by `--task`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bneck.cli import detection, segmentation
from bneck.cli.options import (
    TASKS,
    ClassList,
    Filters,
    HeadName,
    HeadOption,
    Ignore,
    ImageFolder,
    Json,
    OutputStride,
    Task,
)
from bneck.specs.errors import InputError

TRAINED = (
    Task.DETECT,
    Task.SEGMENT,
)  # the tasks that `bneck train` knows; a search trains classifiers

DataFolder = Annotated[
    Path | None,
    typer.Option(
        help="COCO json files and images, or images and masks (Cityscapes, train + trainannot)."
    ),
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
Resolution = Annotated[
    int | None, typer.Option(help="Input side in pixels of a detector; default 320.")
]
Loss = Annotated[str, typer.Option(help="Of a detector: focal, or mining (hard negatives).")]
Start = Annotated[
    Path | None,
    typer.Option(
        help="The folder of an import or classification run to take a detector's backbone from."
    ),
]
Epochs = Annotated[
    float | None, typer.Option(help="Of training; default 60 (detect) or 50 (segment).")
]
BatchSize = Annotated[
    int | None, typer.Option(help="Images a step; default 16 (detect) or 8 (segment).")
]
Rate = Annotated[
    float | None,
    typer.Option(help="Peak rate; default 0.002 for 16 images (detect), 0.1 for 8 (segment)."),
]
Balance = Annotated[bool, typer.Option("--balance", help="Weigh rare classes more in the loss.")]


def register(app: typer.Typer) -> None:
    """Add the command of this page to the application."""
    app.command()(train)


def train(
    network: Annotated[
        str | None, typer.Argument(help="A network (v3-large+rf2), a spec file or a run's folder.")
    ] = None,
    task: Annotated[Task, typer.Option(help=TASKS)] = Task.SEGMENT,
    data: DataFolder = None,
    head: HeadOption = HeadName.LRASPP,
    filters: Filters = 128,
    output_stride: OutputStride = None,
    global_pool: GlobalPool = False,
    classes: ClassList = None,
    ignore: Ignore = None,
    size: ImageSize = None,
    crop: Crop = None,
    images: ImageFolder = None,
    resolution: Resolution = None,
    loss: Loss = "focal",
    start: Start = None,
    epochs: Epochs = None,
    batch: BatchSize = None,
    lr: Rate = None,
    balance: Balance = False,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; default runs/TASK-TIME.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="An unfinished run's folder to go on with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a network for a task on your images, and judge it.

    Python: bneck.train_detect(network, data), bneck.train_segment(network, data), bneck.resume_detect(run),
    bneck.resume_segment(run)
    """
    if resume is None and task not in TRAINED:
        known = ", ".join(TRAINED)
        raise InputError(f"bneck train does not know the task {task.value}; it knows {known}")
    if resume is None and (network is None or data is None):
        raise InputError(
            "a network and --data are needed, as in: bneck train v3-small+dagger --task detect "
            "--data FOLDER"
        )
    if task == Task.DETECT or (resume is not None and detection.is_run(str(resume))):
        detection.train(
            network, data, resume, as_json, images=images, resolution=resolution, loss=loss,
            start=start, epochs=epochs, batch=batch, lr=lr, seed=seed, out=out,
        )  # fmt: skip
        return
    segmentation.train(
        network, data, resume, as_json, head=head.value, filters=filters, output_stride=output_stride,
        global_pool=global_pool, classes=classes, ignore=ignore or (), size=size, crop=crop, epochs=epochs,
        batch=batch, lr=lr, balance=balance, seed=seed, out=out,
    )  # fmt: skip
