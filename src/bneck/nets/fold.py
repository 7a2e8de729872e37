"""Batch norm folded into the convolutions before it: the weights that a shipped graph holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bneck.nets.ops import ConvBnAct, SqueezeExcite


@torch.no_grad()
def folded_weights(net: nn.Module) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Weights named as `graphs.onnx_graph.weight_shapes` names them, float32."""
    folded: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, ConvBnAct):
            folded[f"{name}.weight"], folded[f"{name}.bias"] = _fold(module)
        elif isinstance(module, SqueezeExcite):
            for part in ("reduce", "gate"):
                folded |= {
                    f"{name}.{part}.{k}": v
                    for k, v in module.get_submodule(part).state_dict().items()
                }
    classifier = getattr(net, "classifier", None)  # a plain convolution; detectors have none
    if classifier is not None:
        folded |= {f"classifier.{key}": value for key, value in classifier.state_dict().items()}
    return {name: value.float().cpu().numpy() for name, value in folded.items()}


def _fold(module: ConvBnAct) -> tuple[Tensor, Tensor]:
    conv, bn = module.conv, module.bn
    if not isinstance(bn, nn.BatchNorm2d):
        assert conv.bias is not None
        return conv.weight, conv.bias
    assert bn.running_var is not None
    assert bn.running_mean is not None
    # In float64, so that folding itself adds no error to the comparison with the module.
    scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = bn.bias.double() - bn.running_mean.double() * scale
    return weight.float(), bias.float()
