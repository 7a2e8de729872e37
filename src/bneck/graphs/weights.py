"""Folded weights by name, and the numbers that stand next to them in every format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bneck.specs.network import Layer, Padding
from bneck.specs.normalisation import Normalisation

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]
Weights = Mapping[str, Array]
"""float32; float16 stays so in the file, and the runtime makes float32 of it when it loads."""


def weight_shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one operator's folded weights; every convolution has a bias."""
    if layer.kind == "pool":
        return {}
    if layer.kind == "squeeze":
        return {
            f"{layer.name}.reduce.weight": (layer.mid, layer.out, 1, 1),
            f"{layer.name}.reduce.bias": (layer.mid,),
            f"{layer.name}.gate.weight": (layer.out, layer.mid, 1, 1),
            f"{layer.name}.gate.bias": (layer.out,),
        }
    inputs = 1 if layer.kind == "depthwise" else layer.width_in
    return {
        f"{layer.name}.weight": (layer.out, inputs, layer.kernel, layer.kernel),
        f"{layer.name}.bias": (layer.out,),
    }


def random_weights(walk: Iterable[Layer], rng: np.random.Generator) -> dict[str, Array]:
    """Weights that keep activations of ordinary size, for timing; zeros would be too easy."""
    weights = {}
    for layer in walk:
        for name, shape in weight_shapes(layer).items():
            fan_in = max(1, int(np.prod(shape[1:])))
            scale = 0.1 if len(shape) == 1 else (2 / fan_in) ** 0.5
            weights[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
    return weights


def halved(weights: Weights) -> dict[str, Array]:
    """Kernels in half precision, the largest half where they exceed it; biases as they are."""
    most = np.finfo(np.float16).max
    return {
        name: value if value.ndim == 1 else np.clip(value, -most, most).astype(np.float16)
        for name, value in weights.items()
    }


def of_pixels(normalisation: Normalisation) -> tuple[Array, Array]:
    """What to subtract from a pixel from 0 to 255 and what to divide it by then, per channel."""
    mean, std = np.array([normalisation.mean, normalisation.std]) * 255
    return mean.astype(np.float32), std.astype(np.float32)


def pads(padding: Padding, layer: Layer) -> list[int]:
    """(top, left, bottom, right) in pixels: symmetric, or TensorFlow's SAME, which pads low sides less."""
    reach = layer.dilation * (layer.kernel - 1)
    if padding == "symmetric":
        return [reach // 2] * 4
    total = [
        max(0, (out - 1) * layer.stride + reach + 1 - size)
        for size, out in zip(layer.size_in, layer.size_out, strict=True)
    ]
    low = [t // 2 for t in total]
    return [*low, *(t - t_low for t, t_low in zip(total, low, strict=True))]
