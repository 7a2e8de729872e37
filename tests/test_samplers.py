"""The searchers by themselves: the paper's controller, evolution, the predictor and what it knows."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bneck.costs.count import count
from bneck.nas.controller import PAPER, TUNED, Controller
from bneck.nas.features import Features
from bneck.nas.latency import Latencies
from bneck.nas.model import fit
from bneck.nas.predictor import Predictor
from bneck.nas.reward import Reward
from bneck.nas.samplers import Evolution, RandomTokens, TokenSampler
from bneck.nas.space import Choice, Tokens
from bneck.nas.spaces import mnasnet, v3
from bneck.nas.trials import Judged
from bneck.nas.widths import WidthSpace
from bneck.specs.zoo import V3_SMALL

CHOICES = [
    Choice(f"block{i}.{name}", options)
    for i in range(4)
    for name, options in (
        ("op", ("dconv", "mbconv3", "mbconv6")), ("kernel", (3, 5)), ("out", (8, 16, 24)),
    )
]  # fmt: skip
REWARD = Reward(kind="paper", target_ms=10.0)
GOLDEN = Path(__file__).parent / "golden" / "searchers.json"


def accuracy(tokens: Sequence[int]) -> float:
    """Rises with every token at a falling rate; the first counts most."""
    return 0.5 + 0.3 * (1 - np.exp(-sum(t / (1 + i / 4) for i, t in enumerate(tokens)) / 4))


def latency(tokens: Sequence[int]) -> float:
    """A sum over blocks of what the entering width and the block's tokens cost."""
    total, entering = 1.0, 1
    for block in range(4):
        op, kernel, out = tokens[3 * block : 3 * block + 3]
        total += (1 + op) * (1 + kernel / 2) * entering + (1 + op) * (1 + out)
        entering = 1 + out
    return total / 10


def judge(number: int, tokens: Tokens) -> Judged:
    value = REWARD(accuracy(tokens), latency(tokens))
    return Judged(number, tokens, value, accuracy(tokens), latency(tokens), rejected=False)


def drive(sampler: TokenSampler, trials: int) -> list[Judged]:
    history: list[Judged] = []
    for number in range(trials):
        history.append(judge(number, sampler.propose(history, set(), number)))
    return history


