"""Exact costs of a spec: parameters, multiply-adds, activation memory; per row and in total."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from bneck.specs.network import Layer, NetSpec, Size, layers
from bneck.specs.wrapper import Wrapper

BYTES = 4  # of one float32 number


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """Costs of one row: parameters, multiply-adds, and its peak of live activations in bytes."""

    row: int
    size_in: tuple[int, int]
    width_in: int
    params: int
    madds: int
    activation_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Costs of a network at batch 1; `activation_bytes` is the peak over its rows, float32."""

    params: int
    madds: int
    activation_bytes: int
    rows: tuple[RowCount, ...]


def count(spec: NetSpec, resolution: Size | None = None) -> Count:
    """Count a network.

    Parameters include biases and batch norm's scale and shift. Multiply-adds are those of
    convolutions and linear layers, squeeze-and-excite's included (the count behind Table 9).
    Activation memory is the largest sum of one operator's input, its output and a residual that
    waits to be added; nonlinearities work in place.

    Args:
        spec: the network.
        resolution: input side, or (height, width), in pixels; None takes the spec's own.
    """
    return _count(layers(spec, resolution))


def count_whole(spec: NetSpec, wrapper: Wrapper) -> Count:
    """Count a network with what surrounds it, row by row as `wrapper.layers` walks them.

    Activation memory is that of single rows; maps that wait for a head are left out.
    """
    return _count(wrapper.layers(spec))


def _count(walk: Iterable[Layer]) -> Count:
    rows = count_rows(walk)
    return Count(
        params=sum(row.params for row in rows),
        madds=sum(row.madds for row in rows),
        activation_bytes=max(row.activation_bytes for row in rows),
        rows=rows,
    )


def count_rows(walk: Iterable[Layer]) -> tuple[RowCount, ...]:
    """Count a walk row by row."""
    rows = []
    for index, group in groupby(walk, key=lambda layer: layer.row):
        row = list(group)
        rows.append(
            RowCount(
                row=index,
                size_in=row[0].size_in,
                width_in=row[0].width_in,
                params=sum(map(count_params, row)),
                madds=sum(map(count_madds, row)),
                activation_bytes=_peak(row),
            )
        )
    return tuple(rows)


def count_params(layer: Layer) -> int:
    """Learned numbers of one operator: weights, and batch norm's two or a bias a channel."""
    match layer.kind:
        case "conv":
            weights = layer.width_in * layer.out * layer.kernel**2
        case "depthwise":
            weights = layer.out * layer.kernel**2
        case "squeeze":
            return 2 * layer.out * layer.mid + layer.mid + layer.out
        case "pool":
            return 0
    return weights + (2 if layer.bn else 1) * layer.out


def count_madds(layer: Layer) -> int:
    """Multiply-adds of one operator for one image."""
    pixels = layer.size_out[0] * layer.size_out[1]
    match layer.kind:
        case "conv":
            return layer.width_in * layer.out * layer.kernel**2 * pixels
        case "depthwise":
            return layer.out * layer.kernel**2 * pixels
        case "squeeze":
            return 2 * layer.out * layer.mid
        case "pool":
            return 0


def count_elementwise(layer: Layer) -> int:
    """What Tables 6 to 8 add: 2 per number through h-swish, 1 per product of squeeze-and-excite."""
    numbers = _numbers(layer.size_out, layer.out)
    return numbers * (2 * (layer.act == "hswish") + (layer.kind == "squeeze"))


def _peak(row: list[Layer]) -> int:
    held = _numbers(row[0].size_in, row[0].width_in) if row[-1].adds else 0
    peak = 0
    for layer in row:
        alive = _numbers(layer.size_in, layer.width_in) + _numbers(layer.size_out, layer.out)
        # The first operator's input is the residual itself; it is not held twice.
        peak = max(peak, alive + (held if layer is not row[0] else 0))
    return peak * BYTES


def _numbers(size: tuple[int, int], width: int) -> int:
    return size[0] * size[1] * width
