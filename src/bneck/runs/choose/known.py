"""What is published about the zoo's networks, one entry for each network and resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bneck.costs.published import PUBLISHED
from bneck.imports.published import KNOWN
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve

SIDES = (96, 128, 160, 192, 224, 256)
USUAL = 224  # pixels, of every published network whose name says nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A published network at a resolution in pixels.

    `top1` is in percent on ImageNet at this resolution, `source` says whose, None where nobody
    published it. `weights` is the name on the hub of its best weights, which serve all resolutions.
    """

    network: str
    resolution: int = USUAL
    top1: float | None = None
    source: str | None = None
    weights: str | None = None
    license: str | None = None

    @property
    def spec(self) -> NetSpec:
        """The network itself."""
        return resolve(f"{self.network}@{self.resolution}")

    @property
    def command(self) -> str | None:
        """What fetches its weights; None where there are none on the hub."""
        return None if self.weights is None else f"bneck import {self.weights}"

    def at(self, side: int) -> Known:
        """The same network at a resolution that nothing is published about."""
        return replace(self, resolution=side, top1=None, source=None)


def known_networks() -> list[Known]:
    """Every published network at every resolution that it has a published score or weights for."""
    hub = [one for one in KNOWN if one.name.startswith("timm/")]
    best = {one.network: one for one in sorted(hub, key=lambda one: one.top1)}
    found = []
    for name in dict.fromkeys([*best, *(row.network for row in PUBLISHED)]):
        network, _, side = name.partition("@")
        weights = best.get(network)
        rows = [row for row in PUBLISHED if row.network == name and row.top1 is not None]
        top1, source = (rows[0].top1, rows[0].source) if rows else (None, None)
        if weights is not None and not side:
            top1, source = weights.top1, "timm"
        found.append(
            Known(
                network=network, resolution=int(side or USUAL), top1=top1, source=source,
                weights=weights.name if weights else None,
                license=weights.license if weights else None,
            )
        )  # fmt: skip
    return found
