"""Whether a training still learns: a loss that is no number, or that has run away, ends it."""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST_STEPS = 5  # whose mean loss is what a run began with
FOLLOW = 0.9  # decay of the running loss
FACTOR = 10.0  # above the first loss, and above 1: so far no recovery has been seen


@dataclass(slots=True)
class Health:
    """Follows the loss. `first` is the mean of the first steps, `running` an average of the last."""

    steps: int = 0
    first: float = 0.0
    running: float = 0.0

    def look(self, loss: float) -> str | None:
        """Take in the loss of one more step; what is wrong with it, or None."""
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        self.steps += 1
        if self.steps > 1:  # a tuning may be over within the first steps
            self.running = FOLLOW * self.running + (1 - FOLLOW) * loss
            if self.running > FACTOR * max(self.first, 1.0):
                return f"the loss rose from {self.first:.3g} to {self.running:.3g}"
        if self.steps <= FIRST_STEPS:
            self.first += (loss - self.first) / self.steps
            self.running = self.first
        return None