def test_seeded_searchers_propose_the_same_as_ever() -> None:
    """A stored run; BNECK_OVERWRITE_GOLDEN=1 stores a new one, for a change that is meant to change it.

    The predictor and Optuna's searchers choose by sums whose last digits differ between processors.
    """
    searchers = {
        "random": (RandomTokens(CHOICES, seed=1), 20),
        "evolution": (Evolution(CHOICES, seed=1, population=10, sample=4), 60),
        "controller": (Controller(CHOICES, seed=1), 60),  # two batches of 20 are learnt from
    }
    found = {
        name: ["".join(map(str, one.tokens)) for one in drive(sampler, trials)]
        for name, (sampler, trials) in searchers.items()
    }
    if os.environ.get("BNECK_OVERWRITE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


class TestController:
    def test_defaults_are_what_the_papers_publish(self) -> None:
        published = (PAPER.hidden, PAPER.lr, PAPER.entropy, PAPER.baseline, PAPER.batch, PAPER.init)
        assert published == (100, 3.5e-4, 1e-5, 0.95, 20, 0.1)
        policy = Controller(CHOICES).policy
        assert (policy.lstm.num_layers, policy.lstm.hidden_size) == (1, 100)
        for parameter in policy.parameters():
            assert float(parameter.detach().abs().max()) <= 0.1
            assert float(parameter.detach().abs().max()) > 0.08

    def test_it_samples_from_the_softmax_it_computes(self) -> None:
        controller = Controller(CHOICES[:2], replace(PAPER, init=2.0, hidden=8))
        with torch.no_grad():
            first = controller.policy(torch.tensor([[0, 0]]))[0, 0].exp().numpy()
        drawn = [controller.propose([], set(), n)[0] for n in range(1500)]
        shares = np.bincount(drawn, minlength=3) / len(drawn)
        assert shares == pytest.approx(first, abs=0.05)  # four standard deviations of 0.013

    def test_walking_token_by_token_is_the_teacher_forced_pass(self) -> None:
        controller = Controller(CHOICES, replace(PAPER, init=0.5))
        tokens = controller.propose([], set(), 5)
        again = Controller(CHOICES, replace(PAPER, init=0.5))
        with torch.no_grad():
            probabilities = again.policy(torch.tensor([tokens]))[0].exp()
        draws = again.rng(5).random(len(CHOICES))
        for token, size, row, draw in zip(tokens, again.sizes, probabilities, draws, strict=True):
            reached = row[:size].cumsum(0)
            assert (0 if token == 0 else float(reached[token - 1])) <= draw + 1e-5
            assert draw <= float(reached[token]) + 1e-5

    def test_an_update_raises_what_was_rewarded(self) -> None:
        controller = Controller(CHOICES, TUNED, seed=3)
        rng = random.Random(0)
        batch = []
        for number in range(20):
            tokens = tuple(rng.randrange(size) for size in controller.sizes)
            batch.append(Judged(number, tokens, float(tokens[0] == 2), 0.5, 1.0, rejected=False))
        with torch.no_grad():
            before = controller.policy(torch.zeros(1, 12, dtype=torch.long))[0, 0].exp()
        controller.propose(batch, set(), 20)
        with torch.no_grad():
            after = controller.policy(torch.zeros(1, 12, dtype=torch.long))[0, 0].exp()
        assert controller.updates == 1
        assert float(after[2]) > float(before[2]) + 0.02

    def test_the_baseline_is_the_average_of_the_rewards_before(self) -> None:
        controller = Controller(CHOICES)
        assert controller._advantages([1.0, 3.0]) == [-1.0, 1.0]  # the first batch's own mean, 2
        # 2 -> 1.95 with the reward of 1 (a 20th of the difference), -> 2.0025 with 3.
        assert controller.baseline == pytest.approx(2.0025)
        assert controller._advantages([2.0025]) == pytest.approx([0.0])

    def test_replaying_a_history_ends_in_the_same_state(self) -> None:
        controller = Controller(CHOICES, TUNED, seed=7)
        history = drive(controller, 67)
        replayed = Controller(CHOICES, TUNED, seed=7)
        assert replayed.propose(history, set(), 67) == controller.propose(history, set(), 67)
        for one, other in zip(
            controller.policy.parameters(), replayed.policy.parameters(), strict=True
        ):
            assert torch.equal(one, other)

    def test_only_a_replay_is_told_of(self) -> None:
        told: list[tuple[int, int]] = []
        controller = Controller(CHOICES, seed=7, on_replay=lambda *at: told.append(at))
        history = drive(controller, 61)
        assert told == []
        resumed = Controller(CHOICES, seed=7, on_replay=lambda *at: told.append(at))
        resumed.propose(history, set(), 61)
        assert told == [(1, 3), (2, 3), (3, 3)]

    def test_it_learns(self) -> None:
        history = drive(Controller(CHOICES, TUNED, seed=1), 300)
        early, late = (np.mean([j.value for j in part]) for part in (history[:40], history[-40:]))
        assert late > early + 0.01


class TestEvolution:
    def test_children_differ_from_a_living_parent_in_few_tokens(self) -> None:
        sampler = Evolution(CHOICES, population=10, sample=10)
        history = drive(sampler, 40)
        for at in range(10, 40):
            alive = history[at - 10 : at]
            parent = max(alive, key=lambda j: j.value).tokens  # all ten compete
            differ = sum(a != b for a, b in zip(parent, history[at].tokens, strict=True))
            assert 1 <= differ <= 3

    def test_the_old_die_however_good_they_are(self) -> None:
        sampler = Evolution(CHOICES, population=10, sample=10)
        best = (2, 1, 2) * 4
        history = [Judged(0, best, 9.9, 0.9, 1.0, rejected=False)]
        history += [judge(n, RandomTokens(CHOICES).propose([], set(), n)) for n in range(1, 21)]
        child = sampler.propose(history, set(), 21)
        parent = max(history[-10:], key=lambda j: j.value).tokens
        assert sum(a != b for a, b in zip(parent, child, strict=True)) <= 2

    def test_rejected_networks_have_no_children(self) -> None:
        sampler = Evolution(CHOICES, population=5, sample=5)
        rejected = Judged(0, (0,) * 12, 0.0, np.nan, 99.0, rejected=True)
        sampler.propose([rejected] * 10, set(), 10)
        assert sampler._alive == []


class TestModel:
    def test_the_posterior_mean_is_ridge_regression(self) -> None:
        rng = np.random.default_rng(0)
        features = Features(CHOICES)
        tokens = np.array([RandomTokens(CHOICES).draw(rng) for _ in range(60)])
        values = np.array([accuracy(t) for t in tokens]) + 0.01 * rng.standard_normal(60)
        model = fit(features, tokens, values, noises=(0.1,), pair_scales=((0.01, 0.1),))
        # The same from the normal equations, with the model's own columns.
        design, y = model.design, (values - values.mean()) / values.std()
        weights = np.linalg.solve(design.T @ design + 0.1 * np.eye(design.shape[1]), design.T @ y)
        mean = values.mean() + values.std() * (design @ weights)
        assert model.draw(None)(tokens) == pytest.approx(mean)

    def test_draws_scatter_about_the_mean_and_less_where_much_is_known(self) -> None:
        rng = np.random.default_rng(1)
        many = np.array([RandomTokens(CHOICES).draw(rng) for _ in range(150)])
        values = np.array([accuracy(t) for t in many]) + 0.005 * rng.standard_normal(150)
        spreads = []
        for known in (15, 150):
            model = fit(
                Features(CHOICES),
                many[:known],
                values[:known],
                noises=(0.1,),
                pair_scales=((0.01, 0.1),),
            )
            drawn = np.array([model.draw(rng)(many[130:]) for _ in range(60)])
            spreads.append(drawn.std(0).mean())
            assert drawn.mean(0) == pytest.approx(model.draw(None)(many[130:]), abs=0.06)
        assert spreads[1] < 0.7 * spreads[0]

    def test_it_predicts_networks_it_never_saw(self) -> None:
        rng = np.random.default_rng(2)
        tokens = np.array([RandomTokens(CHOICES).draw(rng) for _ in range(260)])
        values = np.array([accuracy(t) for t in tokens])
        predicted = fit(Features(CHOICES), tokens[:60], values[:60]).draw(None)(tokens[60:])
        assert np.corrcoef(predicted, values[60:])[0, 1] > 0.95

    def test_an_operators_size_is_its_expansion(self) -> None:
        features = Features([Choice("block0.op", ("conv", "dconv", "mbconv6"))])
        first, _ = features.numbers[0]
        assert first[0] == 0  # a full convolution has none
        assert first[1] < first[2]


class TestLatencies:
    def test_sums_over_blocks_are_exact(self) -> None:
        latencies = Latencies(CHOICES, latency)
        assert latencies.exact
        rng = np.random.default_rng(0)
        tokens = np.array([RandomTokens(CHOICES).draw(rng) for _ in range(200)])
        assert latencies.quick(tokens) == pytest.approx([latency(t) for t in tokens.tolist()])

    @pytest.mark.parametrize("space", [v3("v3-small", resolution=64), mnasnet()])
    def test_multiply_adds_of_a_space_of_blocks_are_such_sums(self, space: Any) -> None:
        def madds(tokens: Tokens) -> float:
            return count(space.decode(tokens)).madds / 1e6

        latencies = Latencies(space.choices, madds)
        assert latencies.exact
        rng = random.Random(1)
        drawn = [space.sample(rng) for _ in range(10)]
        assert latencies.quick(np.array(drawn)) == pytest.approx([madds(t) for t in drawn])

    def test_what_is_no_such_sum_is_predicted(self) -> None:
        space = WidthSpace(V3_SMALL)

        def madds(tokens: Tokens) -> float:
            return count(space.decode(tokens)).madds / 1e6

        latencies = Latencies(space.choices, madds)
        assert not latencies.exact
        rng = random.Random(1)
        drawn = [space.sample(rng) for _ in range(60)]
        exact = np.array([madds(t) for t in drawn])
        errors = np.abs(latencies.quick(np.array(drawn)) / exact - 1)
        assert np.median(errors) < 0.03


class TestPredictor:
    def best(self, make: Callable[[int], TokenSampler], trials: int) -> float:
        runs = [drive(make(seed), trials) for seed in range(4)]
        return float(np.mean([max(j.value for j in run) for run in runs]))

    def test_it_needs_fewer_trials_than_random_and_evolution(self) -> None:
        ours = self.best(lambda s: Predictor(CHOICES, reward=REWARD, estimate=latency, seed=s), 60)
        assert ours > self.best(lambda s: RandomTokens(CHOICES, seed=s), 60)
        assert ours > self.best(lambda s: Evolution(CHOICES, seed=s), 60)

    def test_without_latencies_it_predicts_rewards(self) -> None:
        ours = self.best(lambda s: Predictor(CHOICES, seed=s), 60)
        assert ours > self.best(lambda s: RandomTokens(CHOICES, seed=s), 60)

    def test_it_asks_for_nothing_twice(self) -> None:
        history = drive(Predictor(CHOICES, reward=REWARD, estimate=latency), 80)
        assert len({j.tokens for j in history[20:]}) == 60

    def test_a_limit_is_kept_from_the_first_trial_on(self) -> None:
        reward = Reward(kind="hard", target_ms=3.0, limit_ms=3.0)
        history = drive(Predictor(CHOICES, reward=reward, estimate=latency), 60)
        assert all(j.latency_ms <= 3.0 for j in history)

    def test_old_trials_stay_out_of_its_memory(self) -> None:
        sampler = Predictor(CHOICES, reward=REWARD, estimate=latency)
        history = [judge(n, RandomTokens(CHOICES).propose([], set(), n)) for n in range(2_000)]
        sampler.propose(history, set(), 2_000)
        assert sampler._model is not None
        assert len(sampler._model.targets) == 800
