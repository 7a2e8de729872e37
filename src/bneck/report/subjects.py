"""What can be compared: a network as it is, or with what a run wrote down of it."""

from __future__ import annotations

from dataclasses import dataclass

from bneck.report.numbers import mean
from bneck.specs.network import NetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network with its costs, and what is recorded of it.

    `scores` are shares of 1, one for each final training; `metric` says of what and `data` on which
    images. `latency_ms` is a recorded measurement, `where` its device and runtime.
    """

    label: str
    spec: NetSpec
    params: int
    madds: int
    kind: str = "network"
    metric: str = ""
    scores: tuple[float, ...] = ()
    data: str = ""
    latency_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    where: str = ""

    @property
    def score(self) -> float | None:
        """Mean of the scores."""
        return mean(self.scores) if self.scores else None
