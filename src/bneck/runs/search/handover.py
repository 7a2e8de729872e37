"""What the block search (section 4.1) hands to NetAdapt (4.2): blocks, limit, pace and baseline."""

from __future__ import annotations

from dataclasses import dataclass

from bneck.runs.search.latency import Pace
from bneck.runs.search.run import Run
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, to_text

EVENT = "blocks found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """A finished block search.

    `spec` measures `measured_ms` and had `heldout_score` in its first full training, if it had to be
    compared with others; the target is `limit_ms`. All milliseconds of the run are at `pace`.
    `baseline` is the seed network at the uniform `width` that is compared with.
    """

    spec: NetSpec
    measured_ms: float
    heldout_score: float | None
    limit_ms: float
    pace: Pace
    baseline: NetSpec
    width: float

    def write(self, run: Run) -> None:
        """Enter it into the run's ledger."""
        run.ledger.append(
            {
                "event": EVENT,
                "spec": to_text(self.spec),
                "measured_ms": self.measured_ms,
                "heldout_score": self.heldout_score,
                "limit_ms": self.limit_ms,
                "reference": to_text(self.pace.network),
                "reference_ms": self.pace.nominal_ms,
                "baseline": to_text(self.baseline),
                "width": self.width,
            }
        )


def handed_over(run: Run) -> Handover | None:
    """What the run's block search found, or None."""
    entry = run.ledger.find(event=EVENT)
    if entry is None:
        return None
    return Handover(
        spec=from_text(entry["spec"]),
        measured_ms=entry["measured_ms"],
        heldout_score=entry["heldout_score"],
        limit_ms=entry["limit_ms"],
        pace=Pace(from_text(entry["reference"]), entry["reference_ms"]),
        baseline=from_text(entry["baseline"]),
        width=entry["width"],
    )
