"""Torch-Pruning against widths by importance per millisecond: same seed, same latency, same training.

    pip install --no-deps torch-pruning   # 1.6.1; bneck itself never needs it
    python benchmarks/against_torch_pruning.py OUT --data FOLDER --from WEIGHTS [--target 50%] [--seed 0]

A network is fine-tuned once, as `bneck search` trains its seed network. Torch-Pruning's group Taylor
importance prunes it, over all layers or within isomorphic groups, in one step and in several, with gradients
of the training batches anew in each. Its pruning ratio is bisected until the network measures at most the
target on the clock that searches decide by; one that is slightly slower is not taken. Next to them stand the
widths that `bneck search` takes from the same seed. All are then trained as `bneck search` trains what it
found, scored on val and timed in one race.

A pruned network becomes a spec with the same weights, so that nothing but its widths and channels is its own;
that both compute the same is checked. A row that is left with as many expanded channels as enter it would have
no expand convolution as a spec: it gets eight more channels, which put out zeros until they are trained.

OUT holds the seed's weights, a json file for every network, and results.json; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bneck.costs.table_file import read_table
from bneck.devices.deployment import Deployment
from bneck.devices.fill import fill_table
from bneck.devices.measure import Candidate
from bneck.nas.allocation.allocator import Allocator
from bneck.nets.importance import Importance
from bneck.nets.weights import save_weights
from bneck.records.ledger import Ledger
from bneck.records.progress import Silent
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.latency import Latencies, measured, seed_plan, table_path
from bneck.runs.search.settings import target_ms
from bneck.runs.search.widths.clocks import AIM, LOW, by_clocks
from bneck.runs.start import compatible, find_start, started
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Row
from bneck.specs.text import from_text, to_text
from bneck.specs.transforms import fix_skips, rename
from bneck.tasks.registry import DEFAULT, task
from bneck.training.settings import Settings

BATCHES = 16  # of 64 images: as many as importance is measured on
HIGHEST, TRIES = 0.95, 8


@dataclass(frozen=True, slots=True)
class Pruning:
    """How Torch-Pruning ranks channels, in how many steps it removes them, and what share of a layer at most.

    The share is looked at before a step, so that a layer may end below it.
    """

    name: str
    isomorphic: bool
    steps: int
    most: float = 1.0


PRUNINGS = (
    Pruning("isomorphic, 5 steps", True, 5),
    Pruning("global, 5 steps", False, 5),
    Pruning("isomorphic, 5 steps, at most 0.7", True, 5, 0.7),
    Pruning("isomorphic, 1 step", True, 1),
    Pruning("global, 1 step", False, 1),
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What all networks have in common. `seed` has fixed residuals; `reference` is what tables are of."""

    experiment: Experiment
    training: Settings
    reference: NetSpec
    seed: NetSpec
    on: Deployment
    out: Path

    def shares(self, specs: list[NetSpec]) -> list[float]:
        """Measured latencies as shares of the seed's, timed in interleaved rounds."""
        wrapper = self.experiment.wrapper
        candidates = [Candidate(spec, wrapper=wrapper) for spec in specs]
        found = measured(candidates, self.reference, 1.0, self.on, wrapper)
        return [one.latency_ms.median for one in found]

    def score(self, net: Any) -> float:
        return self.experiment.score(net, heldout=False).score or 0.0


def begun(args: argparse.Namespace) -> Setup:
    """The images and the seed network, fine-tuned from the start unless it was before."""
    chosen, progress = task(DEFAULT), Silent()
    options = chosen.Options(resolution=args.resolution)
    dataset = chosen.find(args.data, options, seed=args.seed)
    begin = find_start(args.start)
    spec, wrapper = chosen.arrange(str(begin.folder), options, dataset)
    spec = compatible(chosen, spec, begin.folder)
    training = chosen.recipe(
        None, started=True, epochs=args.epochs, images=dataset.splits["train"], seed=args.seed
    )
    data = chosen.prepare(
        dataset, spec, wrapper, options, scratch=args.out / "images", seed=args.seed, progress=progress
    )  # fmt: skip
    seed, weights = fix_skips(spec), args.out / "seed.safetensors"
    made = started(chosen, seed, wrapper, begin.folder, data, settings=training, progress=progress)
    experiment = Experiment(chosen.name, wrapper, data, None, made.net.normalisation)
    if not weights.is_file():
        experiment.fit(made.net, training, heldout=False)
        save_weights(made.net.state_dict(), weights)
    return Setup(
        experiment, training, spec, seed, Deployment.of("local", threads=args.threads), args.out
    )


