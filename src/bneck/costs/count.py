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
    convolutions and linear layers, squeeze-and-excite's included (the count of Table 9). Activation
    memory is the largest sum of one operator's input, its output and a residual that waits to be
    added; nonlinearities work in place. `resolution` is the input's side, or (height, width), in
    pixels; None takes the spec's own.
    """
    return _count(layers(spec, resolution))


def count_whole(spec: NetSpec, wrapper: Wrapper) -> Count:
    """Count a network in its wrapper; activation memory leaves out maps that wait for a head."""
    return _count(wrapper.layers(spec))


def _count(walk: Iterable[Layer]) -> Count:
    rows = count_rows(walk)
    return Count(
        params=sum(row.params for row in rows), madds=sum(row.madds for row in rows),
        activation_bytes=max(row.activation_bytes for row in rows), rows=rows,
    )  # fmt: skip


def count_rows(walk: Iterable[Layer]) -> tuple[RowCount, ...]:
    """Count a walk row by row."""
    rows = []
    for index, group in groupby(walk, key=lambda layer: layer.row):
        row = list(group)
        rows.append(
            RowCount(
                row=index, size_in=row[0].size_in, width_in=row[0].width_in,
                params=sum(map(count_params, row)), madds=sum(map(count_madds, row)),
                activation_bytes=_peak(row),
            )
        )  # fmt: skip
    return tuple(rows)


def count_params(layer: Layer) -> int:
    """Learned numbers of one operator: weights, and per channel batch norm's two or a bias."""
    match layer.kind:
        case "pool":
            return 0
        case "squeeze":
            return _weights(layer) + layer.mid + layer.out
    return _weights(layer) + (2 if layer.bn else 1) * layer.out


def count_madds(layer: Layer) -> int:
    """Multiply-adds of one operator for one image."""
    # The convolutions of squeeze-and-excite work on one pixel, whatever the map's size.
    pixels = 1 if layer.kind == "squeeze" else layer.size_out[0] * layer.size_out[1]
    return _weights(layer) * pixels


def _weights(layer: Layer) -> int:
    """Weights without biases and batch norm."""
    match layer.kind:
        case "conv":
            return layer.width_in * layer.out * layer.kernel**2
        case "depthwise":
            return layer.out * layer.kernel**2
        case "squeeze":
            return 2 * layer.out * layer.mid
        case "pool":
            return 0


def count_elementwise(layer: Layer) -> int:
    """What Tables 6 to 8 add: 2 per number through h-swish, 1 per product of squeeze-and-excite."""
    numbers = _numbers(layer.size_out, layer.out)
    return numbers * (2 * (layer.act == "hswish") + (layer.kind == "squeeze"))


def _peak(row: list[Layer]) -> int:
    alive = [_numbers(x.size_in, x.width_in) + _numbers(x.size_out, x.out) for x in row]
    residual = _numbers(row[0].size_in, row[0].width_in) if row[-1].adds else 0
    # The first operator's input is the residual itself; it is not held twice.
    return max([alive[0], *(numbers + residual for numbers in alive[1:])]) * BYTES


def _numbers(size: tuple[int, int], width: int) -> int:
    return size[0] * size[1] * width
