"""Regret of the searchers on public benchmarks whose best network is known.

    python benchmarks/nas_regret.py DATA [--task anb|macro] [--searcher NAME ...] [--seeds 10]
        [--budget 1000] [--out FILE]
    python benchmarks/nas_regret.py DATA --limit 4.0 [--limit 5.0 ...] [--seeds 10] [--budget 300]

DATA holds accel_nasbench/ (5,138 networks of MnasNet's kind, trained on ImageNet; latencies on a ZCU102)
and nas_bench_macro/ (all 6,561 networks of a space, three trainings each on CIFAR-10).

anb: accuracy is a Gaussian process fitted to the benchmark's own train split (its error on the test split is
printed), one evaluation adds noise of 0.2 points; latency adds up blocks, fitted to all. The best
network is the best of 100 ascents (how many ended there is printed). macro: an evaluation is one of the
three trainings, multiply-adds stand for latency, the best is looked up.

Both with the paper's reward, w = -0.07. After 50, 100, 300 and 1000 evaluations the network of the highest
reward seen is taken, for every searcher alike; its regret is what its true reward lacks to the best.

With --limit the default searcher looks for the most accurate network of anb within so many milliseconds
(the hard reward with a limit); printed is how far below it the chosen network lies.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import create_trial

from bneck.nas.blocks import Block, BlockSpace
from bneck.nas.reward import LARGE, Reward
from bneck.nas.searchers import sampler
from bneck.nas.space import Choice, Space, Tokens
from bneck.nas.study import Study
from bneck.nas.trials import ACCURACY, LATENCY, distributions, tokens_of
from bneck.specs.network import NetSpec
from bneck.specs.rows import Conv, Pool

SEARCHERS = (
    "random", "controller", "controller-tuned", "evolution", "tpe", "nsga2", "predictor",
)  # fmt: skip
POINTS = (50, 100, 300, 1000)
NOISE = (
    0.002  # of one evaluation, as a share: NAS-Bench-Macro's trainings differ by 0.15 to 0.2 points
)
DECAY, PRIOR, GP_NOISE = 0.02, 30.0, 0.03  # of the process, chosen on the val split
ASCENTS = 100


class Anb:
    """Accel-NASBench as a space of ours, with an accuracy for every network of it."""

    def __init__(self, data: Path, *, best: bool = True) -> None:
        self.space = BlockSpace(
            name="anb",
            stem=(Conv(3, 32, "relu", 2),),
            blocks=tuple(
                Block(
                    stride=stride, op=("dconv", "mbconv4", "mbconv6"), kernel=(3, 5), se=(0, 0.25),
                    out=(out,), layers=(1, 2, 3, 4) if i == 5 else (1, 2, 3),
                )
                for i, (out, stride) in enumerate(
                    [(16, 1), (24, 2), (40, 2), (80, 2), (112, 1), (192, 2), (320, 1)]
                )
            ),
            tail=((Conv(1, 1280, "relu"),), (Pool(),)),
        )  # fmt: skip
        names, tokens, accuracy, latency, splits = self._read(data)
        self.reward = Reward(kind="paper", target_ms=5.72, exponent=LARGE)
        train, test = splits["train"], splits["test"]
        self.known = np.ascontiguousarray(tokens[train].astype(np.int8))
        self.mean, self.spread = accuracy[train].mean(), accuracy[train].std()
        cover = self._kernel(self.known) + GP_NOISE * np.eye(len(train))
        self.weights = np.linalg.solve(cover, (accuracy[train] - self.mean) / self.spread)
        error = self.accuracies(tokens[test]) - accuracy[test]
        print(
            f"anb: {len(names)} networks; accuracy on {len(test)} held-out networks: RMSE "
            f"{100 * np.sqrt(np.mean(error**2)):.2f} points, Kendall tau "
            f"{_tau(self.accuracies(tokens[test]), accuracy[test]):.3f}"
        )
        timed = ~np.isnan(latency)
        design = np.zeros((int(timed.sum()), 7 * 48))
        np.put_along_axis(design, self._blocks(tokens[timed]), 1.0, 1)
        ridge = design.T @ design + 1e-3 * np.eye(design.shape[1])
        self.block_ms = np.linalg.solve(ridge, design.T @ latency[timed])
        miss = np.abs(self.latencies(tokens[timed]) / latency[timed] - 1)
        print(f"anb: latency of blocks added up is off by {miss.mean():.1%} in the mean (fitted)")
        self.best = self._best() if best else np.nan

    def _read(self, data: Path) -> Any:
        folder = data / "accel_nasbench"
        with tarfile.open(folder / "anb_dataset_jsons.tar.gz") as tar:
            files = [m for m in tar.getmembers() if m.isfile()]
            found = {Path(m.name).name: json.load(tar.extractfile(m)) for m in files}  # type: ignore[arg-type]
        names = sorted(found)
        at = {name: i for i, name in enumerate(names)}
        splits = {
            split: [
                at[Path(p).name]
                for p in json.loads((folder / f"{split}_paths.json").read_text())
                if Path(p).name in at
            ]
            for split in ("train", "val", "test")
        }
        tokens = np.array([_anb_tokens(found[name]["architecture"]) for name in names])
        accuracy = np.array([found[name]["metrics"]["val_top1"] / 100 for name in names])
        times = [
            (found[n]["platform_perf"]["latency_zcu102"] or {}).get("latency_mean") for n in names
        ]
        latency = np.array([np.nan if t is None else t for t in times], dtype=float)
        return names, tokens, accuracy, latency, splits

    def _kernel(self, tokens: np.ndarray) -> np.ndarray:
        differ = np.zeros((len(tokens), len(self.known)), dtype=np.float32)
        for own, known in zip(tokens.T, self.known.T, strict=True):
            differ += own[:, None] != known[None]
        return PRIOR * np.exp(-DECAY * differ, dtype=np.float64)

    def accuracies(self, tokens: np.ndarray) -> np.ndarray:
        """True accuracies, as shares."""
        return self.mean + self.spread * (self._kernel(tokens.astype(np.int8)) @ self.weights)

    def _blocks(self, tokens: np.ndarray) -> np.ndarray:
        op, kernel, se, layers = (tokens[:, part::4] for part in range(4))
        return ((op * 2 + kernel) * 2 + se) * 4 + layers + 48 * np.arange(7)

    def latencies(self, tokens: np.ndarray) -> np.ndarray:
        """Milliseconds."""
        return self.block_ms[self._blocks(tokens)].sum(1)

    def observe(self, tokens: np.ndarray, rng: np.random.Generator) -> float:
        """One evaluation's accuracy."""
        return float(self.accuracies(tokens[None])[0] + NOISE * rng.standard_normal())

    def _best(self) -> float:
        sizes, ends = [len(c.options) for c in self.space.choices], []
        rng = np.random.default_rng(0)
        for _ in range(ASCENTS):
            at, value = np.array([rng.integers(n) for n in sizes]), -np.inf
            while True:
                around = _around(at, sizes)
                rewards = self.reward.of_many(self.accuracies(around), self.latencies(around))
                if rewards.max() <= value + 1e-12:
                    break
                at, value = around[rewards.argmax()], float(rewards.max())
            ends.append(value)
        best = max(ends)
        there = sum(end > best - 1e-9 for end in ends)
        print(f"anb: best reward {best:.5f}, found by {there} of {ASCENTS} ascents")
        return best


