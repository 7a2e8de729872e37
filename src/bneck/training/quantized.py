"""Quantisation-aware fine-tuning: the same weights trained on while they are rounded to 8 bits."""

from __future__ import annotations

from pathlib import Path

from bneck.nets.build import Net
from bneck.nets.quantize import Quantized, emulation
from bneck.training.loop import Data, OnStep, Settings, train


def fine_tune(
    net: Net,
    quantized: Quantized,
    data: Data,
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> Quantized:
    """Quantisation-aware fine-tuning of a calibrated network; its ranges stay.

    Raises:
        TrainingError: see `train.loop.train`.
    """
    emulated = emulation(net, quantized)
    train(emulated, data, settings, checkpoint=checkpoint, on_step=on_step)
    return Quantized(weights=emulated.weights(), ranges=quantized.ranges, hswish=quantized.hswish)
