"""Values of more than 8 bits: how many a dataset's have, one number for all its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

FULL = 16  # bits of files with more than 8 bits a value, where nothing else is known


@dataclass(frozen=True, slots=True)
class Deep:
    """An image file, or what is in one, of a dataset whose values of more than 8 bits have so many bits."""

    file: Path | bytes
    bits: int

    def __str__(self) -> str:
        return str(self.file)


Encoded: TypeAlias = Path | bytes | Deep  # an image file, or what is in one


def deep(file: Path | bytes, bits: int) -> Encoded:
    """An image file of a dataset with values of so many bits."""
    return file if bits == FULL else Deep(file, bits)
