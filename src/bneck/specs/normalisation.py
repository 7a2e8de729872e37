"""How pixels become a network's input: a value that travels with the network's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bneck.specs.rows import SpecError

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The input is (pixel - mean) / std, by channel (red green blue), for pixels from 0 to 1.

    Raises:
        SpecError: not three finite numbers each, a std that is not above 0, or one of them above 1.
    """

    mean: Triple
    std: Triple

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _triple(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise SpecError(f"std is {self.std}; each of the three numbers must be above 0")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if max(values) > 1:
                raise SpecError(
                    f"{name} is {values}, as if of pixels from 0 to 255; pixels are from 0 to 1, so divide it "
                    "by 255"
                )

    def as_json(self) -> dict[str, list[float]]:
        """Plain values for a json file."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Normalisation:
        """What `as_json` gave.

        Raises:
            SpecError: it is something else.
        """
        try:
            return Normalisation(value["mean"], value["std"])
        except (LookupError, TypeError):
            raise SpecError(
                f"the normalization is {value!r}; it must hold mean and std, three numbers each"
            ) from None


def _triple(name: str, values: object) -> Triple:
    match values:  # a text is no sequence to a pattern
        case [int() | float() as red, int() | float() as green, int() | float() as blue]:
            if all(map(math.isfinite, (red, green, blue))):
                return float(red), float(green), float(blue)
    raise SpecError(f"{name} is {values!r}; it must be three numbers, for red, green and blue")


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MINUS_ONE_TO_ONE = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # the authors' preprocessing
