"""How a classifier is trained: recipes by name, each a function with its evidence in its docstring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bneck.data.batches import Augment
from bneck.train.loop import Settings

PAPER_BATCH, PAPER_LR = 4096, 0.1


def paper(*, images: int, epochs: float | None = None, seed: int = 0) -> Settings:
    """Section 6.1.1 for a data set of ImageNet's size.

    RMSProp with momentum 0.9 and decay 0.9, rate 0.1 for a batch of 4096 and linear in it, x 0.99
    every 3 epochs behind 5 epochs of warm-up, L2 1e-5 on full convolutions only (as the released code
    has it), dropout 0.2 and batch norm's decay 0.99 (both in the spec), weight average 0.9999,
    crops of 5 to 100 % of the image. The batch is 256, the number of epochs (600) is not the paper's,
    which names none.
    """
    batch = min(256, max(4, images // 10))
    return Settings(
        epochs=600.0 if epochs is None else epochs,
        batch=batch,
        lr=PAPER_LR * batch / PAPER_BATCH,
        schedule="exponential",
        warmup=5.0,
        smoothing=0.1,
        average=0.9999,
        augment=Augment(area=(0.05, 1.0), colour=0.125),
        seed=seed,
    )


def small_data(*, images: int, epochs: float | None = None, seed: int = 0) -> Settings:
    """The paper's RMSProp recipe (6.1.1) scaled to some thousand images.

    Kept: RMSProp with momentum 0.9 and decay 0.9, L2 1e-5, dropout 0.2, weight average with a
    warm-up. Changed, with the figures in docs/lab-log.md: batches of 64 at a peak rate of 0.002, one
    epoch of warm-up and a cosine instead of steps of 0.99, batch norm's momentum 0.1, an average
    over some 100 steps instead of 10,000. Batches get smaller, and the rate with them, where an epoch
    would have fewer than ten.
    """
    epochs = 30.0 if epochs is None else epochs
    batch = min(64, max(4, images // 10))
    return Settings(
        epochs=epochs,
        batch=batch,
        lr=0.002 * batch / 64,
        schedule="cosine",
        warmup=min(1.0, epochs / 4),
        smoothing=0.1,
        average=0.99,
        bn_momentum=0.1,
        augment=Augment(area=(0.6, 1.0)),
        seed=seed,
    )


def finetune(*, images: int, epochs: float | None = None, seed: int = 0) -> Settings:
    """From weights that were trained on something else: a quarter of `small_data`'s rate, fewer epochs.

    docs/results.md has what it reaches on ten classes of ImageNet from V3-Small's published weights.
    """
    epochs = 5.0 if epochs is None else epochs
    scratch = small_data(images=images, epochs=epochs, seed=seed)
    return replace(
        scratch,
        lr=scratch.lr / 4,
        warmup=min(0.5, epochs / 4),
        bn_momentum=0.05,
        augment=Augment(area=(0.35, 1.0)),
    )


def stored_settings(stored: dict[str, Any]) -> Settings:
    """Settings as a run's record holds them."""
    augment: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored["augment"].items()
    }
    return Settings(**{**stored, "augment": Augment(**augment)})


RECIPES: dict[str, Callable[..., Settings]] = {
    "small-data": small_data,
    "paper": paper,
    "finetune": finetune,
}
