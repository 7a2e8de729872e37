"""A Bayesian linear model of accuracy on tokens, fitted in moments, with draws from its posterior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from bneck.nas.features import Array, Features, Indices

Predict = Callable[[Indices], Array]

NOISES = (0.03, 0.1, 0.3)  # variance of the noise, as a fraction of the values' variance
# Prior variance of pairs and of products of sizes; sizes have 1. Which suits is fitted.
PAIRS = ((0.01, 0.0), (0.01, 0.1), (0.1, 0.1), (0.03, 0.3))


@dataclass(frozen=True, slots=True)
class Model:
    """A linear model fitted to values: all that is needed to draw weights from its posterior."""

    features: Features
    design: Array
    column_scale: Array
    targets: Array
    mean: float
    spread: float
    noise: Array
    factor: tuple[Array, bool]

    def draw(self, rng: np.random.Generator | None, boldness: float = 1.0) -> Predict:
        """A predictor with weights drawn from the posterior (Matheron's rule); None: with their mean.

        `boldness` multiplies the posterior's spread.
        """
        prior, noise = np.zeros(self.design.shape[1]), np.zeros(len(self.targets))
        if rng is not None:
            prior = rng.standard_normal(len(prior))
            noise = np.sqrt(self.noise) * rng.standard_normal(len(noise))
        mean = self.design.T @ cho_solve(self.factor, self.targets, check_finite=False)
        missed = cho_solve(self.factor, self.design @ prior + noise, check_finite=False)
        weights = mean + boldness * (prior - self.design.T @ missed)
        options, pairs, form = self.features.tables(weights * self.column_scale)
        with_form = bool(form.any())

        def predict(tokens: Indices) -> Array:
            on, pairs_on = self.features.columns(tokens)
            value = options[on].sum(1) + pairs[pairs_on].sum(1)
            if with_form:
                sizes = self.features.sizes_of(tokens)
                value += ((sizes @ form) * sizes).sum(1)
            return np.asarray(self.mean + self.spread * value)

        return predict


def fit(
    features: Features, tokens: Indices, values: Array, *, noises: Sequence[float] = NOISES,
    pair_scales: Sequence[tuple[float, float]] = PAIRS, doubts: Array | None = None,
) -> Model:  # fmt: skip
    """The model with that noise and that weight of pairs which make the values most likely.

    Args:
        features: of the space.
        tokens: one row per network.
        values: one number per network; at least two networks.
        noises: variances of the noise to try, as fractions of the values' variance.
        pair_scales: prior variances of pairs and of products of sizes to try.
        doubts: by what the noise of each value is multiplied; None takes 1.
    """
    mean, spread = float(values.mean()), float(values.std()) or 1.0
    targets = (values - mean) / spread
    single, pair = features.matrix(tokens)
    product = features.products(tokens)
    doubt = np.ones(len(targets)) if doubts is None else doubts
    covers = single @ single.T, pair @ pair.T, product @ product.T
    level = 1.0 / max(1e-9, float(np.diag(covers[0]).mean() - covers[0].mean()))

    def weighed() -> Iterator[tuple[float, tuple[float, float, float], Array, tuple[Array, bool]]]:
        for of_pairs, of_products in pair_scales:
            scales = level, level * of_pairs, level**2 * of_products
            prior = sum(scale * cover for scale, cover in zip(scales, covers, strict=True))
            for noise in noises:
                factor = cho_factor(prior + np.diag(noise * doubt), lower=True, check_finite=False)
                misfit = float(targets @ cho_solve(factor, targets, check_finite=False))
                likely = -0.5 * misfit - float(np.log(np.diag(factor[0])).sum())
                yield likely, scales, noise * doubt, factor

    _, scales, noises_fitted, factor = max(weighed(), key=lambda found: found[0])
    columns = [single, pair, product]
    column_scale = np.sqrt(np.repeat(scales, [c.shape[1] for c in columns]))
    design = np.concatenate(columns, 1) * column_scale
    return Model(features, design, column_scale, targets, mean, spread, noises_fitted, factor)
