"""`bneck train`: the tasks that are learnt from a folder, by `--task`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bneck.cli import classification, detection, segmentation
from bneck.cli.options import (
    TASKS,
    Balance,
    ClassList,
    Crop,
    Filters,
    GlobalPool,
    HeadName,
    HeadOption,
    Ignore,
    ImageFolder,
    ImageSize,
    Json,
    Loss,
    OutputStride,
    Task,
)
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError

DataFolder = Annotated[
    str | None,
    typer.Option(
        help="Folders of classes, tar shards (also a URL) or a Hugging Face dataset on disk (default: "
        "built-in images); COCO json files and images; or images and masks (Cityscapes, train + trainannot)."
    ),
]
Resolution = Annotated[
    int | None,
    typer.Option(help="Input side in pixels; default 320 (detect) or the network's (classify)."),
]
Start = Annotated[
    Path | None,
    typer.Option(
        "--from",
        "--start",
        help="The folder of an import or a run, or a file of published weights, to begin with "
        "(classify); or a detector's backbone.",
    ),
]
Teacher = Annotated[
    Path | None,
    typer.Option(help="A run or an import whose answers a classifier learns too (distillation)."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="FIELD=VALUE of a classifier's recipe: precision=bf16, decayed=all, ..."
    ),
]
Streamed = Annotated[
    bool, typer.Option("--stream", help="Decode images in every epoch, not once into a pack.")
]
BadShare = Annotated[
    float, typer.Option(help="Share of a classifier's images that may be unreadable.")
]
Epochs = Annotated[
    float | None,
    typer.Option(help="Of training; default the recipe's, 60 (detect) or 50 (segment)."),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Images a step; default the recipe's, 16 (detect) or 8 (segment)."),
]
Rate = Annotated[
    float | None,
    typer.Option(help="Peak rate; default the recipe's, 0.002 for 16 images, 0.1 for 8 (segment)."),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="Of a classifier: small-data, finetune (default with --from), paper or imagenet."
    ),
]
Frozen = Annotated[
    bool, typer.Option("--frozen", help="Train only what stands behind a classifier's pool.")
]


def register(app: typer.Typer) -> None:
    """Add the command of this page to the application."""
    app.command()(train)


def train(
    network: Annotated[
        str | None, typer.Argument(help="A network (v3-large+rf2), a spec file or a run's folder.")
    ] = None,
    task: Annotated[Task, typer.Option(help=TASKS)] = Task.CLASSIFY,
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
    recipe: Recipe = None,
    frozen: Frozen = False,
    teacher: Teacher = None,
    changes: Changes = None,
    stream: Streamed = False,
    bad_share: BadShare = 0.01,
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

    Python: bneck.train_classify(network, data), bneck.train_detect(...), bneck.train_segment(...);
    bneck.resume_classify(run), bneck.resume_detect(run), bneck.resume_segment(run)
    """
    task = task if resume is None else _task_of(resume)
    if resume is None and (network is None or (data is None and task != Task.CLASSIFY)):
        example = {
            Task.CLASSIFY: "v3-small",
            Task.DETECT: "v3-small+dagger --task detect",
            Task.SEGMENT: "v3-small+rf2 --task segment",
        }[task]
        raise InputError(
            f"a network and --data are needed, as in: bneck train {example} --data FOLDER"
        )
    folder = None if data is None else Path(data)
    if task == Task.CLASSIFY:
        classification.train(
            network, data, resume, as_json, resolution=resolution, start=start, recipe=recipe,
            frozen=frozen, teacher=teacher, changes=changes or (), stream=stream, bad_share=bad_share,
            epochs=epochs, batch=batch, lr=lr, seed=seed, out=out,
        )  # fmt: skip
    elif task == Task.DETECT:
        detection.train(
            network, folder, resume, as_json, images=images, resolution=resolution, loss=loss,
            start=start, epochs=epochs, batch=batch, lr=lr, seed=seed, out=out,
        )  # fmt: skip
    else:
        segmentation.train(
            network, folder, resume, as_json, head=head.value, filters=filters, output_stride=output_stride,
            global_pool=global_pool, classes=classes, ignore=ignore or (), size=size, crop=crop,
            epochs=epochs, batch=batch, lr=lr, balance=balance, seed=seed, out=out,
        )  # fmt: skip


def _task_of(run: Path) -> Task:
    """What a run was training for.

    Raises:
        InputError: no run, or one of another kind.
    """
    kind = RunFolder(run).read().get("kind")
    if kind not in list(Task):
        raise InputError(
            f"{run} is a run of kind {kind!r}; bneck train goes on with {', '.join(Task)}"
        )
    return Task(kind)
