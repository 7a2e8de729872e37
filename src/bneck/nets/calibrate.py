"""Post-training quantization (PTQ): ranges from the user's images, and which layer loses the accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bneck.graphs.forms import HSwish
from bneck.graphs.quantization import LEAST_SCALE, STEPS, WEIGHT_LEVELS, Array, Ranges, settled
from bneck.nets.build import SIZE, WrappedNet
from bneck.nets.fold import folded_weights
from bneck.nets.quantize import Quantized, Weights, emulator
from bneck.specs.errors import InputError

LEAST_IMAGES = 8
SAMPLES = 1024  # values kept of every point and batch
FRACTIONS = np.linspace(1.0, 0.4, 25)  # of the largest value, tried as the range's end
FINEST = 4096.0  # of these a range is at least one of a convolution's largest product of input and weight


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """What rounding one layer alone does to the scores.

    `alone` is the root mean square of the change relative to that of the scores; `noise` the same of
    the layer's own output when everything before it is rounded too.
    """

    layer: str
    row: int
    alone: float
    noise: float


@torch.inference_mode()
def calibrate(net: WrappedNet, batches: Iterable[Tensor], hswish: HSwish) -> Quantized:
    """Post-training quantization: ranges that lose least on the activations of real images.

    Args:
        net: trained, whatever its task.
        batches: normalised images (N, channels, H, W), a few dozen in all.
        hswish: the form of h-swish, which decides what is rounded.

    Raises:
        InputError: fewer than 8 images, or all of one color.
    """
    weights = folded_weights(net)
    ranges = _observed(net, weights, batches, hswish).ranges()
    return _of(net, weights, ranges, hswish)


@torch.inference_mode()
def naive(net: WrappedNet, batches: Iterable[Tensor], hswish: HSwish) -> Quantized:
    """What not to do, for comparison: one scale a weight tensor, ranges out to the extremes."""
    weights = folded_weights(net)
    ends = _observed(net, weights, batches, hswish).extremes()
    coarse = {name: w if w.ndim == 1 else _one_step(w) for name, w in weights.items()}
    return _of(net, coarse, ends, hswish)


def _of(net: WrappedNet, weights: Weights, ranges: Ranges, hswish: HSwish) -> Quantized:
    walk, taps = list(net.wrapped.layers((SIZE, SIZE))), net.wrapped.feeds().values()
    return Quantized(weights=weights, ranges=settled(ranges, walk, hswish, taps), hswish=hswish)


def _one_step(weight: Array) -> Array:
    step = max(float(np.abs(weight).max()) / WEIGHT_LEVELS, LEAST_SCALE)
    return (np.rint(weight / step) * step).astype(np.float32)


def _observed(
    net: WrappedNet, weights: Weights, batches: Iterable[Tensor], hswish: HSwish
) -> _Samples:
    emulated = emulator(net, weights, hswish)
    samples = _Samples()
    emulated.observer, emulated.convolved = samples, samples.convolved
    images, low, high = 0, torch.tensor(float("inf")), torch.tensor(-float("inf"))
    for batch in batches:
        emulated(batch)
        images += len(batch)
        low, high = (
            torch.minimum(low, batch.amin((0, 2, 3))),
            torch.maximum(high, batch.amax((0, 2, 3))),
        )
    if images < LEAST_IMAGES:
        raise InputError(
            f"int8 is calibrated on at least {LEAST_IMAGES} images, and there {_are(images)} here; pass a "
            "folder of a few hundred with --data"
        )
    if torch.equal(low, high):
        raise InputError(
            f"all {images} images to calibrate int8 with are of one color, the same everywhere, which says "
            "nothing of the ranges inside the network; pass a folder of photos with --data"
        )
    return samples


def _are(images: int) -> str:
    return {0: "is none", 1: "is 1"}.get(images, f"are {images}")


@torch.inference_mode()
def layer_errors(net: WrappedNet, quantized: Quantized, images: Tensor) -> list[LayerError]:
    """Which layers lose the accuracy: each one rounded alone, the worst first."""
    emulated = emulator(net, quantized.weights, quantized.hswish, quantized.ranges)
    emulated.rounds = lambda name: False
    seen: dict[str, Tensor] = {}
    emulated.observer = seen.__setitem__
    scores = _flat(emulated(images))
    clean = dict(seen)
    emulated.rounds = None
    emulated(images)
    noisy, emulated.observer = dict(seen), None
    found = []
    for layer in emulated.wrapped.layers((images.shape[2], images.shape[3])):
        if layer.name not in clean:  # a gate, whose range is fixed, or one that is written in parts
            continue
        emulated.rounds = lambda name, wanted=layer.name: name == wanted
        alone = _relative(_flat(emulated(images)), scores)
        noise = _relative(noisy[layer.name], clean[layer.name])
        found.append(LayerError(layer=layer.name, row=layer.row, alone=alone, noise=noise))
    return sorted(found, key=lambda error: -error.alone)


def _flat(answer: Tensor | tuple[Tensor, ...]) -> Tensor:
    """All numbers of an answer, (N, numbers)."""
    parts = answer if isinstance(answer, tuple) else (answer,)
    return torch.cat([part.flatten(1) for part in parts], 1)


def _relative(found: Tensor, wanted: Tensor) -> float:
    size = wanted.square().mean().sqrt().clamp(min=1e-12)
    return float((found - wanted).square().mean().sqrt() / size)


class _Samples:
    """Values of every point, drawn as they pass, with the extremes.

    `products` are of each convolution the largest input times the largest weight.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[Array]] = {}
        self.ends: dict[str, tuple[float, float]] = {}
        self.products: dict[str, float] = {}

    def __call__(self, name: str, x: Tensor) -> None:
        flat = x.flatten()
        low, high = self.ends.get(name, (0.0, 0.0))
        self.ends[name] = (min(low, float(flat.min())), max(high, float(flat.max())))
        rng = np.random.default_rng(len(self.values.get(name, ())))
        chosen = torch.from_numpy(rng.integers(0, len(flat), min(SAMPLES, len(flat))))
        self.values.setdefault(name, []).append(flat[chosen].numpy())

    def convolved(self, name: str, x: Tensor, weight: Tensor) -> None:
        product = float(x.abs().max() * weight.abs().max())
        self.products[name] = max(product, self.products.get(name, 0.0))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The ranges that lose least."""
        drawn = self.values.items()
        found = {name: best_range(np.concatenate(v), *self.ends[name]) for name, v in drawn}
        return {name: self._open(name, *ends) for name, ends in found.items()}

    def extremes(self) -> dict[str, tuple[float, float]]:
        """The ranges that cut nothing off."""
        return {name: self._open(name, *ends) for name, ends in self.ends.items()}

    def _open(self, name: str, low: float, high: float) -> tuple[float, float]:
        """Not (almost) empty, as where all channels are dead: XNNPACK then writes beyond its buffers.

        It takes outputs whose step is down to 1/256 of the product of the steps of input and weight.
        """
        least = self.products.get(name.removesuffix(".pre"), 0.0) / FINEST
        return low, max(high, low + least)


def best_range(values: Array, low: float, high: float) -> tuple[float, float]:
    """The range inside low to high whose 8-bit rounding of `values` has the least squared error."""
    best, least = (low, high), float("inf")
    for part in FRACTIONS:
        for ends in ((low, high * part), (low * part, high), (low * part, high * part)):
            step = max((ends[1] - ends[0]) / STEPS, 1e-12)
            rounded = np.clip(np.rint(values / step) * step, *ends)
            error = float(np.square(rounded - values).mean())
            if error < least:
                best, least = ends, error
    return best
