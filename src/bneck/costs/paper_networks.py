"""Tables 1 and 2 as the paper prints them, to compare the zoo's networks with.

Columns: input side, operator, kernel, expansion, output, squeeze-and-excite, nonlinearity, stride.
NBN is a convolution without batch norm; "k" the number of classes; "-" nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool, squeeze_width

Cells: TypeAlias = tuple[str, ...]
COLUMNS = ("input", "operator", "kernel", "exp", "out", "SE", "NL", "s")
NAMES = {"hswish": "HS", "relu": "RE", "relu6": "R6", "linear": "-"}

_TABLE1 = """
224 conv2d 3  -   16 - HS 2
112 bneck  3 16   16 - RE 1
112 bneck  3 64   24 - RE 2
 56 bneck  3 72   24 - RE 1
 56 bneck  5 72   40 x RE 2
 28 bneck  5 120  40 x RE 1
 28 bneck  5 120  40 x RE 1
 28 bneck  3 240  80 - HS 2
 14 bneck  3 200  80 - HS 1
 14 bneck  3 184  80 - HS 1
 14 bneck  3 184  80 - HS 1
 14 bneck  3 480 112 x HS 1
 14 bneck  3 672 112 x HS 1
 14 bneck  5 672 160 x HS 2
  7 bneck  5 960 160 x HS 1
  7 bneck  5 960 160 x HS 1
  7 conv2d 1 -   960 - HS 1
  7 pool   7 -     - -  - 1
  1 NBN    1 -  1280 - HS 1
  1 NBN    1 -     k -  - 1
"""
_TABLE2 = """
224 conv2d 3  -   16 - HS 2
112 bneck  3 16   16 x RE 2
 56 bneck  3 72   24 - RE 2
 28 bneck  3 88   24 - RE 1
 28 bneck  5 96   40 x HS 2
 14 bneck  5 240  40 x HS 1
 14 bneck  5 240  40 x HS 1
 14 bneck  5 120  48 x HS 1
 14 bneck  5 144  48 x HS 1
 14 bneck  5 288  96 x HS 2
  7 bneck  5 576  96 x HS 1
  7 bneck  5 576  96 x HS 1
  7 conv2d 1 -   576 x HS 1
  7 pool   7 -     - -  - 1
  1 NBN    1 -  1024 - HS 1
  1 NBN    1 -     k -  - 1
"""


def _cells(text: str) -> tuple[Cells, ...]:
    return tuple(tuple(line.split()) for line in text.strip().splitlines())


@dataclass(frozen=True, slots=True)
class PrintedNetwork:
    """A network as its table prints it; `notes` say why ours differs in a row, by its index."""

    table: int
    network: str
    rows: tuple[Cells, ...]
    notes: dict[int, str]


_TICKED = (
    "the table ticks squeeze-and-excite here; with it the network has 2.71M parameters, "
    "the paper says 2.5M, and the authors' code has none"
)
PRINTED: dict[int, PrintedNetwork] = {
    1: PrintedNetwork(1, "v3-large", _cells(_TABLE1), {}),
    2: PrintedNetwork(2, "v3-small", _cells(_TABLE2), {12: _TICKED}),
}


def as_printed(spec: NetSpec, side: int = 224) -> tuple[Cells, ...]:
    """A network in the columns of Tables 1 and 2, its classifier as the last row.

    A squeeze-and-excite of another width than a quarter of the expansion is given by its width.
    """
    found: list[Cells] = []
    for row in spec.rows:
        if isinstance(row, Pool):
            found.append((str(side), "pool", str(side), "-", "-", "-", "-", "1"))
            side = 1
            continue
        expanded, squeeze = "-", "-"
        if isinstance(row, Bneck):
            operator, expanded = "fused" if row.fused else "bneck", str(row.expanded)
            if row.se:
                squeeze = "x" if row.se == squeeze_width(row.expanded) else str(row.se)
        else:
            operator = "conv2d" if row.bn else "NBN"
        kernel = row.kernels if isinstance(row, Bneck) else row.kernel
        cells = (kernel, expanded, row.out, squeeze, NAMES[row.act], row.stride)
        found.append((str(side), operator, *map(str, cells)))
        side = -(-side // row.stride)
    return (*found, ("1", "NBN", "1", "-", "k", "-", "-", "1"))
