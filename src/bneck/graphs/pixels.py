"""Preprocessing that travels with a file: how pixels become the input that a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Pixels:
    """(pixel / 255 - mean) / std for each channel, pixels from 0 to 255, RGB."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def offset(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What is subtracted of a pixel, from 0 to 255."""
        return np.asarray(self.mean, np.float32) * np.float32(255)

    @property
    def spread(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """By what it is divided then."""
        return np.asarray(self.std, np.float32) * np.float32(255)
