"""How a trial is judged: one number from accuracy and latency, and a latency that none may exceed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bneck.specs.errors import InputError

Array = NDArray[np.float64]
Kind = Literal["paper", "hard", "absolute"]
KINDS: tuple[str, ...] = get_args(Kind)
LARGE, SMALL = -0.07, -0.15  # the paper's w for large and for small models (section 4.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The reward of a network, the larger the better.

    "paper": ACC x (LAT / TAR)^w (section 4.1). **TAR is a constant factor there**: it scales every
    reward alike, so it cannot change which network is best; only `w` moves the result. It is kept
    as the paper writes it; to fit a budget use one of the others, or a limit.

    "hard": ACC up to TAR, ACC x (LAT / TAR)^beta above it (MnasNet's alpha = 0, beta = -1).

    "absolute": ACC + beta x |LAT / TAR - 1| (TuNAS), which pulls from both sides.

    Raises:
        InputError: a kind, target, exponent or limit that cannot be.
    """

    kind: Kind
    target_ms: float  # TAR
    exponent: float | None = None  # w of "paper", beta of the others; None takes -0.07, -1 and -0.3
    limit_ms: float | None = None  # no network above it is trained at all

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"there is no reward {self.kind!r}; known are {', '.join(KINDS)}")
        for name, value in (("target_ms", self.target_ms), ("limit_ms", self.limit_ms)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} of the reward is {value}; it must be a time above 0 ms")
        if not -100 <= self.strength <= 0:
            raise InputError(
                f"the exponent of the reward is {self.exponent}; it must be from -100 to 0, or slow "
                "networks would be rewarded"
            )

    @property
    def strength(self) -> float:
        """The exponent in force."""
        defaults = {"paper": LARGE, "hard": -1.0, "absolute": -0.3}
        return defaults[self.kind] if self.exponent is None else self.exponent

    def __call__(self, accuracy: float, latency_ms: float) -> float:
        """Reward of a network with this accuracy (from 0 to 1) and latency.

        Raises:
            InputError: a latency that is not above 0, or an accuracy that is no number.
        """
        if not 0 < latency_ms < math.inf or not math.isfinite(accuracy):
            raise InputError(
                f"an accuracy of {accuracy} at {latency_ms} ms has no reward; the accuracy must be a number "
                "and the latency a time above 0 ms"
            )
        return float(self.of_many(np.array([accuracy]), np.array([latency_ms]))[0])

    def of_many(self, accuracy: Array, latency_ms: Array) -> Array:
        """Rewards of several networks; nothing is checked."""
        ratio = latency_ms / self.target_ms
        match self.kind:
            case "paper":
                return np.asarray(accuracy * ratio**self.strength)
            case "hard":
                return np.asarray(accuracy * np.maximum(ratio, 1.0) ** self.strength)
            case "absolute":
                return np.asarray(accuracy + self.strength * np.abs(ratio - 1))

    def allows(self, latency_ms: float) -> bool:
        """Whether a network of this latency may be trained at all."""
        return self.limit_ms is None or latency_ms <= self.limit_ms
