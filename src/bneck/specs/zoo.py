"""The networks of the paper and its relatives as tables that read like its own, and their variants.

`FAMILY[-WIDTH][+VARIANT...][@RESOLUTION]`: `v3-large`, `v3-small-0.75`, `v3-large@192`,
`v3-large+relu`, `v3-small-1.25+rf2+os16@96`. `specs.variants` has the variants.
"""

from __future__ import annotations

import re
from dataclasses import replace

from bneck.specs import variants
from bneck.specs.codec import block_rows
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, SpecError
from bneck.specs.transforms import WidthRule, minimalistic, scale_width

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

V3_EDGETPU = NetSpec(  # the authors' network for the EdgeTPU, "mobilenet_edgetpu"
    name="v3-edgetpu",
    rows=(
        Conv(3, 32, "relu", 2),
        Conv(1, 16, "linear"),  # a fused row that expands nothing
        #     k  exp  out  se  act    s
        Bneck(3, 128, 32, 0, "relu", 2, fused=True),
        *[Bneck(3, 128, 32, 0, "relu", 1, fused=True)] * 3,
        Bneck(3, 256, 48, 0, "relu", 2, fused=True),
        *[Bneck(3, 192, 48, 0, "relu", 1, fused=True)] * 3,
        Bneck(3, 384, 96, 0, "relu", 2),
        *[Bneck(3, 384, 96, 0, "relu", 1)] * 3,
        Bneck(3, 768, 96, 0, "relu", 1, skip="no"),
        *[Bneck(3, 384, 96, 0, "relu", 1)] * 3,
        Bneck(5, 768, 160, 0, "relu", 2),
        *[Bneck(5, 640, 160, 0, "relu", 1)] * 3,
        Bneck(3, 1280, 192, 0, "relu", 1),
        Conv(1, 1280, "relu"),
        Pool(),
    ),
)


def _pair(width_in: int, out: int, stride: int) -> Bneck:
    """V1's row: depthwise, then 1x1, a nonlinearity after both; nothing expands, nothing adds."""
    return Bneck(3, width_in, out, 0, "relu6", stride, skip="no", out_act="relu6")


def _lc_pair(kernel: int, width_in: int, out: int, stride: int, *, se: bool = False) -> Bneck:
    """LCNet's row: V1's with h-swish; squeeze-and-excite to a quarter."""
    squeeze = width_in // 4 if se else 0
    return Bneck(kernel, width_in, out, squeeze, "hswish", stride, skip="no", out_act="hswish")


def _uib(start: int, kernel: int, stride: int, out: int, expanded: int) -> Bneck:
    """V4's universal inverted bottleneck."""
    return Bneck(kernel, expanded, out, 0, "relu", stride, start=start)


V1 = NetSpec(  # "MobileNets", Table 1
    name="v1",
    dropout=0.001,
    rows=(
        Conv(3, 32, "relu6", 2),
        #     in  out  s
        _pair(32, 64, 1),
        _pair(64, 128, 2),
        _pair(128, 128, 1),
        _pair(128, 256, 2),
        _pair(256, 256, 1),
        _pair(256, 512, 2),
        *[_pair(512, 512, 1)] * 5,
        _pair(512, 1024, 2),
        _pair(1024, 1024, 1),
        Pool(),
    ),
)

# The networks below are built of blocks of identical layers, in MnasNet's notation (`specs.codec`):
# repeats, kernel, stride, expansion ratio, channels in and out, squeeze-and-excite.
V2 = NetSpec(  # "MobileNetV2", Table 2
    name="v2",
    rows=block_rows((
        "r1_k3_s11_e1_i32_o16", "r2_k3_s22_e6_i16_o24", "r3_k3_s22_e6_i24_o32",
        "r4_k3_s22_e6_i32_o64", "r3_k3_s11_e6_i64_o96", "r3_k3_s22_e6_i96_o160",
        "r1_k3_s11_e6_i160_o320",
    ), act="relu6"),
)  # fmt: skip

MNASNET_A1 = NetSpec(  # "MnasNet", Fig. 7(a)
    name="mnasnet-a1",
    se_gate="sigmoid",
    rows=block_rows((
        "r1_k3_s11_e1_i32_o16", "r2_k3_s22_e6_i16_o24", "r3_k5_s22_e3_i24_o40_se0.25",
        "r4_k3_s22_e6_i40_o80", "r2_k3_s11_e6_i80_o112_se0.25", "r3_k5_s22_e6_i112_o160_se0.25",
        "r1_k3_s11_e6_i160_o320",
    )),
)  # fmt: skip

