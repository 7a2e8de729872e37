"""A network drawn as a row of blocks: width, kernel, squeeze-and-excite and nonlinearity to see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bneck.costs.count import count
from bneck.report.blocks import Picture
from bneck.report.scatter import CHART_STYLE, svg_file
from bneck.report.tables import html_text
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool, Row, operator_words

STEP, BAR = 31, 22  # units from block to block, and a block's breadth
TALLEST, FLOOR, HEIGHT = 92, 134, 182  # of the widest block; the line blocks stand on; of a network
LEFT = 10
SCALE = 1.12  # pixels a unit on a page
COLOUR = {"relu": 1, "relu6": 4, "hswish": 0, "linear": 5}
NAMES = {"relu": "ReLU", "relu6": "ReLU6", "hswish": "h-swish", "linear": "linear"}
NOTE = (
    "From the image (left) to the classifier; height grows with the square root of the width. Full bars are "
    "expansions, frames inside them outputs; the number in a bar is the kernel (3+5: 3 before the expansion), "
    "above it the expansion, below it the output. A ring is squeeze-and-excite, a dashed line a halved map, a "
    "+ a residual."
)

NETWORK_STYLE = """\
.network { font: 11px system-ui, "Segoe UI", Roboto, sans-serif; color: var(--ink, #22262a); }
.network text { fill: currentColor; text-anchor: middle; }
.network .start { text-anchor: start; }
.network .quiet { fill: var(--soft, #5d656d); font-size: 10px; }
.network .title { font-weight: 650; font-size: 13px; text-anchor: start; }
.network .mark { fill: currentColor; stroke: none; }
.network .conv .mark { fill: var(--paper, #fff); stroke: currentColor; stroke-width: 2; }
.network .inner { fill: none; stroke: #fff; stroke-width: 1.2; opacity: 0.85; }
.network text.in { fill: #fff; font-weight: 650; }
.network text.both { font-size: 9px; }
.network .conv text.in { fill: currentColor; }
.network .ring { fill: none; stroke: currentColor; stroke-width: 2.2; }
.network .down { stroke: var(--soft, #8a8a8a); stroke-dasharray: 2 3; fill: none; }
.network .floor { stroke: var(--line, #e3e5e7); fill: none; }
.network .ground { fill: var(--tint, #f1f2f4); }
.network .changed { stroke: var(--bad, #b34700); stroke-width: 3; }
.network .point:hover .mark { stroke: var(--ink, #22262a); stroke-width: 2; }
.network .point:focus { outline: none; }
.network .point:focus .mark { stroke: var(--ink, #22262a); stroke-width: 2; }
@media screen and (prefers-color-scheme: dark) {
  .network text.in { fill: #15181b; } .network .inner { stroke: #15181b; }
  .network .conv text.in { fill: currentColor; }
}
"""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A network to draw, what to call it, and the indexes of rows to mark as changed.

    `whole` is (parameters, multiply-adds) with what a task puts round it; None counts the network.
    """

    title: str
    spec: NetSpec
    changed: frozenset[int] = frozenset()
    whole: tuple[int, int] | None = None


def draw_networks(name: str, title: str, networks: Sequence[Drawn]) -> Picture:
    """Networks one below the other, all on one scale. Marked rows stand on a coloured ground."""
    widest = max(_width(row) for drawn in networks for row in drawn.spec.rows)
    wide = max(_extent(drawn.spec) for drawn in networks)
    bodies = ["".join(_network(drawn, widest)) for drawn in networks]
    panels = tuple(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {HEIGHT}" class="network" '
        f'style="width:{round(SCALE * wide)}px" role="img" aria-label="{html_text(drawn.title)}">{body}</svg>'
        for drawn, body in zip(networks, bodies, strict=True)
    )
    stack = "".join(
        f'<g transform="translate(0 {HEIGHT * i})">{body}</g>' for i, body in enumerate(bodies)
    )
    colours = CHART_STYLE[CHART_STYLE.index(".c0") :]
    size = wide, HEIGHT * len(networks)
    whole = svg_file(title, stack, size=size, kind="network", style=colours + NETWORK_STYLE)
    return Picture(name=name, title=title, description=NOTE, panels=panels, whole=whole, wide=True)


def _network(drawn: Drawn, widest: int) -> Iterator[str]:
    spec, costs = drawn.spec, count(drawn.spec)
    params, madds = drawn.whole or (costs.params, costs.madds)
    acts = dict.fromkeys(row.act for row in spec.rows if not isinstance(row, Pool))
    yield (
        f'<text class="title" x="{LEFT}" y="14">{html_text(drawn.title)}</text>'
        f'<text class="quiet start" x="{LEFT}" y="28">{madds / 1e6:.1f}M multiply-adds, '
        f"{params / 1e6:.2f}M parameters, {spec.resolution} px</text>"
    )
    x = float(_extent(spec))
    for act in reversed(acts):
        x -= 14 + 6.2 * len(NAMES[act])
        yield (
            f'<g class="c{COLOUR[act]}"><path class="mark" d="M{x:.0f} 6h9v9h-9z"/></g>'
            f'<text class="quiet start" x="{x + 12:.0f}" y="14">{NAMES[act]}</text>'
        )
    yield f'<path class="floor" d="M{LEFT} {FLOOR}H{_extent(spec) - LEFT}"/>'
    side = spec.resolution
    for i, row in enumerate(spec.rows):
        cost = costs.rows[i]
        left = LEFT + STEP * i + (STEP - BAR) / 2
        if not isinstance(row, Pool) and row.stride == 2:
            side = -(-side // 2)
            edge = LEFT + STEP * i
            yield (
                f'<path class="down" d="M{edge} 36V{FLOOR + 26}"/>'
                f'<text class="quiet start" x="{edge + 3}" y="{FLOOR + 38}">{side}\u00b2</text>'
            )
        words = f"row {i}: {_words(spec, i)}; {cost.madds / 1e6:.2f}M multiply-adds, {cost.params:,} parameters"
        yield from _block(row, left, widest, words, i in drawn.changed, spec.has_skip(i))


def _block(
    row: Row, left: float, widest: int, words: str, changed: bool, skip: bool
) -> Iterator[str]:
    middle, foot = left + BAR / 2, FLOOR + 13
    ground = (
        f'<path class="ground" d="M{left - 4:.1f} 36h{BAR + 8}V{FLOOR + 18}h-{BAR + 8}z"/>'
        f'<path class="changed" d="M{left - 3:.1f} {FLOOR + 18}h{BAR + 6}"/>'
    )
    yield f'<g class="point" tabindex="0"><title>{html_text(words)}</title>{ground * changed}'
    if isinstance(row, Pool):
        yield (
            f'<g class="c7"><path class="mark" d="M{left:.1f} {FLOOR}h{BAR}l{-BAR / 2} -16z"/></g>'
            f'<text class="quiet" x="{middle:.1f}" y="{foot}">pool</text></g>'
        )
        return
    tall = _tall(_width(row), widest)
    yield (
        f'<g class="c{COLOUR[row.act]} {row.op}">'
        f'<path class="mark" d="M{left:.1f} {FLOOR - tall:.1f}h{BAR}v{tall:.1f}h-{BAR}z"/>'
    )
    above, kernel = "", str(row.kernel)
    if isinstance(row, Bneck):
        kernel = row.kernels
        low = _tall(row.out, widest)
        yield f'<path class="inner" d="M{left + 3:.1f} {FLOOR}v-{low:.1f}h{BAR - 6}v{low:.1f}"/>'
        if row.se:
            yield f'<circle class="ring" cx="{middle:.1f}" cy="{FLOOR - tall - 19:.1f}" r="4.5"/>'
        above = (
            f'<text class="quiet" x="{middle:.1f}" y="{FLOOR - tall - 4:.1f}">{row.expanded}</text>'
        )
    small = " both" if len(kernel) > 2 else ""
    yield f'<text class="in{small}" x="{middle:.1f}" y="{FLOOR - 5}">{kernel}</text></g>{above}'
    yield f'<text class="quiet" x="{middle:.1f}" y="{foot}">{row.out}{"+" * skip}</text></g>'


def _words(spec: NetSpec, index: int) -> str:
    row = spec.rows[index]
    if isinstance(row, Pool):
        return "global average pool"
    words = [operator_words(row)]
    words += [f"expansion {row.expanded}"] if isinstance(row, Bneck) else []
    words += [f"output {row.out}"]
    words += [f"squeeze {row.se}"] if isinstance(row, Bneck) and row.se else []
    words += [NAMES[row.act], f"stride {row.stride}"]
    return ", ".join(words + ["residual"] * spec.has_skip(index))


def _extent(spec: NetSpec) -> int:
    return 2 * LEFT + STEP * len(spec.rows)


def _width(row: Row) -> int:
    if isinstance(row, Pool):
        return 0
    return max(row.expanded, row.out) if isinstance(row, Bneck) else row.out


def _tall(width: int, widest: int) -> float:
    return max(14.0, (TALLEST - 26) * math.sqrt(width / widest))
