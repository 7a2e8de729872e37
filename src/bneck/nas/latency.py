"""Latencies of thousands of networks at once, from an estimate that takes one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from bneck.nas.features import Array, Features, Indices
from bneck.nas.model import fit
from bneck.nas.space import Choice, Space, Tokens
from bneck.specs.network import NetSpec

TokenEstimate: TypeAlias = Callable[[Tokens], float]

LARGEST = 200_000  # entries of one block's table
CHECKED, FITTED = 16, 600  # random networks
NEAR = 1e-6  # relative difference of what is the same


class Latencies:
    """Estimates in milliseconds, quick where the device's estimate is a sum over blocks.

    A latency table adds up rows, and a row's time depends on its block's choices and the width that
    enters the block. So the estimate is a sum of one term per block, which is asked for once. Where
    random networks show that it is not such a sum (a space of widths that several rows share), a linear
    model replaces it, and the networks that a search ends in need the exact estimate (`ms`).
    """

    def __init__(self, choices: Sequence[Choice], estimate: TokenEstimate) -> None:
        self.choices, self.estimate = tuple(choices), estimate
        self.sizes = np.array([len(choice.options) for choice in choices])
        self.rng = np.random.default_rng(0)
        self._blocks = list(self._places())
        self._tables = [np.full(int(np.prod(self.sizes[p])), np.nan) for p, _ in self._blocks]
        self._start = self.ms((0,) * len(self.sizes))
        self._model: Callable[[Indices], Array] | None = None
        self.exact = max(len(table) for table in self._tables) <= LARGEST and self._adds_up()
        if not self.exact:
            tokens, times = self._timed(FITTED)
            self._model = fit(Features(choices), tokens, times, noises=(1e-4,)).draw(None)

    def ms(self, tokens: Tokens) -> float:
        """Milliseconds of one network, as the estimate has it."""
        return float(self.estimate(tokens))

    def quick(self, tokens: Indices) -> Array:
        """Milliseconds of one network a row; approximate where `exact` is false."""
        return self._summed(tokens) if self._model is None else self._model(tokens)

    def _places(self) -> list[tuple[list[int], list[int]]]:
        """For every block its choices with the one that enters it, and the latter alone."""
        groups: dict[str, list[int]] = {}
        for i, choice in enumerate(self.choices):
            groups.setdefault(choice.group, []).append(i)
        places, entering = [], list[int]()
        for own in groups.values():
            places.append(([*entering, *own], entering))
            outs = [i for i in own if self.choices[i].name.endswith(".out")]
            entering = outs or (own if len(own) == 1 else [])
        return places

    def _summed(self, tokens: Indices) -> Array:
        total = np.full(len(tokens), self._start)
        for (places, entering), table in zip(self._blocks, self._tables, strict=True):
            codes = np.ravel_multi_index(tuple(tokens[:, places].T), tuple(self.sizes[places]))
            for row, code in zip(*np.unique(codes, return_index=True)[::-1], strict=True):
                if np.isnan(table[code]):
                    table[code] = self._term(tokens[row], places, entering)
            total += table[codes]
        return total

    def _term(self, tokens: Indices, places: list[int], entering: list[int]) -> float:
        """What a block adds to the first network, its entering width being the same in both."""
        with_it, without = (
            tuple(int(token) if i in kept else 0 for i, token in enumerate(tokens))
            for kept in (places, entering)
        )
        return self.ms(with_it) - self.ms(without)

    def _adds_up(self) -> bool:
        tokens, times = self._timed(CHECKED)
        return bool(np.allclose(self._summed(tokens), times, rtol=NEAR, atol=0))

    def _timed(self, count: int) -> tuple[Indices, Array]:
        """Random networks and their milliseconds."""
        tokens = self.rng.integers(0, self.sizes, (count, len(self.sizes)))
        return tokens, np.array([self.ms(tuple(row)) for row in tokens.tolist()])


def fastest(
    space: Space, estimate: Callable[[NetSpec], float], *, seed: int = 0
) -> tuple[Tokens, float]:
    """The fastest network of a space that descents from 20 random ones end in, and its milliseconds."""
    latencies = Latencies(space.choices, lambda tokens: estimate(space.decode(tokens)))
    rng, sizes = np.random.default_rng(seed), [len(choice.options) for choice in space.choices]
    ends = []
    for _ in range(20):
        tokens = [int(rng.integers(size)) for size in sizes]
        changed = True
        while changed:
            changed = False
            for i, size in enumerate(sizes):
                around = np.array([[*tokens[:i], n, *tokens[i + 1 :]] for n in range(size)])
                n = int(np.argmin(latencies.quick(around)))
                if latencies.quick(around)[n] < latencies.quick(np.array([tokens]))[0] - 1e-12:
                    tokens[i], changed = n, True
        ends.append((latencies.ms(tuple(tokens)), tuple(tokens)))
    ms, best = min(ends, key=lambda end: end[0])
    return best, ms
