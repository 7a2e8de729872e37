"""Quantisation-aware fine-tuning (QAT): the same weights trained on while they are rounded to int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.nets.quantize import Quantized, emulation
from bneck.tasks.contract import Data
from bneck.training.loop import OnStep, fit
from bneck.training.processes import ALONE, ProcessGroup
from bneck.training.settings import Settings


def fine_tune(
    net: Any,
    quantized: Quantized,
    data: Data,
    settings: Settings,
    *,
    group: ProcessGroup = ALONE,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> Quantized:
    """Quantisation-aware fine-tuning of a calibrated network of any task; its ranges stay.

    Raises:
        TrainingError: see `training.loop.fit`.
    """
    simulated = emulation(net, quantized)
    problem = data.problem(simulated, settings, group=group)
    fit(simulated, problem, settings, group=group, checkpoint=checkpoint, on_step=on_step)
    return Quantized(
        weights=simulated.cpu().weights(), ranges=quantized.ranges, hswish=quantized.hswish
    )
