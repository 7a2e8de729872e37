"""`bneck`: the commands. Each is a thin shell over the Python function that its help names."""

from __future__ import annotations

import sys
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bneck.cli import detection, pages, segmentation, ship, train, weights
from bneck.cli import search_options as options
from bneck.cli.bars import Bars
from bneck.cli.options import (
    NAMES,
    TASKS,
    Balance,
    BenchmarkModel,
    ClassList,
    Crop,
    Device,
    Filters,
    GlobalPool,
    HeadName,
    HeadOption,
    Ignore,
    ImageFolder,
    ImageSize,
    Json,
    OnnxRuntimeWeb,
    OutputStride,
    Task,
    print_json,
    print_table,
    use_tools,
)
from bneck.cli.tables import (
    count_table,
    front_table,
    search_summary,
    spec_table,
    zoo_table,
)
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, train, shrink and ship the vision network that fits your data and your device.",
)

train.register(app)

# Parameters of `bneck search` that its Python twin is not given, or not as they are.
_APART = ("task", "tail", "resume", "benchmark_model", "onnxruntime_web", "as_json")

# Where modules come from that the base install leaves out.
_SEARCH = (
    "torch",
    "onnx",
    "onnxruntime",
    "PIL",
    "loky",
    "optuna",
    "safetensors",
    "scipy",
)
EXTRAS = {
    **dict.fromkeys(_SEARCH, "search"),
    "tflite": "tflite",
    "faster_coco_eval": "detect",
    "pyarrow": "train",
    "ray": "cluster",
}

STOPPED = 130  # what Ctrl-C ends in


@app.command()
def show(
    network: Annotated[str, typer.Argument(help=NAMES)],
    text: Annotated[bool, typer.Option("--text", help="Print the spec as yaml.")] = False,
    as_json: Json = False,
) -> None:
    """Print a network's table with the cost of every row. Python: bneck.count(network).rows"""
    from bneck.recipes.networks import count as count_network
    from bneck.recipes.networks import network as find
    from bneck.specs.text import to_text

    spec = find(network)
    if text:
        print(to_text(spec), end="")
        return
    costs = count_network(spec)
    if as_json:
        print_json({**_count_json(network, spec, costs), "spec": to_text(spec)})
        return
    print_table(spec_table(spec, costs))


@app.command()
def count(
    networks: Annotated[list[str], typer.Argument(help=NAMES)],
    task: Annotated[Task, typer.Option(help=TASKS)] = Task.CLASSIFY,
    classes: Annotated[
        int | None, typer.Option(help="Of a detector (default COCO's 90) or segmenter (19).")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Input side in pixels of a detector; default 320.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of a segmenter's image; default 1024x2048.")
    ] = None,
    head: HeadOption = HeadName.LRASPP,
    filters: Filters = 128,
    output_stride: OutputStride = None,
    as_json: Json = False,
) -> None:
    """Count parameters, multiply-adds and activation memory. Python: bneck.count(network)"""
    from bneck.recipes.networks import count as count_network
    from bneck.recipes.networks import network as find

    if task == Task.DETECT:
        detection.count(networks, classes, resolution, as_json)
        return
    if task == Task.SEGMENT:
        segmentation.count(networks, classes, size, head.value, filters, output_stride, as_json)
        return
    if classes is not None or resolution is not None or size is not None:
        raise InputError(
            "--classes, --resolution and --size go with another --task; a name ends in @192"
        )
    counted = [(name, find(name), count_network(name)) for name in networks]
    if as_json:
        found = [_count_json(*entry) for entry in counted]
        print_json(found[0] if len(found) == 1 else found)
        return
    print_table(count_table(counted))


@app.command()
def zoo(
    pattern: Annotated[str, typer.Argument(help="Beginning of a name, or v3-*@96.")] = "*",
    task: Annotated[Task, typer.Option(help=TASKS)] = Task.CLASSIFY,
    as_json: Json = False,
) -> None:
    """List the networks of the paper, their counts beside the printed ones. Python: bneck.zoo()"""
    from bneck.recipes.networks import zoo as list_zoo

    if task == Task.DETECT:
        detection.zoo(pattern, as_json)
        return
    if task == Task.SEGMENT:
        segmentation.zoo(pattern, as_json)
        return
    entries = list_zoo(pattern)
    if as_json:
        print_json(
            [
                {
                    "network": entry.name,
                    "params": entry.costs.params,
                    "madds": entry.costs.madds,
                    "published": [
                        {**asdict(row), "differs": row.differs(entry.costs)}
                        for row in entry.published
                    ],
                }
                for entry in entries
            ]
        )
        return
    print_table(zoo_table(entries))


app.command()(ship.measure)


