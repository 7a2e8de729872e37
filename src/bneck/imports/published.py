"""Published networks that are known to fit: hub names and file names, and which network each one is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bneck.costs.count import count
from bneck.specs import zoo
from bneck.specs.errors import InputError

APACHE, BSD = "apache-2.0", "bsd-3-clause"
_TIMM = re.compile(
    r"(?P<port>tf_)?mobilenetv3_(?P<size>small|large)(?P<minimal>_minimal)?_(?P<v3>\d{3})"
    r"|mobilenetv2_(?P<v2>\d{3})|lcnet_(?P<lc>\d{3})"
    r"|mobilenetv4_conv_(?P<conv>small|medium)(_(?P<v4>\d{3}))?"
    r"|(?P<name>semnasnet_100|mnasnet_small|(tf_)?efficientnet_lite0)"
)
_OTHERS = {
    "semnasnet_100": "mnasnet-a1", "mnasnet_small": "mnas-small",
    "efficientnet_lite0": "efficientnet-lite0", "tf_efficientnet_lite0": "efficientnet-lite0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Published:
    """Weights that somebody publishes. `top1` in percent is their publisher's, on ImageNet."""

    name: str  # as --from takes it, or the file's name
    network: str
    top1: float
    license: str

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the size of the weights in MB (float32)."""
        params = count(zoo.network(self.network)).params
        return {
            "name": self.name, "network": self.network, "top1": self.top1, "params": params,
            "size_mb": round(4 * params / 1e6, 1), "license": self.license,
        }  # fmt: skip


# timm's results table for its names, torchvision's documentation for its files; the suffix of a torchvision
# file is the beginning of its sha256.
KNOWN = (
    Published("timm/mobilenetv3_small_050.lamb_in1k", "v3-small-0.5", 57.9, APACHE),
    Published("timm/mobilenetv3_small_075.lamb_in1k", "v3-small-0.75", 65.2, APACHE),
    Published("timm/mobilenetv3_small_100.lamb_in1k", "v3-small", 67.7, APACHE),
    Published("timm/tf_mobilenetv3_small_075.in1k", "v3-small-0.75", 65.7, APACHE),
    Published("timm/tf_mobilenetv3_small_100.in1k", "v3-small", 67.9, APACHE),
    Published("timm/tf_mobilenetv3_small_minimal_100.in1k", "v3-small-minimalistic", 62.9, APACHE),
    Published("timm/tf_mobilenetv3_large_075.in1k", "v3-large-0.75", 73.4, APACHE),
    Published("timm/tf_mobilenetv3_large_100.in1k", "v3-large", 75.5, APACHE),
    Published("timm/tf_mobilenetv3_large_minimal_100.in1k", "v3-large-minimalistic", 72.3, APACHE),
    Published("timm/mobilenetv3_large_100.ra_in1k", "v3-large", 75.8, APACHE),
    Published("timm/mobilenetv3_large_100.miil_in21k_ft_in1k", "v3-large", 77.9, "see config.json"),
    Published("timm/mobilenetv3_large_100.ra4_e3600_r224_in1k", "v3-large", 76.3, APACHE),
    Published("timm/mobilenetv2_050.lamb_in1k", "v2-0.5", 66.0, APACHE),
    Published("timm/mobilenetv2_100.ra_in1k", "v2", 73.0, APACHE),
    Published("timm/mobilenetv2_140.ra_in1k", "v2-1.4", 76.5, APACHE),
    Published("timm/semnasnet_100.rmsp_in1k", "mnasnet-a1", 75.5, APACHE),
    Published("timm/mnasnet_small.lamb_in1k", "mnas-small", 66.2, APACHE),
    Published("timm/mobilenetv4_conv_small_050.e3000_r224_in1k", "v4-conv-small-0.5", 64.8, APACHE),
    Published("timm/mobilenetv4_conv_small.e2400_r224_in1k", "v4-conv-small", 73.8, APACHE),
    Published("timm/mobilenetv4_conv_medium.e500_r224_in1k", "v4-conv-medium", 79.1, APACHE),
    Published("timm/lcnet_050.ra2_in1k", "lcnet-0.5", 63.1, APACHE),
    Published("timm/lcnet_075.ra2_in1k", "lcnet-0.75", 68.8, APACHE),
    Published("timm/lcnet_100.ra2_in1k", "lcnet", 72.1, APACHE),
    Published("timm/efficientnet_lite0.ra_in1k", "efficientnet-lite0", 75.5, APACHE),
    Published("timm/tf_efficientnet_lite0.in1k", "efficientnet-lite0", 74.8, APACHE),
    Published("mobilenet_v3_small-047dcff4.pth", "v3-small", 67.7, BSD),
    Published("mobilenet_v3_large-8738ca79.pth", "v3-large", 74.0, BSD),
    Published("mobilenet_v3_large-5c1a4163.pth", "v3-large", 75.3, BSD),
    Published("mobilenet_v2-b0353104.pth", "v2", 71.9, BSD),
    Published("mobilenet_v2-7ebf99e0.pth", "v2", 72.2, BSD),
)  # fmt: skip


def network_of(architecture: str, whose: str) -> str:
    """The zoo's name of a timm architecture, as `mobilenetv3_small_075`.

    Raises:
        InputError: an architecture that is no network of the zoo; the message names it.
    """
    match = _TIMM.fullmatch(architecture)
    if match is None:
        raise InputError(
            f"{whose} is a {architecture}, which is not among the networks known here (V4, V3, V2, MnasNet, "
            "LCNet, EfficientNet-Lite0); bneck import --list prints published weights that fit"
        )
    if match["name"]:
        return _OTHERS[match["name"]]
    width = int(match["v2"] or match["v3"] or match["v4"] or match["lc"] or 100) / 100
    family = "v2" if match["v2"] else "lcnet"
    if match["size"]:
        family = f"v3-{match['size']}" + ("-minimalistic" if match["minimal"] else "")
    elif match["conv"]:
        family = f"v4-conv-{match['conv']}"
    return family if width == 1 else f"{family}-{width}"