MNAS_SMALL = NetSpec(  # the authors' public code; the 65.1M of Table 3 has no public definition
    name="mnas-small",
    se_gate="sigmoid",
    dropout=0.0,
    rows=block_rows((
        "r1_k3_s11_e1_i8_o8_noskip", "r1_k3_s22_e3_i8_o16", "r2_k3_s22_e6_i16_o16",
        "r4_k5_s22_e6_i16_o32_se0.25", "r3_k3_s11_e6_i32_o32_se0.25",
        "r3_k5_s22_e6_i32_o88_se0.25", "r1_k3_s11_e6_i88_o144",
    )),
)  # fmt: skip

PROXYLESS_MOBILE = NetSpec(  # "ProxylessNAS", Fig. 4(c), one line per stage
    name="proxyless-mobile",
    rows=block_rows((
        "r1_k3_s11_e1_i32_o16",
        "r1_k5_s22_e3_i16_o32", "r1_k3_s11_e3_i32_o32",
        "r1_k7_s22_e3_i32_o40", "r1_k3_s11_e3_i40_o40", "r2_k5_s11_e3_i40_o40",
        "r1_k7_s22_e6_i40_o80", "r3_k5_s11_e3_i80_o80",
        "r1_k5_s11_e6_i80_o96", "r3_k5_s11_e3_i96_o96",
        "r1_k7_s22_e6_i96_o192", "r1_k7_s11_e6_i192_o192", "r2_k7_s11_e3_i192_o192",
        "r1_k7_s11_e6_i192_o320",
    ), act="relu6"),
)  # fmt: skip

V4_CONV_SMALL = NetSpec(  # "MobileNetV4", MNv4-Conv-S
    name="v4-conv-small",
    rows=(
        Conv(3, 32, "relu", 2),
        Conv(3, 32, "relu", 2),
        Conv(1, 32, "relu"),
        Conv(3, 96, "relu", 2),
        Conv(1, 64, "relu"),
        #  start k s  out  exp
        _uib(5, 5, 2, 96, 192),
        *[_uib(0, 3, 1, 96, 192)] * 4,
        _uib(3, 0, 1, 96, 384),
        _uib(3, 3, 2, 128, 576),
        _uib(5, 5, 1, 128, 512),
        _uib(0, 5, 1, 128, 512),
        _uib(0, 5, 1, 128, 384),
        *[_uib(0, 3, 1, 128, 512)] * 2,
        Conv(1, 960, "relu"),
        Pool(),
        Conv(1, 1280, "relu"),
    ),
)

V4_CONV_MEDIUM = NetSpec(  # "MobileNetV4", MNv4-Conv-M
    name="v4-conv-medium",
    rows=(
        Conv(3, 32, "relu", 2),
        Bneck(3, 128, 48, 0, "relu", 2, fused=True),
        #  start k s  out  exp
        _uib(3, 5, 2, 80, 192),
        _uib(3, 3, 1, 80, 160),
        _uib(3, 5, 2, 160, 480),
        *[_uib(3, 3, 1, 160, 640)] * 2,
        _uib(3, 5, 1, 160, 640),
        _uib(3, 3, 1, 160, 640),
        _uib(3, 0, 1, 160, 640),
        _uib(0, 0, 1, 160, 320),
        _uib(3, 0, 1, 160, 640),
        _uib(5, 5, 2, 256, 960),
        _uib(5, 5, 1, 256, 1024),
        *[_uib(3, 5, 1, 256, 1024)] * 2,
        _uib(0, 0, 1, 256, 1024),
        _uib(3, 0, 1, 256, 1024),
        _uib(3, 5, 1, 256, 512),
        _uib(5, 5, 1, 256, 1024),
        *[_uib(0, 0, 1, 256, 1024)] * 2,
        _uib(5, 0, 1, 256, 512),
        Conv(1, 960, "relu"),
        Pool(),
        Conv(1, 1280, "relu"),
    ),
)

LCNET = NetSpec(  # "PP-LCNet", Table 1
    name="lcnet",
    rows=(
        Conv(3, 16, "hswish", 2),
        #        k  in   out  s
        _lc_pair(3, 16, 32, 1),
        _lc_pair(3, 32, 64, 2),
        _lc_pair(3, 64, 64, 1),
        _lc_pair(3, 64, 128, 2),
        _lc_pair(3, 128, 128, 1),
        _lc_pair(3, 128, 256, 2),
        *[_lc_pair(5, 256, 256, 1)] * 5,
        _lc_pair(5, 256, 512, 2, se=True),
        _lc_pair(5, 512, 512, 1, se=True),
        Pool(),
        Conv(1, 1280, "hswish", bn=False),
    ),
)

