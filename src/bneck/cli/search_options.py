"""The options of `bneck search` that every task has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Space = Annotated[
    str | None, typer.Option(help="Of blocks: mnasnet, v3-large, v3-small or a yaml file.")
]
Trials = Annotated[int | None, typer.Option(help="Networks of the space that are trained.")]
Searcher = Annotated[
    str | None,
    typer.Option(
        help="predictor, evolution, controller, controller-tuned, tpe, nsga2, gp or random."
    ),
]
Objective = Annotated[
    str | None, typer.Option(help="reward: one network. pareto: the front of accuracy and latency.")
]
Reward = Annotated[str | None, typer.Option(help="hard, absolute, or paper (whose TAR cancels).")]
Exponent = Annotated[float | None, typer.Option(help="w or beta of the reward.")]
ProxyEpochs = Annotated[
    int | None, typer.Option(help="Of a trial of blocks; default a third of --epochs.")
]
Batch = Annotated[
    int | None, typer.Option(help="Networks of the space that are asked for at once.")
]
Top = Annotated[int | None, typer.Option(help="Best blocks that are trained in full.")]
Slack = Annotated[
    float | None,
    typer.Option(help="Share of the target that NetAdapt cuts from the blocks; 0: none."),
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
Resume = Annotated[Path | None, typer.Option(help="An unfinished run's folder to go on with.")]
