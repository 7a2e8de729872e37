"""torchvision's names: `features.4.block.2.fc1.weight` of V3, `features.4.conv.1.0.weight` of V2."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from bneck.imports.source import Place, Source, filters, places, rename
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET
from bneck.specs.rows import Bneck


def is_torchvision(state: dict[str, Tensor]) -> bool:
    """Whether a state dict has torchvision's names."""
    return "features.0.0.weight" in state


def torchvision_weights(state: dict[str, Tensor]) -> Source:
    """Torchvision's V3-Large, V3-Small or V2: symmetric padding, ImageNet's mean and std."""
    v3 = any(".block." in name for name in state)
    return Source(
        layout="torchvision",
        filters=filters(state),
        named=lambda spec: rename(state, _names(spec, v3=v3)),
        padding="symmetric",
        bn_eps=1e-3 if v3 else 1e-5,  # its V2 keeps torch's default
        normalisation=IMAGENET,
    )


def _names(spec: NetSpec, *, v3: bool) -> Iterator[tuple[Place, str, str]]:
    head = len(spec.rows) - 1 - spec.pool_at
    seen: dict[int, int] = {}  # the last of its modules that a row has met
    for place in places(spec):
        row = place.layer.row
        # Both convolutions of a squeeze-and-excite are in one module.
        step = seen[row] = seen.get(row, -1) + (place.part != "gate")
        if place.part == "classifier":
            # Dropout comes before the last linear layer, and h-swish after the first of two.
            name = f"classifier.{3 if head else 1}"
            yield place, name, name
        elif row > spec.pool_at:
            yield place, "classifier.0", "classifier.0"
        elif not isinstance(spec.rows[row], Bneck):
            yield place, f"features.{row}.0", f"features.{row}.1"
        elif place.part in ("reduce", "gate"):
            name = f"features.{row}.block.{step}.{'fc1' if place.part == 'reduce' else 'fc2'}"
            yield place, name, name
        elif v3:
            yield place, f"features.{row}.block.{step}.0", f"features.{row}.block.{step}.1"
        elif place.part == "project":
            yield place, f"features.{row}.conv.{step}", f"features.{row}.conv.{step + 1}"
        else:
            yield place, f"features.{row}.conv.{step}.0", f"features.{row}.conv.{step}.1"
