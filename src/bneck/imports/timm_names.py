"""timm's names: `blocks.2.0.conv_pw.weight`, `blocks.2.0.se.conv_reduce.bias`, `conv_head.weight`.

MobileNetV4's blocks have others: `blocks.2.0.dw_start.conv.weight`, `blocks.2.0.pw_proj.bn.bias`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor

from bneck.imports.source import Place, Source, filters, places, rename
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import IMAGENET, MINUS_ONE_TO_ONE, Normalisation
from bneck.specs.rows import Bneck, Pool

_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.")
# Modules of a block with an expand convolution and of one without: convolution and batch norm.
_EXPANDING = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
}
_PLAIN = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
_FUSED = {"expand": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")}
_UNIVERSAL = {
    part: (f"{name}.conv", f"{name}.bn")
    for part, name in (
        ("start", "dw_start"), ("expand", "pw_exp"), ("depthwise", "dw_mid"), ("project", "pw_proj"),
    )
}  # fmt: skip
_BOTH = {
    "reduce": ("se.conv_reduce", ""),
    "gate": ("se.conv_expand", ""),
    "conv": ("conv", "bn1"),
}


def is_timm(state: dict[str, Tensor]) -> bool:
    """Whether a state dict has timm's names."""
    return "conv_stem.weight" in state


def timm_weights(
    state: dict[str, Tensor], *, port: bool, normalisation: Normalisation | None = None
) -> Source:
    """Timm's V4, V3, V2, MnasNet, LCNet and EfficientNet-Lite.

    `port` says that the weights are the authors' TensorFlow ones (timm calls those networks
    `tf_...`): SAME padding, eps 1e-3, input from -1 to 1. Else: symmetric padding, torch's eps,
    ImageNet's mean and std, unless `normalisation` says otherwise.
    """
    return Source(
        layout="timm-tf" if port else "timm",
        filters=filters(state),
        named=lambda spec: rename(state, _names(spec, state)),
        padding="same" if port else "symmetric",
        bn_eps=1e-3 if port else 1e-5,
        normalisation=normalisation or (MINUS_ONE_TO_ONE if port else IMAGENET),
    )


def _blocks(state: dict[str, Tensor]) -> list[str]:
    """The file's blocks in their order; how they are grouped is the file's business."""
    found = {(int(m[1]), int(m[2])) for name in state if (m := _BLOCK.match(name))}
    return [f"blocks.{stage}.{block}" for stage, block in sorted(found)]


def _names(spec: NetSpec, state: dict[str, Tensor]) -> Iterator[tuple[Place, str, str]]:
    blocks = _blocks(state)
    universal = any(".pw_proj." in name for name in state)
    head = "norm_head" if "norm_head.weight" in state else "bn2"
    rows = [i for i, row in enumerate(spec.rows) if not isinstance(row, Pool)]
    # A file with too few blocks lacks the last ones; their names say so.
    blocks = blocks + [f"blocks.(number {k + 1})" for k in range(len(blocks), len(rows) - 2)]
    block_of = dict(zip(rows[1:-1], blocks, strict=False))
    for place in places(spec):
        row = place.layer.row
        if place.part == "classifier":
            yield place, "classifier", ""
        elif row == rows[0]:
            yield place, "conv_stem", "bn1"
        elif row == rows[-1]:
            yield place, "conv_head", head
        else:
            # A file of another family lacks what only universal blocks have; its names say so.
            known = _UNIVERSAL | _modules(spec, row, universal=universal) | _BOTH
            conv, bn = known[place.part]
            yield place, f"{block_of[row]}.{conv}", f"{block_of[row]}.{bn}"


def _modules(spec: NetSpec, index: int, *, universal: bool) -> dict[str, tuple[str, str]]:
    row = spec.rows[index]
    if isinstance(row, Bneck) and row.fused:
        return _FUSED
    if universal:
        return _UNIVERSAL
    return _EXPANDING if spec.expands(index) else _PLAIN
