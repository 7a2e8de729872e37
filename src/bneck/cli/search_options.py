"""The options of `bneck search` that every task has; `bneck.search` takes them by the same names."""

from __future__ import annotations

from dataclasses import dataclass

from bneck.cli.options import WHERE
from bneck.tasks.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The defaults are those of `bneck.search`; None leaves the choice to it."""

    target: str = option("70%", "5ms, 800us, or 70% of the seed network.", "search")
    device: str = option("local", WHERE, "search")
    runtime: str | None = option(
        None,
        "What runs it there: onnxruntime, litert or openvino. Default: the device's.",
        "search",
    )
    precision: str = option(
        "fp32", "What is timed and shipped: fp32, fp16 or int8; training is in float.", "search"
    )
    threads: int = option(1, "Threads of the runtime when latency is measured.", "search")
    seed_network: str | None = option(
        None,
        "The network to narrow; default v3-small, with +dagger to detect and +rf2 to segment.",
        "search",
    )
    epochs: float | None = option(None, "Of every full training.", "search")
    steps: int | None = option(None, "T: training steps that judge a proposal.", "search")
    tail: bool = option(
        True, "Also narrow the convs behind the last bneck (the paper does not).", "search",
        flag="--tail/--no-tail",
    )  # fmt: skip
    delta: float = option(0.01, "Least cut a step, share of the seed's latency.", "search")
    repeats: int = option(2, "Final trainings of result and baseline.", "search")
    seed: int = option(0, "Everything random follows from it.", "search")
    workers: int | None = option(None, "Processes; default one a core.", "search")
    cluster: str | None = option(
        None, "A Ray cluster that trains: auto, or ray://HOST:10001.", "search"
    )
    from_scratch: bool = option(False, "Search the blocks first (section 4.1).", "search")
    space: str | None = option(
        None, "Of blocks: mnasnet, v3-large, v3-small or a yaml file.", "search"
    )
    trials: int | None = option(None, "Networks of the space that are trained.", "search")
    searcher: str | None = option(
        None,
        "predictor, evolution, controller, controller-tuned, tpe, nsga2, gp or random.",
        "search",
    )
    objective: str | None = option(
        None, "reward: one network. pareto: the front of accuracy and latency.", "search"
    )
    reward: str | None = option(None, "hard, absolute, or paper (whose TAR cancels).", "search")
    exponent: float | None = option(None, "w or beta of the reward.", "search")
    proxy_epochs: int | None = option(
        None, "Of a trial of blocks; default a third of --epochs.", "search"
    )
    batch: int | None = option(None, "Networks of the space that are asked for at once.", "search")
    top: int | None = option(None, "Best blocks that are trained in full.", "search")
    slack: float | None = option(
        None, "Share of the target that NetAdapt cuts from the blocks; 0: none.", "search"
    )
    supernet: float | None = option(
        None, "Epochs of a supernet that judges the trials; default: each is trained.", "search"
    )
    ledger: str | None = option(
        None, "Database of the block trials; default a file in the run.", "search"
    )
    study: str | None = option(
        None, "Its name in the ledger: runs of the same one judge its trials together.", "search"
    )