class Macro:
    """NAS-Bench-Macro: eight layers, each none, expansion 3 with kernel 3, or expansion 6 with kernel 5."""

    def __init__(self, data: Path) -> None:
        path = data / "nas_bench_macro" / "nas-bench-macro_cifar10.json"
        self.found = json.loads(path.read_text())
        self.space = _Layers()
        self.reward = Reward(kind="paper", target_ms=70.0, exponent=LARGE)  # millions of MAdds
        rewards = [self.reward(v["mean_acc"] / 100, v["flops"] / 1e6) for v in self.found.values()]
        self.best = max(rewards)
        print(
            f"macro: {len(rewards)} networks, best reward {self.best:.5f}, mean {np.mean(rewards):.5f}"
        )

    def accuracies(self, tokens: np.ndarray) -> np.ndarray:
        """Mean of three trainings, as shares."""
        return np.array([self.found["".join(map(str, t))]["mean_acc"] / 100 for t in tokens])

    def latencies(self, tokens: np.ndarray) -> np.ndarray:
        """Millions of multiply-adds."""
        return np.array([self.found["".join(map(str, t))]["flops"] / 1e6 for t in tokens])

    def observe(self, tokens: np.ndarray, rng: np.random.Generator) -> float:
        """One of the three trainings."""
        trainings = self.found["".join(map(str, tokens))]["test_acc"]
        return float(trainings[rng.integers(len(trainings))] / 100)


class _Layers(Space):
    name = "macro"
    choices = tuple(Choice(f"layer{i}", (0, 3, 6)) for i in range(8))

    def decode(self, tokens: Sequence[int]) -> NetSpec:
        raise NotImplementedError

    def encode(self, spec: NetSpec) -> Tokens:
        raise NotImplementedError