def add_gradients(setup: Setup, net: Any, number: int) -> None:
    """The loss's gradients in place of those before, of the first batches of an epoch."""
    problem = setup.experiment.data.problem(net, setup.training)
    net.zero_grad()
    for batch in islice(problem.batches(number, 0), BATCHES):
        problem.loss(net, batch).backward()  # type: ignore[no-untyped-call]


def pruned(setup: Setup, how: Pruning, ratio: float, seed_net: Any) -> Any:
    """The seed network, which has gradients, as Torch-Pruning leaves it: see `as_spec`."""
    import torch_pruning  # type: ignore[import-untyped]

    net, side = deepcopy(seed_net), setup.seed.resolution
    pruner = torch_pruning.pruner.BasePruner(
        net, torch.zeros(1, setup.seed.channels, side, side),
        importance=torch_pruning.importance.GroupTaylorImportance(), global_pruning=True,
        isomorphic=how.isomorphic, pruning_ratio=ratio, iterative_steps=how.steps, round_to=8,
        max_pruning_ratio=how.most, ignored_layers=[net.classifier],
    )  # fmt: skip
    for value, known in zip(net.parameters(), seed_net.parameters(), strict=True):
        value.grad = known.grad.clone()
    for number in range(how.steps):
        if number:
            add_gradients(setup, net, number)
        pruner.step()
    net.zero_grad()
    return net


def as_spec(setup: Setup, net: Any) -> tuple[NetSpec, Any, list[int]]:
    """A pruned module as a spec and its module, and the rows that got eight more channels.

    Raises:
        AssertionError: the two compute different scores.
    """
    seed, rows, widened = setup.seed, list[Row](), list[int]()
    into = seed.channels
    for index, (row, module) in enumerate(zip(seed.rows, net.rows, strict=True)):
        if isinstance(row, Conv):
            row = replace(row, out=module.conv.out_channels)
        elif isinstance(row, Bneck):
            row = replace(
                row, expanded=module.depthwise.conv.out_channels, out=module.project.conv.out_channels,
                se=module.se.reduce.out_channels if row.se else 0,
            )  # fmt: skip
            if seed.expands(index) and row.expanded == into:
                row, widened = replace(row, expanded=into + 8), [*widened, index]
        rows.append(row)
        into = getattr(row, "out", into)
    spec = replace(seed, rows=tuple(rows))
    other = setup.experiment.build(spec, 0)
    with torch.no_grad():
        state, held = other.state_dict(), net.state_dict()
        for name, value in state.items():
            value[tuple(slice(n) for n in held[name].shape)] = held[name]
        for index in widened:
            name = f"rows.{index}.expand.conv.weight"
            state[name][len(held[name]) :] = 0
        other.load_state_dict(state)
        images = next(iter(setup.experiment.data.problem(net, setup.training).batches(0, 0)))[0]
        torch.testing.assert_close(other.eval()(images), net.eval()(images), rtol=1e-4, atol=1e-4)
    return spec, other, widened


