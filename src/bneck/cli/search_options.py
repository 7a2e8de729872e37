"""The options of `bneck search`, in the words of its Python twin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bneck.cli.options import HeadName

Data = Annotated[
    Path | None,
    typer.Option(
        help="Images: train/CLASS/* and val/CLASS/*, or CLASS/* (default: built-in ones); of another "
        "task what bneck train takes."
    ),
]
Target = Annotated[str, typer.Option(help="5ms, 800us, or 70% of the seed network.")]
Runtime = Annotated[
    str | None,
    typer.Option(
        help="What runs it there: onnxruntime, litert or openvino. Default: the device's."
    ),
]
Precision = Annotated[
    str, typer.Option(help="What is timed and shipped: fp32, fp16 or int8; training is in float.")
]
Threads = Annotated[int, typer.Option(help="Threads of the runtime when latency is measured.")]
SeedNetwork = Annotated[
    str | None,
    typer.Option(
        help="The network to narrow; default v3-small, with +dagger to detect and +rf2 to segment."
    ),
]
Resolution = Annotated[
    int | None, typer.Option(help="Input side in pixels; of a detector by default 320.")
]
Epochs = Annotated[float | None, typer.Option(help="Of every full training.")]
Steps = Annotated[int | None, typer.Option(help="T: training steps that judge a proposal.")]
Tail = Annotated[
    bool, typer.Option(help="Also narrow the convs behind the last bneck (the paper does not).")
]
Delta = Annotated[float, typer.Option(help="Least cut a step, share of the seed's latency.")]
Repeats = Annotated[int, typer.Option(help="Final trainings of result and baseline.")]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Workers = Annotated[int | None, typer.Option(help="Processes; default one a core.")]
Cluster = Annotated[
    str | None, typer.Option(help="A Ray cluster that trains: auto, or ray://HOST:10001.")
]
Out = Annotated[Path | None, typer.Option(help="The run's folder; default runs/search-TIME.")]
FromScratch = Annotated[
    bool, typer.Option("--from-scratch", help="Search the blocks first (section 4.1).")
]
Space = Annotated[str, typer.Option(help="Of blocks: mnasnet, v3-large, v3-small or a yaml file.")]
Trials = Annotated[int, typer.Option(help="Networks of the space that are trained.")]
Searcher = Annotated[
    str,
    typer.Option(
        help="predictor, evolution, controller, controller-tuned, tpe, nsga2, gp or random."
    ),
]
Objective = Annotated[
    str, typer.Option(help="reward: one network. pareto: the front of accuracy and latency.")
]
Reward = Annotated[str, typer.Option(help="hard, absolute, or paper (whose TAR cancels).")]
Exponent = Annotated[float | None, typer.Option(help="w or beta of the reward.")]
ProxyEpochs = Annotated[
    int | None, typer.Option(help="Of a trial of blocks; default a third of --epochs.")
]
Batch = Annotated[int, typer.Option(help="Networks of the space that are asked for at once.")]
Top = Annotated[int, typer.Option(help="Best blocks that are trained in full.")]
Slack = Annotated[
    float, typer.Option(help="Share of the target that NetAdapt cuts from the blocks; 0: none.")
]
Supernet = Annotated[
    float | None,
    typer.Option(help="Epochs of a supernet that judges the trials; default: each is trained."),
]
Ledger = Annotated[
    str | None, typer.Option(help="Database of the block trials; default a file in the run.")
]
Study = Annotated[
    str | None,
    typer.Option(help="Its name in the ledger: runs of the same one judge its trials together."),
]
Head = Annotated[HeadName | None, typer.Option(help="Of a segmenter; default lraspp.")]
Filters = Annotated[int | None, typer.Option(help="F of a segmenter's head; default 128.")]
Loss = Annotated[str | None, typer.Option(help="Of a detector: focal (default) or mining.")]
Resume = Annotated[Path | None, typer.Option(help="An unfinished run's folder to go on with.")]


def as_python(given: dict[str, Any]) -> dict[str, Any]:
    """The options in the words of Python: sizes as pairs, what was not given left out."""
    from bneck.recipes.segmenters import parse_size

    found = {k: v for k, v in given.items() if v is not None and v is not False and v != []}
    for name in ("size", "crop"):
        if name in found:
            found[name] = parse_size(found[name])
    if "head" in found:
        found["head"] = found["head"].value
    return found