EFFICIENTNET_LITE0 = NetSpec(  # the authors' code: EfficientNet-B0 with ReLU6, nothing squeezes
    name="efficientnet-lite0",
    rows=block_rows((
        "r1_k3_s11_e1_i32_o16", "r2_k3_s22_e6_i16_o24", "r2_k5_s22_e6_i24_o40",
        "r3_k3_s22_e6_i40_o80", "r3_k5_s11_e6_i80_o112", "r4_k5_s22_e6_i112_o192",
        "r1_k3_s11_e6_i192_o320",
    ), act="relu6"),
)  # fmt: skip

NETWORKS: dict[str, NetSpec] = {
    spec.name: spec
    for spec in (
        V3_LARGE, V3_SMALL, minimalistic(V3_LARGE), minimalistic(V3_SMALL), V3_EDGETPU,
        V1, V2, MNASNET_A1, MNAS_SMALL, PROXYLESS_MOBILE,
        V4_CONV_SMALL, V4_CONV_MEDIUM, LCNET, EFFICIENTNET_LITE0,
    )
}  # fmt: skip

# Where a family's width rule is not V3-Large's (see `width_rule`).
WIDTH_RULES: dict[str, WidthRule] = {
    "v3-small": WidthRule(above_one="scaled"),
    "v3-small-minimalistic": WidthRule(above_one="scaled"),
    "v3-edgetpu": WidthRule(keeps="tail"),
    "v1": WidthRule(keeps="none", rounding="down"),
    "v2": WidthRule(keeps="tail", above_one="scaled"),
    "mnasnet-a1": WidthRule(keeps="tail"),
    "mnas-small": WidthRule(keeps="tail"),
    "proxyless-mobile": WidthRule(keeps="tail", above_one="scaled"),
    "v4-conv-small": WidthRule(stem=True),
    "v4-conv-medium": WidthRule(stem=True),
    "lcnet": WidthRule(squeeze_of="input"),
    "efficientnet-lite0": WidthRule(keeps="tail", above_one="scaled"),
}


def family(name: str) -> str:
    """The zoo's network that a name begins with, "" for none: v3-small of v3-small-0.75@96."""
    return max((known for known in NETWORKS if name.startswith(known)), key=len, default="")


def width_rule(name: str) -> WidthRule:
    """The width rule of a network by name; V3-Large's for one that is not of the zoo."""
    rule = WIDTH_RULES.get(family(name), WidthRule())
    # Another last stage (Fig. 5) has the conv that keeps its width on the other side of the pool.
    if "+original-tail" in name:
        return replace(rule, keeps="tail")
    if "+efficient-tail" in name:
        return replace(rule, keeps="head")
    return rule


_NAME = re.compile(
    r"(?P<family>[a-z0-9-]+?)(-(?P<width>\d+\.\d+))?(?P<variants>(\+[^+@]*)*)(@(?P<resolution>\d+))?"
)


def width_of(name: str) -> float:
    """The width multiplier in a network's name, 1.0 where there is none."""
    match = _NAME.fullmatch(name.strip().lower())
    return float(match["width"]) if match and match["width"] else 1.0


def network(name: str, *, scaled_tail: bool = False) -> NetSpec:
    """The spec that a name means: `v3-small`, `v3-small-0.75`, `v3-large+relu@192`.

    `scaled_tail` lets the width scale all rows, also those that a family keeps wide to classify:
    the backbone of a detector (Table 6).

    Raises:
        SpecError: no such network or variant, the nearest names are offered; or the variant does
            not fit the network.
    """
    wanted = name.strip().lower()
    match = _NAME.fullmatch(wanted)
    base = match["family"] if match else name
    if match is None or base not in NETWORKS:
        raise SpecError(
            f"there is no network {name!r}; {variants.offered(base, NETWORKS)} A width, variants and a "
            "resolution may follow, as in v3-small-0.75+relu@192"
        )
    chosen = variants.find(match["variants"].split("+")[1:])
    spec = variants.vary(NETWORKS[base], chosen, before_width=True)
    if match["width"]:
        rule = width_rule(base)
        rule = replace(rule, keeps="none") if scaled_tail else rule
        spec = scale_width(spec, float(match["width"]), rule)
    spec = variants.vary(spec, chosen, before_width=False)
    return replace(spec, name=wanted, resolution=int(match["resolution"] or spec.resolution))