@app.command()
def search(
    data: options.Data = None,
    target: options.Target = "70%",
    task: Annotated[Task, typer.Option(help=TASKS)] = Task.CLASSIFY,
    device: Device = "local",
    runtime: options.Runtime = None,
    precision: options.Precision = "fp32",
    seed_network: options.SeedNetwork = None,
    resolution: options.Resolution = None,
    epochs: options.Epochs = None,
    steps: options.Steps = None,
    tail: options.Tail = True,
    delta: options.Delta = 0.01,
    repeats: options.Repeats = 2,
    seed: options.Seed = 0,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    out: options.Out = None,
    from_scratch: options.FromScratch = False,
    space: options.Space = "v3-small",
    trials: options.Trials = 60,
    searcher: options.Searcher = "predictor",
    objective: options.Objective = "reward",
    reward: options.Reward = "hard",
    exponent: options.Exponent = None,
    proxy_epochs: options.ProxyEpochs = None,
    batch: options.Batch = 4,
    top: options.Top = 3,
    slack: options.Slack = 0.15,
    supernet: options.Supernet = None,
    ledger: options.Ledger = None,
    study: options.Study = None,
    images: ImageFolder = None,
    loss: options.Loss = None,
    head: options.Head = None,
    filters: options.Filters = None,
    output_stride: OutputStride = None,
    global_pool: GlobalPool = False,
    classes: ClassList = None,
    ignore: Ignore = None,
    size: ImageSize = None,
    crop: Crop = None,
    balance: Balance = False,
    resume: options.Resume = None,
    benchmark_model: BenchmarkModel = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    as_json: Json = False,
) -> None:
    """Fit a network to your images and your device: the main job.

    Python: bneck.search(...), bneck.resume(run)
    """
    given = {name: value for name, value in locals().items() if name not in _APART}
    use_tools(benchmark_model, onnxruntime_web)
    from bneck.recipes import main as recipes

    with Bars(Console(stderr=True)) as bars:
        if resume is not None:
            record = recipes.resume(resume, progress=bars)
        else:
            words = options.as_python(given)  # the same in Python
            record = recipes.search(task=task.value, tail=tail, progress=bars, **words)
    if as_json:
        print_json(record)
    elif "found" in record:
        print(search_summary(record))
    else:
        print_table(front_table(record))


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="A finished run's folder or an exported file.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    top: Annotated[int, typer.Option(help="How many classes.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Of a detector or segmenter: the picture.png to write, or a folder for several."
        ),
    ] = None,
    score: Annotated[
        float | None, typer.Option(help="Of a detector: least score; default the best on val.")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Of a segmenter: the PNG of class ids to write, or a folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the top classes of pictures, or draw what a detector or segmenter sees.

    Python: bneck.predict(run, images); of a detector bneck.detect(run, images), of a segmenter
    bneck.paint(run, images)
    """
    from bneck.recipes.exported import task_of

    task = task_of(run)
    if task == "detect":
        detection.predict(run, images, score, out, as_json)
        return
    if task == "segment":
        segmentation.predict(run, images, out, mask, as_json)
        return
    if out is not None or mask is not None or score is not None:
        raise InputError(
            f"--out, --mask and --score go with a detector's or segmenter's run, and {run} is none"
        )
    from bneck.recipes.predict import predict as predict_images

    found = predict_images(run, images, top=top)
    if as_json:
        print_json(
            [
                {
                    "image": str(image),
                    "classes": [{"label": name, "score": score} for name, score in best],
                }
                for image, best in zip(images, found, strict=True)
            ]
        )
        return
    for image, best in zip(images, found, strict=True):
        print(f"{image}: " + ", ".join(f"{name} {score:.1%}" for name, score in best))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, finished or not.")],
    as_json: Json = False,
) -> None:
    """Write a run's report anew: report.md, and of a search report.html. Python: bneck.write_report(run)"""
    from bneck.report.classify import write_classify_report
    from bneck.report.detect import write_detect_report
    from bneck.report.page import write_report
    from bneck.report.segment import write_segment_report

    writers = {
        "classify": write_classify_report,
        "detect": write_detect_report,
        "segment": write_segment_report,
    }
    folder = RunFolder(run)
    kind = folder.kind()
    files = [str(writers[kind](run))] if kind in writers else [str(p) for p in write_report(run)]
    if kind == "search" and (inner := RunFolder(folder.found).kind()) in writers:
        files.append(str(writers[inner](folder.found)))
    if as_json:
        print_json({"files": files})
    else:
        print("\n".join(files))


app.command()(detection.convert)
app.command()(ship.export)
app.command()(ship.quantize)
app.command()(ship.table)
app.command("import")(weights.import_weights)
app.command()(weights.evaluate)
app.command()(pages.reproduce)
app.command()(pages.compare)
app.command()(pages.demo)


def run() -> None:
    """The entry point: errors of the user's making end in one sentence and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        print(f"bneck: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        print(
            f"bneck: this needs {module}, which is not installed; install it with: "
            f"pip install 'bneck[{EXTRAS[module]}]'",
            file=sys.stderr,
        )
        sys.exit(2)
    except typer.TyperException as error:
        message = error.format_message().strip().removesuffix(".").removesuffix("?")
        message = message.replace(". Did you mean", "; did you mean")
        if message:  # empty: help was printed
            print(f"bneck: {message}; see --help", file=sys.stderr)
        sys.exit(2)
    if code == STOPPED:
        print(
            "bneck: stopped; it goes on with: bneck search --resume RUN, or bneck train --resume RUN",
            file=sys.stderr,
        )
    sys.exit(code)


def _count_json(name: str, spec: Any, costs: Any) -> dict[str, Any]:
    return {
        "network": name,
        "resolution": spec.resolution,
        "params": costs.params,
        "madds": costs.madds,
        "activation_bytes": costs.activation_bytes,
        "rows": [
            {
                "row": r.row,
                "params": r.params,
                "madds": r.madds,
                "activation_bytes": r.activation_bytes,
            }
            for r in costs.rows
        ],
    }
