"""Tokens as numbers for a linear model: options, their sizes, pairs in a block, products of sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bneck.nas.space import Choice, Option

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST_OPTIONS = 8  # of a choice with more options only the size counts, and no pairs
OPTION, LONG = 0.2, 0.05  # prior variance of an option that has a size, and of one of many
SQUARE = 0.1  # prior variance of the squared size


class Features:
    """Columns of a linear model: `matrix` scales each by what it is expected to weigh."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.sizes = [len(choice.options) for choice in choices]
        self.numbers = [_standard(choice) for choice in choices]
        self.pairs = [
            (i, j)
            for i, j in combinations(range(len(choices)), 2)
            if max(self.sizes[i], self.sizes[j]) <= MOST_OPTIONS
            and choices[i].group == choices[j].group
        ]
        self.offsets = np.cumsum([0, *self.sizes])
        self.pair_offsets = np.cumsum([0, *(self.sizes[i] * self.sizes[j] for i, j in self.pairs)])
        self._left, self._right = np.array(self.pairs, dtype=np.int64).reshape(-1, 2).T
        self._widths = np.array(self.sizes, dtype=np.int64)[self._right]
        scale = [
            LONG if size > MOST_OPTIONS else OPTION if first.any() else 1.0
            for size, (first, _) in zip(self.sizes, self.numbers, strict=True)
        ]
        self._option_scale = np.sqrt(np.repeat(scale, self.sizes))
        self._upper = np.triu_indices(len(self.sizes))
        self._twice = np.where(self._upper[0] == self._upper[1], 1.0, np.sqrt(2.0))

    def columns(self, tokens: Indices) -> tuple[Indices, Indices]:
        """Which option and which pair columns are on, for every row of tokens."""
        pairs = tokens[:, self._left] * self._widths + tokens[:, self._right]
        return tokens + self.offsets[:-1], pairs + self.pair_offsets[:-1]

    def matrix(self, tokens: Indices) -> tuple[Array, Array]:
        """(options and sizes, pairs) as dense columns, for every row of tokens."""
        on, pairs_on = self.columns(tokens)
        options = np.zeros((len(tokens), int(self.offsets[-1])))
        pairs = np.zeros((len(tokens), int(self.pair_offsets[-1])))
        np.put_along_axis(options, on, 1.0, axis=1)
        np.put_along_axis(pairs, pairs_on, 1.0, axis=1)
        first, square = self.sizes_of(tokens), np.sqrt(SQUARE) * self.sizes_of(tokens, 1)
        return np.concatenate([self._option_scale * options, first, square], 1), pairs

    def sizes_of(self, tokens: Indices, which: int = 0) -> Array:
        """Size (or, 1, its square) of every choice's option, in units of their spread; 0 for what has none."""
        pairs = zip(self.numbers, tokens.T, strict=True)
        return np.stack([numbers[which][token] for numbers, token in pairs], 1)

    def products(self, tokens: Indices) -> Array:
        """Products of the sizes of any two choices, themselves included, for every row of tokens.

        Scaled so that scalar products of these columns are squares of those of the sizes.
        """
        sizes = self.sizes_of(tokens)
        return np.asarray(sizes[:, self._upper[0]] * sizes[:, self._upper[1]] * self._twice)

    def tables(self, weights: Array) -> tuple[Array, Array, Array]:
        """Weights of all columns folded into one per option, one per pair, and a matrix of sizes."""
        total, count = int(self.offsets[-1]), len(self.sizes)
        weights, products = np.split(weights, [len(weights) - len(self._twice)])
        square_form = np.zeros((count, count))
        square_form[self._upper] = products * self._twice
        options = self._option_scale * weights[:total]
        size, square = weights[total : total + count], weights[total + count : total + 2 * count]
        for i, (first, second) in enumerate(self.numbers):
            own = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
            options[own] += size[i] * first + np.sqrt(SQUARE) * square[i] * second
        return options, weights[total + 2 * count :], square_form


def _standard(choice: Choice) -> tuple[Array, Array]:
    """Size and squared size of every option, in units of their spread; zeros for what has no size."""
    sizes = [_size(option) for option in choice.options]
    sized = np.array([size is not None for size in sizes])
    first, square = np.zeros(len(sizes)), np.zeros(len(sizes))
    if sized.sum() > 1:
        numbers = np.array([size for size in sizes if size is not None])
        numbers = np.log(numbers) if numbers.min() > 0 else numbers
        first[sized] = (numbers - numbers.mean()) / numbers.std()
        square[sized] = first[sized] ** 2 - 1
    return first, square


def _size(option: Option) -> float | None:
    """What makes an option larger than another: the number itself, or an operator's expansion."""
    if not isinstance(option, str):
        return float(option)
    if option == "dconv":
        return 1.0
    digits = re.search(r"\d+(\.\d+)?$", option)
    return float(digits[0]) if digits else None
