"""How a classifier is trained: recipes by name, each a function with its evidence in its docstring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bneck.data.vary import Augment
from bneck.training.settings import Settings

PAPER_BATCH, PAPER_LR = 4096, 0.1


def paper(*, images: int, epochs: float | None = None, seed: int = 0) -> Settings:
    """Section 6.1.1 for a data set of ImageNet's size.

    RMSProp with momentum 0.9 and decay 0.9, rate 0.1 for a batch of 4096 and linear in it, x 0.99
    every 3 epochs behind 5 epochs of warm-up, L2 1e-5 on full convolutions only (as the released code
    has it; --set decayed=all says otherwise), dropout 0.2 and batch norm's decay 0.99 (both in the
    spec), weight average 0.9999, Inception preprocessing: crops of 5 to 100 % of the image, aspects of
    3/4 to 4/3, flips, brightness and saturation in an order drawn for each image, and 87.5 % of the
    image to evaluate. Label smoothing of 0.1 is the released code's. The batch is 256, the number of
    epochs (600) is not the paper's, which names none.
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
        augment=Augment(area=(0.05, 1.0), distort="fast"),
        seed=seed,
    )


def imagenet(*, images: int, epochs: float | None = None, seed: int = 0) -> Settings:
    """A quarter of the paper's time on a data set of ImageNet's size: SGD and a cosine.

    The published recipe of github.com/d-li14/mobilenetv3.pytorch, whose weights reach 74.3 % (V3-Large,
    paper: 75.2) and 67.2 % (V3-Small, paper: 67.4) in 150 epochs: momentum 0.9, rate 0.4 for a batch of
    1024 behind 5 epochs of warm-up, L2 4e-5 on all convolutions but not on batch norm and biases,
    label smoothing 0.1, crops of 8 to 100 %, no colours, no average. Linear in the batch, which is
    256 here. We have no ImageNet: these are their figures, not ours.
    """
    batch = min(256, max(4, images // 10))
    epochs = 150.0 if epochs is None else epochs
    return Settings(
        epochs=epochs,
        batch=batch,
        lr=0.4 * batch / 1024,
        schedule="cosine",
        warmup=min(5.0, epochs / 10),
        weight_decay=4e-5,
        decayed="convolutions",
        smoothing=0.1,
        average=0.0,
        sgd_momentum=0.9,
        augment=Augment(area=(0.08, 1.0)),
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
    """From weights that were trained on something else: the rows before the pool at a tenth of the rate.

    `small_data` in fewer epochs. What stands after the pool has most to learn, the rows most to lose;
    docs/lab-log.md has what other rates reach on two data sets.
    """
    epochs = 5.0 if epochs is None else epochs
    scratch = small_data(images=images, epochs=epochs, seed=seed)
    return replace(
        scratch,
        backbone_rate=0.1,
        warmup=min(0.5, epochs / 4),
        bn_momentum=0.05,
        augment=Augment(area=(0.35, 1.0)),
    )


RECIPES: dict[str, Callable[..., Settings]] = {
    "small-data": small_data,
    "paper": paper,
    "imagenet": imagenet,
    "finetune": finetune,
}