def by_torch_pruning(setup: Setup, how: Pruning, seed_net: Any, target: float) -> dict[str, Any]:
    """The slowest network within the target, by bisection of the pruning ratio."""
    low, high, tried = (0.0, 1.0), (HIGHEST, 0.1), list[dict[str, Any]]()  # (ratio, share)
    best: dict[str, Any] | None = None
    for number in range(TRIES):
        ratio = (low[0] + high[0]) / 2
        if number < 2:  # shares fall nearly in a line, but come in leaps of eight channels
            ratio = low[0] + (high[0] - low[0]) * (low[1] - AIM * target) / (low[1] - high[1])
        spec, net, widened = as_spec(setup, pruned(setup, how, ratio, seed_net))
        (share,) = setup.shares([spec])
        tried.append({"ratio": ratio, "share": share})
        print(f"  {how.name}: ratio {ratio:.3f} measures {share:.3f} of the seed", flush=True)
        if share <= target and (best is None or share > best["share"]):
            best = {"spec": spec, "net": net, "widened": widened, "ratio": ratio, "share": share}
        if LOW * target <= share <= target:
            break
        low, high = ((ratio, share), high) if share > target else (low, (ratio, share))
    if best is None:
        raise SystemExit(f"no ratio up to {HIGHEST} is within the target")
    return {**best, "tried": tried}


def by_importance(setup: Setup, seed_net: Any, target: float) -> dict[str, Any]:
    """The widths that `bneck search` takes from the same seed network at the same share."""
    reference, wrapper = setup.reference, setup.experiment.wrapper
    path = table_path(reference, setup.on, wrapper=wrapper)
    fill_table(reference, path, plan=seed_plan(reference, wrapper), threads=setup.on.threads)
    begun = time.perf_counter()
    importance = setup.experiment.data.importance(seed_net, setup.training, Silent())
    table, ledger = read_table(path, wrapper), setup.out / "ledger.jsonl"
    run: Any = SimpleNamespace(
        ledger=Ledger(ledger), wrapper=wrapper, progress=Silent(),
        settings=SimpleNamespace(deployment=setup.on),
    )  # fmt: skip
    latencies = Latencies(run, reference, table)
    limit_ms = target * latencies.verified_ms(reference)

    def proposal(aim_ms: float) -> NetSpec:
        allocator = Allocator(setup.seed, importance.groups, table)
        return allocator.at(max(aim_ms, allocator.fastest_ms())).spec

    (spec,) = by_clocks(latencies, limit_ms, {"found": proposal})
    seconds = time.perf_counter() - begun
    net = setup.experiment.shrink(seed_net, spec, Importance(importance.groups, importance.images))
    (share,) = setup.shares([spec])
    return {"spec": spec, "net": net, "share": share, "seconds": seconds}


def network(setup: Setup, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Make a network, train and score it, and keep what came out; from its file if it is there."""
    file = setup.out / f"{name.replace(',', '').replace(' ', '-')}.json"
    if file.is_file():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    start = time.perf_counter()
    made = make()
    made.setdefault("seconds", time.perf_counter() - start)
    net, spec = made.pop("net"), rename(made["spec"], name)
    before = setup.score(net)
    setup.experiment.fit(net, setup.training, heldout=False)
    found = {
        **made,
        "name": name,
        "spec": to_text(spec),
        "before": before,
        "score": setup.score(net),
    }
    save_weights(net.state_dict(), file.with_suffix(".safetensors"))
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(
        f"{name}: {made['share']:.3f} of the latency, {before:.1%}, trained {found['score']:.1%}",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--from", dest="start", required=True)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--target", default="50%", help="a share of the seed's latency")
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    setup, target = begun(args), target_ms(args.target, 1.0)
    seed_net: Any = setup.experiment.load(setup.seed, args.out / "seed.safetensors")
    seed_score = setup.score(seed_net)
    print(f"seed: {seed_score:.1%}", flush=True)
    results = [network(setup, "importance per ms", lambda: by_importance(setup, seed_net, target))]
    add_gradients(setup, seed_net, 0)
    for how in PRUNINGS:
        results.append(
            network(setup, how.name, lambda how=how: by_torch_pruning(setup, how, seed_net, target))  # type: ignore[misc]
        )
    shares = setup.shares([from_text(one["spec"]) for one in results])
    print(f"{'network':32} share   before  trained  made in s")
    for one, share in zip(results, shares, strict=True):
        one["raced"] = share
        print(
            f"{one['name']:32} {share:.3f}  {one['before']:6.1%}   {one['score']:6.1%}  {one['seconds']:6.0f}"
        )
    record = {
        "seed": args.seed,
        "target": args.target,
        "seed_score": seed_score,
        "networks": results,
    }
    (args.out / "results.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
