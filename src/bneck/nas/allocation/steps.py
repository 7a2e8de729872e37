"""Where a deep cut stops on the way, so that importance is measured again on what is left."""

from __future__ import annotations

SHARES = (0.7, 0.5)  # of the seed network's latency
NEXT = 1.15  # times the target: a step nearer to it is left out


def steps_to(share: float) -> list[float]:
    """The steps to a target, which is a share of the seed network's latency too; none where it is near."""
    return [step for step in SHARES if step >= NEXT * share]
