"""int8 numbers: ranges of activations, scales of weights, and how both become integers.

Activations are asymmetric, one scale per tensor; weights symmetric, one scale per output channel; sums
and biases int32. The tensors that are rounded, called points, are named after the layers:

    image                     the normalised input
    LAYER.pre, LAYER          a convolution before its h-swish, and after its nonlinearity
    LAYER.pool, .reduce, .gate.pre, .gate      inside squeeze-and-excite; LAYER is the product
    LAYER.sum                 after the residual
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, takewhile
from typing import Any, TypeAlias

import numpy as np

from bneck.graphs.forms import HSwish
from bneck.specs.network import Gate, Layer

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""Lowest and highest value of every point."""

STEPS = 255
WEIGHT_LEVELS = 127
GATE = (0.0, 1.0)
# What runtimes prescribe for the int8 sigmoid: 1 itself is not reached.
SIGMOID = (0.0, 255 / 256)
GATES: Mapping[Gate, tuple[float, float]] = {"hsigmoid": GATE, "sigmoid": SIGMOID}
LEAST_SCALE = 1e-8
NARROW = 16  # channels; ONNX Runtime's integer kernels take 64 at a time
CUT = 3.0  # h-swish is 0 below -3 and x above 3


@dataclass(frozen=True, slots=True)
class Scale:
    """real = step * (integer - zero), integers from -128 to 127."""

    step: float
    zero: int

    @staticmethod
    def of(low: float, high: float) -> Scale:
        """The scale that covers low to high and has 0 exactly (padding needs it)."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = max((high - low) / STEPS, LEAST_SCALE)
        return Scale(step, round(-128 - low / step))

    def quantize(self, real: Array) -> Array:
        """Real numbers to int8, those outside the range to its ends."""
        levels: Array = np.clip(np.rint(real / self.step) + self.zero, -128, 127)
        return levels.astype(np.int8)


def weight_steps(weight: Array, bias: Array, input_step: float) -> Array:
    """Steps of a convolution's weights (out, in, k, k), one per output channel, float32.

    A channel of tiny weights gets a step large enough for its bias to fit into 32 bits.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    fits = np.abs(bias) / (input_step * 2.0**30)
    steps: Array = np.maximum(np.maximum(largest / WEIGHT_LEVELS, fits), LEAST_SCALE)
    return steps.astype(np.float32)


def quantize_weight(weight: Array, steps: Array) -> Array:
    """(out, in, k, k) to int8, from -127 to 127."""
    levels = np.rint(weight / steps.reshape(-1, *[1] * (weight.ndim - 1)))
    return np.clip(levels, -WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8)


def quantize_bias(bias: Array, steps: Array, input_step: float) -> Array:
    """To int32 with step `input_step * steps`."""
    return np.rint(bias / (steps.astype(np.float64) * input_step)).astype(np.int32)


def points(
    walk: Sequence[Layer], hswish: HSwish, gate: Gate, taps: Collection[str] = ()
) -> dict[str, tuple[float, float]]:
    """Every point that a form rounds with a range of ordinary size: enough to time a network, not to use it."""
    found = {"image": (-2.7, 2.7)}
    before = (-6.0, 6.0)  # the range of the point before; pools and products keep it
    for layer in walk:
        name = layer.name
        if layer.kind == "squeeze":
            found |= {f"{name}.pool": before, f"{name}.reduce": (0.0, 6.0)}
            if gate == "sigmoid":
                found[f"{name}.gate.pre"] = (-6.0, 6.0)
            found[f"{name}.gate"] = GATES[gate]
        elif layer.kind != "pool":
            if layer.act == "hswish" and hswish != "fused":
                found[f"{name}.pre"] = (-6.0, 6.0)
            before = ({"hswish": -0.375, "linear": -6.0}.get(layer.act, 0.0), 6.0)
        found[name] = before
        if layer.adds:
            found[f"{name}.sum"] = before = (-8.0, 8.0)
    return settled(found, walk, hswish, taps)


def float_start(walk: Iterable[Layer], hswish: HSwish, taps: Collection[str]) -> tuple[Layer, ...]:
    """Layers that an int8 file computes in float: in the form "cut", the first rows while all are narrow.

    ONNX Runtime's integer kernels are slower there than its float ones, which hold 16 channels.
    Rows with one of `taps`, layers that a head takes, are not among them.
    """

    def narrow(row: Iterable[Layer]) -> bool:
        return all(one.kind != "pool" and one.out <= NARROW and one.name not in taps for one in row)

    rows = (tuple(row) for _, row in groupby(walk, key=lambda layer: layer.row))
    return tuple(chain.from_iterable(takewhile(narrow, rows))) if hswish == "cut" else ()


def settled(
    ranges: Ranges, walk: Sequence[Layer], hswish: HSwish, taps: Collection[str] = ()
) -> dict[str, tuple[float, float]]:
    """Of the ranges of all points those that a form rounds: of `float_start` only its output.

    In the form "cut", -3, 0 and 3 are among the integers before an h-swish, -3 as the lowest.
    """
    kept, start = dict(ranges), float_start(walk, hswish, taps)
    for layer in start:
        out = f"{layer.name}.sum" if layer.adds else layer.name
        inside = {point for point in kept if f"{point}.".startswith(f"{layer.name}.")}
        for point in inside - {out if layer is start[-1] else ""} | {"image"}:
            kept.pop(point, None)
    if hswish == "cut":
        for point in {f"{layer.name}.pre" for layer in walk if layer.act == "hswish"} & set(kept):
            # From -3 to 0 as many as before: weights trained with rounding lose accuracy with other
            # steps, even finer ones. The highest value stays in range.
            low, high = min(kept[point][0], 0.0), max(kept[point][1], 0.0)
            same = round(CUT * STEPS / max(high - low, LEAST_SCALE))
            steps = max(1, min(same, int(CUT * STEPS / (CUT + high))))
            kept[point] = (-CUT, CUT * STEPS / steps - CUT)
    return kept
