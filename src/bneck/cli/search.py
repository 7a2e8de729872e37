"""`bneck search`: the main job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from bneck.cli.bars import bars
from bneck.cli.ending import print_front, print_search
from bneck.cli.generated import alone, with_options
from bneck.cli.options import WHERE, DataFolder, Json, TaskName, print_json, print_table
from bneck.cli.tables import front_table
from bneck.tasks.options import option
from bneck.tasks.registry import DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The options of `bneck search` that every task has, with the names and defaults of `bneck.search`."""

    target: tuple[str, ...] = option(
        (),
        "Latency target: 5ms, 800us, or 70% of the seed network's (default); several give a network each.",
    )
    lose: float | None = option(
        None, "Instead of --target: points of the score that the fastest network may lose at most."
    )
    method: str | None = option(
        None,
        "How to narrow: importance (default), or netadapt (section 4.2, default with --from-scratch).",
    )
    also: tuple[str, ...] = option(
        (), "Weights of another network to compare with, as in --from; may be given several times."
    )
    retrain: bool = option(
        False, "With --method netadapt: train the result from random weights, as the paper does."
    )
    device: str = option("local", WHERE)
    runtime: str | None = option(
        None, "Runtime on the device: onnxruntime, litert or openvino; default the device's."
    )
    precision: str = option(
        "fp32", "Precision that is timed and shipped: fp32, fp16 or int8; training is in float."
    )
    threads: int = option(1, "Threads of the runtime when latency is measured.")
    seed_network: str | None = option(
        None, "Network to narrow; default v3-small, with +dagger to detect and +rf2 to segment."
    )
    start: str | None = option(
        None,
        "Trained weights to begin with: a run, an import, a file of published weights, or a name on "
        "the hub (timm/NAME.TAG, hf:ORG/REPO).",
        flag="--from",
    )  # fmt: skip
    epochs: float | None = option(
        None,
        "Epochs of the seed network, or of a full training from random weights; what inherits the seed "
        "network's weights gets twice as many.",
    )
    steps: int | None = option(None, "T: NetAdapt's training steps per proposal.")
    tail: bool | None = option(
        None, "Let NetAdapt narrow the convs after the last bneck (the paper does not).",
        flag="--tail/--no-tail",
    )  # fmt: skip
    delta: float | None = option(
        None, "NetAdapt's minimum latency cut per step, as a fraction of the seed's; default 0.01."
    )
    repeats: int = option(2, "Final training runs of result and baseline.")
    seed: int = option(0, "Seed of everything random.")
    workers: int | None = option(None, "Worker processes; default one per core.")
    cluster: str | None = option(None, "Ray cluster that trains: auto, or ray://HOST:10001.")
    from_scratch: bool = option(False, "Search the blocks first (section 4.1).")
    space: str | None = option(
        None, "Space of blocks: mnasnet, v3-large, v3-small, v4-like or a yaml file."
    )
    trials: int | None = option(None, "Networks of the space to train.")
    searcher: str | None = option(
        None,
        "Searcher: predictor, evolution, controller, controller-tuned, tpe, nsga2, gp or random.",
    )
    objective: str | None = option(
        None, "Objective: reward (one network) or pareto (the front of accuracy and latency)."
    )
    reward: str | None = option(None, "Reward: hard, absolute, or paper (whose TAR cancels).")
    exponent: float | None = option(None, "Exponent w or beta of the reward.")
    proxy_epochs: int | None = option(
        None, "Epochs per trial of blocks; default a third of --epochs."
    )
    batch: int | None = option(None, "Networks of the space proposed at once.")
    top: int | None = option(None, "Best networks of the space to train in full.")
    slack: float | None = option(
        None, "Fraction of the target that NetAdapt cuts from the blocks; 0 for none."
    )
    supernet: float | None = option(
        None, "Epochs of a supernet that scores the trials; default: each trial is trained."
    )
    ledger: str | None = option(None, "Database of the block trials; default a file in the run.")
    study: str | None = option(
        None, "Study in the ledger: runs of the same study evaluate its trials together."
    )


@with_options("search", SearchOptions)
def search(
    data: DataFolder = None,
    task: TaskName = None,
    out: Annotated[Path | None, Option(help="The run's folder; default runs/search-TIME.")] = None,
    resume: Annotated[Path | None, Option(help="An unfinished run's folder to go on with.")] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Fit a network to your images and your device: the main job.

    Python: bneck.search(...), bneck.resume(run)
    """
    from bneck.runs.search import main

    with bars() as progress:
        if resume is not None:
            alone(resume, {"data": data, "task": task, "out": out, **given})
            record = main.resume_search(resume, progress=progress)
        else:
            record = main.search(data, task=task or DEFAULT, out=out, progress=progress, **given)
    if as_json:
        print_json(record)
    elif "found" in record:
        print_search(record)
    else:
        print_table(front_table(record))
        print_front(record)
