"""`bneck search`: the main job."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from bneck.cli import search_options as options
from bneck.cli.bars import Bars
from bneck.cli.generated import alone, with_options
from bneck.cli.options import (
    BenchmarkModel,
    DataFolder,
    Device,
    Json,
    OnnxRuntimeWeb,
    TaskName,
    print_json,
    print_table,
    use_tools,
)
from bneck.cli.tables import front_table, search_summary
from bneck.tasks.registry import DEFAULT

# Parameters that the Python function is not given.
_APART = ("resume", "benchmark_model", "onnxruntime_web", "as_json", "given")


@with_options("search")
def search(
    data: DataFolder = None,
    target: options.Target = "70%",
    task: TaskName = None,
    device: Device = "local",
    runtime: options.Runtime = None,
    precision: options.Precision = "fp32",
    threads: options.Threads = 1,
    seed_network: options.SeedNetwork = None,
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
    space: options.Space = None,
    trials: options.Trials = None,
    searcher: options.Searcher = None,
    objective: options.Objective = None,
    reward: options.Reward = None,
    exponent: options.Exponent = None,
    proxy_epochs: options.ProxyEpochs = None,
    batch: options.Batch = None,
    top: options.Top = None,
    slack: options.Slack = None,
    supernet: options.Supernet = None,
    ledger: options.Ledger = None,
    study: options.Study = None,
    resume: options.Resume = None,
    benchmark_model: BenchmarkModel = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Fit a network to your images and your device: the main job.

    Python: bneck.search(...), bneck.resume(run)
    """
    said = {name: value for name, value in locals().items() if name not in _APART}
    use_tools(benchmark_model, onnxruntime_web)
    from bneck.runs.search import main

    with Bars(Console(stderr=True)) as bars:
        if resume is not None:
            usual = _DEFAULTS
            alone(resume, {k: v for k, v in said.items() if v != usual.get(k)} | given)
            record = main.resume_search(resume, progress=bars)
        else:
            said["task"] = task or DEFAULT
            record = main.search(progress=bars, **said, **given)
    if as_json:
        print_json(record)
    elif "found" in record:
        print(search_summary(record))
    else:
        print_table(front_table(record))


_DEFAULTS = {
    "target": "70%", "device": "local", "precision": "fp32", "threads": 1, "tail": True, "delta": 0.01,
    "repeats": 2, "seed": 0,
}  # fmt: skip