def search(task: Any, searcher: str, seed: int, budget: int) -> dict[str, Any]:
    """One search: regret at every point, and milliseconds of ask and tell a trial at its end."""

    def estimate(tokens: Tokens) -> float:
        return float(task.latencies(np.array([tokens]))[0])

    chosen = sampler(searcher, task.space, reward=task.reward, estimate=estimate, seed=seed)
    study = optuna.create_study(direction="maximize")
    wanted, rng = distributions(task.space.choices), np.random.default_rng([seed, 1])
    best: tuple[float, Tokens] | None = None
    regret, costs_ms = {}, []
    for number in range(1, budget + 1):
        start = time.perf_counter(), time.process_time()
        proposal = chosen.proposal(study.get_trials(deepcopy=False), number - 1)
        ask = time.process_time() - start[1]
        tokens = tokens_of(task.space.choices, proposal.params)
        accuracy, latency = task.observe(np.array(tokens), rng), estimate(tokens)
        value = task.reward(accuracy, latency)
        start = time.perf_counter(), time.process_time()
        study.add_trial(
            create_trial(
                params=proposal.params,
                distributions=wanted,
                value=value,
                user_attrs={ACCURACY: accuracy, LATENCY: latency},
                system_attrs=proposal.system_attrs,
            )
        )
        costs_ms.append(1e3 * (ask + time.process_time() - start[1]))
        if best is None or value > best[0]:
            best = (value, tokens)
        if number in POINTS:
            true = task.reward(float(task.accuracies(np.array([best[1]]))[0]), estimate(best[1]))
            regret[number] = task.best - true
    return {
        "searcher": searcher,
        "seed": seed,
        "regret": regret,
        "ms": float(np.mean(costs_ms[-100:])),
    }


def hit(task: Anb, limit_ms: float, seed: int, budget: int) -> tuple[float, float]:
    """(latency of the chosen network / limit, its true accuracy)."""
    reward = Reward(kind="hard", target_ms=limit_ms, limit_ms=limit_ms)

    def estimate(spec: NetSpec) -> float:
        return float(task.latencies(np.array([task.space.encode(spec)]))[0])

    study = Study(task.space, reward=reward, estimate=estimate, seed=seed)
    rng = np.random.default_rng([seed, 1])
    while len(study.trials) < budget and (asked := study.ask()):
        study.tell(asked, task.observe(np.array(asked.tokens), rng))
    best = study.best(1)[0]
    return best.latency_ms / limit_ms, float(task.accuracies(np.array([best.tokens]))[0])


def table(results: Sequence[dict[str, Any]]) -> str:
    """Mean and spread of the regrets, in hundredths of the reward's unit (points)."""
    lines = ["| searcher | " + " | ".join(f"{p}" for p in POINTS) + " | ms a trial | seeds |"]
    lines.append("|---|" + "--:|" * (len(POINTS) + 2))
    for searcher in dict.fromkeys(r["searcher"] for r in results):
        own = [r for r in results if r["searcher"] == searcher]
        cells = []
        for point in map(str, POINTS):
            values = [
                100 * {str(k): v for k, v in r["regret"].items()}.get(point, np.nan) for r in own
            ]
            cells.append(f"{np.mean(values):.2f} ± {np.std(values):.2f}")
        cells += [f"{np.mean([r['ms'] for r in own]):.1f}", str(len(own))]
        lines.append(f"| {searcher} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _around(tokens: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    rows = []
    for i, size in enumerate(sizes):
        for new in range(size):
            row = tokens.copy()
            row[i] = new
            rows.append(row)
    return np.array(rows)


def _anb_tokens(architecture: dict[str, Any]) -> list[int]:
    tokens = []
    for block in range(7):
        get: Callable[[str], Any] = lambda part, b=block: architecture[f"block{b}_{part}"]  # type: ignore[misc] # noqa: E731
        tokens += [(1, 4, 6).index(get("e")), (3, 5).index(get("k")), int(get("se")), get("l") - 1]
    return tokens


def _tau(left: np.ndarray, right: np.ndarray) -> float:
    pairs = np.triu_indices(len(left), 1)
    signs = np.sign(left[pairs[0]] - left[pairs[1]]) * np.sign(right[pairs[0]] - right[pairs[1]])
    return float(signs.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", choices=("anb", "macro"), default="anb")
    parser.add_argument("--searcher", action="append", choices=SEARCHERS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--budget", type=int, default=max(POINTS))
    parser.add_argument("--out", type=Path, help="json lines; what it holds is not run again")
    parser.add_argument("--limit", action="append", type=float, help="milliseconds, anb only")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lines = args.out.read_text().splitlines() if args.out and args.out.exists() else []
    results = [json.loads(line) for line in lines]
    done = {(r["searcher"], r["seed"]) for r in results}
    best = not args.limit  # the best reward is of no use to a limit
    task = Anb(args.data, best=best) if args.task == "anb" else Macro(args.data)
    for limit_ms in args.limit or ():
        assert isinstance(task, Anb)
        hits = [hit(task, limit_ms, seed, args.budget) for seed in range(args.seeds)]
        shares = ", ".join(f"{share:.3f}" for share, _ in hits)
        print(f"limit {limit_ms} ms, {args.budget} trials: chosen / limit {shares}")
        within = sum(0.98 <= share <= 1 for share, _ in hits)
        print(f"  within 2 % below and never above: {within} of {len(hits)}")
    if args.limit:
        return
    for searcher in args.searcher or SEARCHERS:
        for seed in range(args.first, args.first + args.seeds):
            if (searcher, seed) not in done:
                results.append(search(task, searcher, seed, args.budget))
                if args.out:
                    with args.out.open("a") as file:
                        file.write(json.dumps(results[-1]) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
