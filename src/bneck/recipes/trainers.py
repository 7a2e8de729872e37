"""The trainer of a run's task."""

from __future__ import annotations

from bneck.runs.search.run import Run
from bneck.recipes.trainer import Trainer


def open_trainer(run: Run) -> Trainer:
    """Prepare the run's images, or open what an earlier process prepared; the run's wrapper is set.

    Raises:
        InputError: no such data, or data that cannot be used.
    """
    trainer: Trainer
    match run.settings.task:
        case "detect":
            from bneck.recipes.detect_trainer import detect_trainer

            trainer = detect_trainer(run)
        case "segment":
            from bneck.recipes.segment_trainer import segment_trainer

            trainer = segment_trainer(run)
        case _:
            from bneck.recipes.classify_trainer import classify_trainer

            trainer = classify_trainer(run)
    run.wrapper = trainer.wrapper
    return trainer
