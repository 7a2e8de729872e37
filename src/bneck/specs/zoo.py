"""The networks of the paper as tables that read like its own, and names for their variants.

`NAME[-WIDTH][@RESOLUTION]`: `v3-large`, `v3-small-0.75`, `v3-large@192`, `v3-small-1.25@96`.
"""

from __future__ import annotations

import difflib
import re

from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, SpecError
from bneck.specs.transforms import Head, rename, scale_width, with_resolution

V3_LARGE = NetSpec(  # Table 1
    name="v3-large",
    rows=(
        Conv(3, 16, "hswish", 2),
        #     k  exp  out   se  act     s
        Bneck(3, 16, 16, 0, "relu", 1),
        Bneck(3, 64, 24, 0, "relu", 2),
        Bneck(3, 72, 24, 0, "relu", 1),
        Bneck(5, 72, 40, 24, "relu", 2),
        Bneck(5, 120, 40, 32, "relu", 1),
        Bneck(5, 120, 40, 32, "relu", 1),
        Bneck(3, 240, 80, 0, "hswish", 2),
        Bneck(3, 200, 80, 0, "hswish", 1),
        Bneck(3, 184, 80, 0, "hswish", 1),
        Bneck(3, 184, 80, 0, "hswish", 1),
        Bneck(3, 480, 112, 120, "hswish", 1),
        Bneck(3, 672, 112, 168, "hswish", 1),
        Bneck(5, 672, 160, 168, "hswish", 2),
        Bneck(5, 960, 160, 240, "hswish", 1),
        Bneck(5, 960, 160, 240, "hswish", 1),
        Conv(1, 960, "hswish"),
        Pool(),
        Conv(1, 1280, "hswish", bn=False),
    ),
)

V3_SMALL = NetSpec(  # Table 2, without the squeeze-and-excite it prints at the 576 conv
    name="v3-small",
    rows=(
        Conv(3, 16, "hswish", 2),
        #     k  exp  out   se  act     s
        Bneck(3, 16, 16, 8, "relu", 2),
        Bneck(3, 72, 24, 0, "relu", 2),
        Bneck(3, 88, 24, 0, "relu", 1),
        Bneck(5, 96, 40, 24, "hswish", 2),
        Bneck(5, 240, 40, 64, "hswish", 1),
        Bneck(5, 240, 40, 64, "hswish", 1),
        Bneck(5, 120, 48, 32, "hswish", 1),
        Bneck(5, 144, 48, 40, "hswish", 1),
        Bneck(5, 288, 96, 72, "hswish", 2),
        Bneck(5, 576, 96, 144, "hswish", 1),
        Bneck(5, 576, 96, 144, "hswish", 1),
        Conv(1, 576, "hswish"),
        Pool(),
        Conv(1, 1024, "hswish", bn=False),
    ),
)

NETWORKS: dict[str, NetSpec] = {spec.name: spec for spec in (V3_LARGE, V3_SMALL)}

# What the convs behind the pool do above width 1.0 (Table 9; see scale_width).
WIDE_HEADS: dict[str, Head] = {"v3-large": "fixed", "v3-small": "scaled"}

_NAME = re.compile(r"(?P<family>[a-z0-9-]+?)(-(?P<width>\d+\.\d+))?(@(?P<resolution>\d+))?")


def network(name: str) -> NetSpec:
    """The spec that a name means: `v3-small`, `v3-small-0.75`, `v3-large@192`.

    Raises:
        SpecError: no such network; the nearest names are offered.
    """
    match = _NAME.fullmatch(name.strip().lower())
    family = match["family"] if match else name
    if match is None or family not in NETWORKS:
        near = difflib.get_close_matches(family, NETWORKS, n=3, cutoff=0.4) or sorted(NETWORKS)
        raise SpecError(
            f"there is no network {name!r}; did you mean {' or '.join(near)}? "
            "A width and a resolution may follow, as in v3-small-0.75@192"
        )
    spec = NETWORKS[family]
    if match["width"]:
        spec = scale_width(spec, float(match["width"]), head=WIDE_HEADS[family])
    if match["resolution"]:
        spec = with_resolution(spec, int(match["resolution"]))
    return rename(spec, name.strip().lower())
