"""Batch norm folded into the convolutions before it: the weights that a shipped graph holds.

They also make up the file that torch itself runs: safetensors, with the spec in its metadata.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from bneck.graphs.quantization import Array
from bneck.nets.build import Net
from bneck.nets.ops import Conv2d, ConvBnAct
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, to_text


@torch.no_grad()
def folded_weights(net: nn.Module) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Weights named as `graphs.onnx_graph.weight_shapes` names them, float32."""
    folded: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, ConvBnAct):
            folded[f"{name}.weight"], folded[f"{name}.bias"] = _fold(module)
        elif isinstance(module, Conv2d) and not name.endswith(".conv"):
            # Those of squeeze-and-excite, the classifier, a head's scores.
            folded |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    return {name: value.float().cpu().numpy() for name, value in folded.items()}


def _fold(module: ConvBnAct) -> tuple[Tensor, Tensor]:
    conv, bn = module.conv, module.bn
    if not isinstance(bn, nn.BatchNorm2d):
        assert conv.bias is not None
        return conv.weight, conv.bias
    # In float64, so that folding itself adds no error to the comparison with the module.
    mean, variance = (bn.get_buffer(f"running_{name}").double() for name in ("mean", "var"))
    scale = bn.weight.double() / (variance + bn.eps).sqrt()
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = bn.bias.double() - mean * scale
    return weight.float(), bias.float()


def folded_net(spec: NetSpec, weights: Mapping[str, Array]) -> Net:
    """A net without batch norm that holds folded weights, in evaluation mode."""
    net = Net(spec)
    state: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        inner = name
        if isinstance(module, ConvBnAct):
            inner, module.bn = f"{name}.conv", nn.Identity()
            if module.conv.bias is None:
                module.conv.bias = nn.Parameter(torch.empty(module.conv.out_channels))
        elif not isinstance(module, Conv2d) or name.endswith(".conv"):
            continue
        for key in ("weight", "bias"):
            state[f"{inner}.{key}"] = torch.from_numpy(weights[f"{name}.{key}"].copy())
    net.load_state_dict(state)
    return net.eval()


def pack(spec: NetSpec, weights: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Folded weights, the spec and metadata as the bytes of a safetensors file."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(w)) for name, w in weights.items()}
    return bytes(save(tensors, {**metadata, "spec": to_text(spec)}))


def unpack(data: bytes) -> tuple[Net, dict[str, str]]:
    """The net and the metadata of what `pack` gave.

    Raises:
        ValueError: something else.
    """
    try:
        tensors = load(data)
        (size,) = struct.unpack("<Q", data[:8])
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        spec = from_text(metadata["spec"])
        return folded_net(spec, {name: t.numpy() for name, t in tensors.items()}), metadata
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"it is not a network in safetensors: {error}") from None
