"""The searcher for small budgets: an accuracy predictor, and latencies that are known beforehand.

Accuracy is a Bayesian linear model on the options, their sizes, pairs in a block, products of sizes.
For every trial weights are drawn from its posterior (Thompson sampling), and the network that is best
by them and by its latency is found by climbing from the best trials. A climb changes few choices:
where everything is far from what was judged, a linear model is wrong and hopeful. What the latency
table knows is not left to be found out by trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bneck.nas.features import Array, Features, Indices
from bneck.nas.latency import Latencies, TokenEstimate
from bneck.nas.model import Model, Predict, fit
from bneck.nas.reward import Reward
from bneck.nas.samplers import TokenSampler
from bneck.nas.space import Choice, Tokens
from bneck.nas.trials import Judged

WARMUP = 20  # trials drawn at random to begin with
BOLDNESS = 0.25  # 0 takes the predictor at its word, 1 draws from its whole uncertainty
MOST_TRIALS = 800  # that a model is fitted to: the best half and the last half
REFIT = 25  # a model is fitted again when it has a 25th more trials
DOUBT = 3.0  # how much less a trial counts one standard deviation below the best
PARENTS = 5  # the best trials, from which every climb starts
REACHES = (2, 4)  # choices that a climb changes at most, one of these a trial
EXACT = 16  # candidates whose latency is asked for exactly


class Predictor(TokenSampler):
    """Proposes what is best by an accuracy predictor and the known latencies.

    Args:
        choices: of the space.
        reward: turns accuracy and latency into a reward; needed with `estimate`.
        estimate: tokens -> latency in milliseconds, from a table. Without it the trials' values
            themselves are predicted.
        seed: of everything random.
        sweep: look for the whole front of accuracy and latency: every trial is for the most accurate
            network within a latency of its own, drawn between those of random networks.
    """

    def __init__(
        self, choices: Sequence[Choice], *, reward: Reward | None = None,
        estimate: TokenEstimate | None = None, seed: int = 0, sweep: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(choices, seed=seed)
        self.reward = reward if estimate else None
        self.sweep = sweep
        self.features = Features(choices)
        self._latency = Latencies(choices, estimate) if reward and estimate else None
        self._span: tuple[float, float] | None = None
        self._fitted = 0
        self._model: Model | None = None

    def propose(self, history: Sequence[Judged], pending: set[Tokens], number: int) -> Tokens:
        usable = [judged for judged in history if not judged.rejected]
        rng = self.rng(number)
        if len(usable) < WARMUP:
            return self._allowed_draw(rng)
        model = self._fit(usable)
        predict = model.draw(rng, BOLDNESS)
        seen = {judged.tokens for judged in history} | pending
        reach, within_ms = int(rng.choice(REACHES)), self._drawn_ms(rng)
        best = sorted(usable, key=lambda judged: -_merit(judged, within_ms))[:PARENTS]
        starts = np.array([judged.tokens for judged in best])
        found = self._climb(starts, lambda at: self._score(predict, at, within_ms), reach)
        fresh = [tokens for tokens in found if tokens not in seen]
        if not fresh:
            return self._allowed_draw(rng)
        if self._latency is None or self._latency.exact:
            return fresh[0]
        accuracy = predict(np.array(fresh[:EXACT]))
        latency = np.array([self._latency.ms(tokens) for tokens in fresh[:EXACT]])
        return fresh[int(np.argmax(self._rewards(accuracy, latency, within_ms)))]

    def _fit(self, usable: Sequence[Judged]) -> Model:
        """The model at the last of the points where one is fitted; these depend on counts alone."""
        point = self._fitted or WARMUP
        while (later := point + max(1, point // REFIT)) <= len(usable):
            point = later
        if self._model is None or point != self._fitted:
            known = list(usable[:point])
            if len(known) > MOST_TRIALS:
                half = MOST_TRIALS // 2
                known = sorted(known[:-half], key=lambda j: -j.value)[:half] + known[-half:]
            values = [j.accuracy for j in known] if self.reward else [j.value for j in known]
            rewards = np.array([j.value for j in known])
            behind = (rewards.max() - rewards) / (rewards.std() or 1.0)
            doubts = None if self.sweep else 1 + DOUBT * behind**2
            tokens = np.array([j.tokens for j in known])
            self._model = fit(self.features, tokens, np.array(values, dtype=float), doubts=doubts)
            self._fitted = point
        return self._model

    def _score(self, predict: Predict, tokens: Indices, within_ms: float | None) -> Array:
        if self._latency is None:
            return predict(tokens)
        return self._rewards(predict(tokens), self._latency.quick(tokens), within_ms)

    def _rewards(self, accuracy: Array, latency: Array, within_ms: float | None) -> Array:
        """What to climb: the reward, the accuracy in a sweep; outside the limit, towards it."""
        assert self.reward is not None
        limit = self.reward.limit_ms if within_ms is None else within_ms
        reward = accuracy
        if within_ms is None:
            reward = self.reward.of_many(np.maximum(accuracy, 1e-6), np.maximum(latency, 1e-9))
        return reward if limit is None else np.where(latency > limit, -latency / limit, reward)

    def _drawn_ms(self, rng: np.random.Generator) -> float | None:
        """In a sweep the latency that this trial's network must keep."""
        if not self.sweep or self._latency is None:
            return None
        if self._span is None:
            others = np.random.default_rng(self.seed)
            drawn = self._latency.quick(np.array([self.draw(others) for _ in range(200)]))
            self._span = (float(drawn.min()) * 0.8, float(drawn.max()))
        low, high = np.log(self._span)
        most = self.reward.limit_ms if self.reward else None
        return min(float(np.exp(rng.uniform(low, high))), np.inf if most is None else most)

    def _allowed_draw(self, rng: np.random.Generator) -> Tokens:
        """A random network, within the limit if one of a hundred is; else the fastest of them."""
        limit = self.reward.limit_ms if self.reward else None
        if limit is None or self._latency is None:
            return self.draw(rng)
        drawn = [self.draw(rng) for _ in range(100)]
        latency = self._latency.quick(np.array(drawn))
        within = np.flatnonzero(latency <= limit)
        return drawn[int(within[0] if len(within) else np.argmin(latency))]

    def _climb(self, starts: Indices, score: Predict, steps: int) -> list[Tokens]:
        """All networks met on the way up from `starts`, one token per step, the best first."""
        at, values = starts, score(starts)
        met = {tuple(map(int, row)): float(v) for row, v in zip(at, values, strict=True)}
        for _ in range(steps):
            around = [self._neighbours(row) for row in at]
            flat = np.concatenate(around)
            scores = score(flat)
            met |= {tuple(row): v for row, v in zip(flat.tolist(), scores.tolist(), strict=True)}
            ends = np.cumsum([0, *(len(n) for n in around)])
            tops = [int(lo + np.argmax(scores[lo:hi])) for lo, hi in pairwise(ends)]
            better = scores[tops] > values
            if not better.any():
                break
            at = np.where(better[:, None], flat[tops], at)
            values = np.where(better, scores[tops], values)
            at, keep = np.unique(at, axis=0, return_index=True)
            values = values[keep]
        return sorted(met, key=lambda tokens: -met[tokens])

    def _neighbours(self, tokens: Indices) -> Indices:
        """One token changed; in long choices to near ones only."""
        rows = []
        for i, size in enumerate(self.sizes):
            now = int(tokens[i])
            near = range(size) if size <= 8 else (now + d for d in (-8, -3, -1, 1, 3, 8))
            rows += [(i, new) for new in near if 0 <= new < size and new != now]
        around = np.repeat(tokens[None], len(rows), axis=0)
        around[np.arange(len(rows)), [i for i, _ in rows]] = [new for _, new in rows]
        return around


def _merit(judged: Judged, within_ms: float | None) -> float:
    """What makes a trial a start to climb from: its value; beyond a latency, how near it is."""
    if within_ms is None or judged.latency_ms <= within_ms:
        return judged.value
    return -judged.latency_ms / within_ms
