"""Points over two axes as svg: written here, so that every point can say what it is when touched.

Colours come from the page's style (light and dark); hollow marks are the paper's, full ones ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bneck.report.blocks import Picture
from bneck.report.tables import html_text

WIDTH, HEIGHT = 480, 330  # of the plot with its axes, in units of which a phone shows 350
LEFT, RIGHT, TOP, BOTTOM = 68, 14, 26, 44
LETTER, LINE = 7.0, 17  # width of a letter and height of a line of text, about
MARK = 5.0
COLOURS = 8
REACHED = 40  # points of a series that the keyboard reaches

Box = tuple[float, float, float, float]  # left, top, right, bottom
Mark: TypeAlias = Literal["circle", "square", "triangle", "diamond", "cross"]

CHART_STYLE = """\
.chart { color: var(--ink, #22262a); font: 13px system-ui, "Segoe UI", Roboto, sans-serif; }
.chart text { fill: currentColor; }
.chart .quiet { fill: var(--soft, #5d656d); }
.chart .name { font-size: 11.5px; fill: var(--soft, #5d656d); }
.chart .bold { font-weight: 650; }
.chart .grid { stroke: var(--line, #e3e5e7); stroke-width: 1; fill: none; }
.chart .axis { stroke: var(--soft, #8a8a8a); stroke-width: 1; fill: none; }
.chart .mark { stroke: currentColor; stroke-width: 1.7; fill: currentColor; }
.chart .hollow .mark { fill: var(--paper, #fff); }
.chart .join { stroke: currentColor; stroke-width: 1.4; fill: none; opacity: 0.75; }
.chart .hollow .join { stroke-dasharray: 4 3; }
.chart .range { stroke: currentColor; stroke-width: 1.2; fill: none; }
.chart .touch { fill: transparent; stroke: none; }
.chart .point:hover .mark, .chart .point:focus .mark { stroke-width: 3.5; }
.chart .point:focus { outline: none; }
.c0 { color: #0072b2; } .c1 { color: #c04e00; } .c2 { color: #00805c; } .c3 { color: #b3568d; }
.c4 { color: #9a6b00; } .c5 { color: #4a5560; } .c6 { color: #5b4bb7; } .c7 { color: #9aa2a9; }
@media screen and (prefers-color-scheme: dark) {
  .c0 { color: #56b4e9; } .c1 { color: #f08a4b; } .c2 { color: #3fc79a; } .c3 { color: #e58fc2; }
  .c4 { color: #e6b93f; } .c5 { color: #aab4bd; } .c6 { color: #a99cf5; } .c7 { color: #6d767e; }
}
"""
# A drawing in a file of its own has no page to take its colours from.
_ALONE = """\
:root { --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181b; --ink: #e4e7ea; --soft: #9ca5ae; --line: #2d3338; --tint: #1e2327; }
}
.sheet { fill: var(--paper); }
"""


@dataclass(frozen=True, slots=True)
class Point:
    """A place, what it is, and its spread along x where that is known."""

    x: float
    y: float
    label: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one kind; without a name it has no place in the legend.

    `named` writes the points' labels next to them as far as there is room.
    """

    name: str
    points: tuple[Point, ...]
    colour: int = 0
    mark: Mark = "circle"
    hollow: bool = False
    joined: bool = False
    named: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture of series over two axes, each linear or logarithmic; `lines` are x values marked."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    note: str = ""
    log_x: bool = False
    log_y: bool = False
    lines: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Axis:
    """From values to units of the picture."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        into: Callable[[float], float] = math.log if self.log else float
        share = (into(value) - into(self.low)) / (into(self.high) - into(self.low))
        return self.start + share * (self.end - self.start)

    def inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self) -> list[float]:
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
            coarse, middle = (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)
            for steps in (coarse, middle, (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4)):
                found = [s * 10.0**e for e in exponents for s in steps]
                inside = [v for v in found if self.low <= v <= self.high]
                if len(inside) >= 4:
                    break
            return inside
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * s for s in (1, 2, 2.5, 5, 10) if power * s >= 0.999 * rough)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def svg_file(title: str, body: str, *, size: tuple[float, float], kind: str, style: str) -> str:
    """A drawing as a file of its own, in which it follows the reader's light or dark.

    `size` is (width, height) in units of the drawing; `kind` is the class that `style` speaks of.
    """
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {size[0]} {size[1]}" class="{kind}" role="img">'
        f"<title>{html_text(title)}</title><style>{style}{_ALONE}</style>"
        f'<rect class="sheet" width="100%" height="100%"/>{body}</svg>\n'
    )


def draw_charts(name: str, title: str, charts: Sequence[Chart]) -> Picture:
    """Charts side by side for a page and for a file of their own."""
    bodies = ["".join(_body(chart)) for chart in charts]
    heights = [HEIGHT + 4 + LINE * len(_legend_lines(chart)) for chart in charts]
    panels = tuple(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" class="chart" role="img" '
        f'aria-label="{html_text(f"{title}: {chart.title}")}">{body}</svg>'
        for chart, body, height in zip(charts, bodies, heights, strict=True)
    )
    row = "".join(
        f'<g transform="translate({WIDTH * i} 0)">{body}</g>' for i, body in enumerate(bodies)
    )
    size = WIDTH * len(charts), max(heights)
    whole = svg_file(title, row, size=size, kind="chart", style=CHART_STYLE)
    notes = [chart.note for chart in charts if chart.note]
    if len(notes) > 1:
        notes = [f"{chart.title}: {chart.note.rstrip('.')}." for chart in charts if chart.note]
    return Picture(name=name, title=title, description=" ".join(notes), panels=panels, whole=whole)


def _body(chart: Chart) -> Iterator[str]:
    points = [point for series in chart.series for point in series.points]
    xs, ys = [point.x for point in points], [point.y for point in points]
    x = _Axis(*_room(xs or [1.0, 2.0], chart.log_x), LEFT, WIDTH - RIGHT, chart.log_x)
    y = _Axis(*_room(ys or [1.0, 2.0], chart.log_y), HEIGHT - BOTTOM, TOP, chart.log_y)
    yield f'<text x="8" y="14" class="bold">{html_text(chart.title)}</text>'
    yield from _frame(chart, x, y)
    for value, label in chart.lines:
        if x.low <= value <= x.high:
            place = x.at(value)
            yield (
                f'<path class="axis" stroke-dasharray="5 3" d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
                f'<text class="name" x="{place + 4:.1f}" y="{TOP + 10}">{html_text(label)}</text>'
            )
    for series in chart.series:
        yield _series(series, x, y)
    yield from _names(chart.series, x, y)
    yield from _legend(chart)


def _frame(chart: Chart, x: _Axis, y: _Axis) -> Iterator[str]:
    floor = HEIGHT - BOTTOM
    for value in y.ticks():
        place = y.at(value)
        yield f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 6, place + 4, _tick(value), "quiet", "end")
    last = -math.inf
    for value in x.ticks():
        place, text = x.at(value), _tick(value)
        yield f'<path class="grid" d="M{place:.1f} {TOP}V{floor}"/>'
        if place - last > LETTER * len(text) + 10:
            yield _text(place, floor + 16, text, "quiet", "middle")
            last = place
    yield f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}"/>'
    yield _text((LEFT + WIDTH - RIGHT) / 2, floor + 35, chart.x, "", "middle")
    middle = (TOP + floor) / 2
    yield (
        f'<text transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{html_text(chart.y)}</text>"
    )


def _series(series: Series, x: _Axis, y: _Axis) -> str:
    parts = [_group(series)]
    if series.joined and len(series.points) > 1:
        path = "L".join(f"{x.at(p.x):.1f} {y.at(p.y):.1f}" for p in series.points)
        parts.append(f'<path class="join" d="M{path}"/>')
    reach = ' tabindex="0"' if len(series.points) <= REACHED else ""
    for point in series.points:
        at = x.at(point.x), y.at(point.y)
        bar = ""
        if point.low is not None and point.high is not None:
            low, high = (x.at(x.inside(end)) for end in (point.low, point.high))
            bar = f'<path class="range" d="M{low:.1f} {at[1]:.1f}H{high:.1f}"/>'
        parts.append(
            f'<g class="point"{reach}><title>{html_text(point.label)}</title>{bar}'
            f'<path class="mark" d="{_mark(series.mark, *at)}"/>'
            f'<circle class="touch" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="10"/></g>'
        )
    return "".join([*parts, "</g>"])


def _mark(mark: Mark, x: float, y: float) -> str:
    r = MARK
    match mark:
        case "circle":
            return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
        case "square":
            s = 0.88 * r
            return f"M{x - s:.1f} {y - s:.1f}h{2 * s}v{2 * s}h{-2 * s}z"
        case "triangle":
            return f"M{x:.1f} {y - 1.15 * r:.1f}l{1.1 * r:.2f} {1.95 * r:.2f}h{-2.2 * r:.2f}z"
        case "diamond":
            s = 1.2 * r
            return f"M{x:.1f} {y - s:.1f}l{s} {s}l{-s} {s}l{-s} {-s}z"
        case "cross":
            s = 0.7 * r
            way = f"l{2 * s:.1f} {2 * s:.1f}m0 {-2 * s:.1f}l{-2 * s:.1f} {2 * s:.1f}"
            return f"M{x - s:.1f} {y - s:.1f}{way}"


def _names(series: Sequence[Series], x: _Axis, y: _Axis) -> Iterator[str]:
    """Labels next to their points, each where it covers nothing, or nowhere."""
    taken = []
    for point in (point for one in series for point in one.points):
        low, high = (
            x.at(x.inside(point.x if end is None else end)) for end in (point.low, point.high)
        )
        taken.append((low - MARK, y.at(point.y) - MARK, high + MARK, y.at(point.y) + MARK))
    for point in (point for one in series if one.named for point in one.points):
        text = point.label.partition(":")[0]
        wide, px, py = 0.93 * LETTER * len(text), x.at(point.x), y.at(point.y)
        for left, base in (
            (px + 8, py + 4), (px - 8 - wide, py + 4), (px - wide / 2, py - 9),
            (px - wide / 2, py + 18), (px + 7, py - 7), (px + 7, py + 15),
            (px - 7 - wide, py - 7), (px - 7 - wide, py + 15),
        ):  # fmt: skip
            box = (left, base - 9, left + wide, base + 2)
            fits = (
                box[0] > LEFT and box[1] > TOP and box[2] < WIDTH - 2 and box[3] < HEIGHT - BOTTOM
            )
            if fits and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                yield _text(left, base, text, "name", "start")
                break


def _legend_lines(chart: Chart) -> list[list[Series]]:
    lines: list[list[Series]] = []
    room = 0.0
    for series in chart.series:
        wide = 34 + LETTER * len(series.name)
        if not series.name:
            continue
        if not lines or wide > room:
            lines.append([])
            room = WIDTH - 16.0
        lines[-1].append(series)
        room -= wide
    return lines


def _legend(chart: Chart) -> Iterator[str]:
    for number, line in enumerate(_legend_lines(chart)):
        x, y = 14.0, HEIGHT + 8 + LINE * number
        for series in line:
            yield f'{_group(series)}<path class="mark" d="{_mark(series.mark, x, y - 4)}"/></g>'
            yield _text(x + 12, y, series.name, "quiet", "start")
            x += 34 + LETTER * len(series.name)


def _group(series: Series) -> str:
    return f'<g class="c{series.colour % COLOURS}{" hollow" if series.hollow else ""}">'


def _room(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Limits with a margin around the values."""
    low, high = min(values), max(values)
    into: Callable[[float], float] = math.log if log else float
    back: Callable[[float], float] = math.exp if log else float
    margin = 0.07 * (into(high) - into(low)) or (0.1 if log else 0.1 * abs(high) or 1.0)
    least = into(low) - margin
    if not log and low >= 0:
        least = max(least, 0.0)
    return back(least), back(into(high) + margin)


def _tick(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e-9 or abs(value) >= 1e-3 else f"{value:.0e}"


def _text(x: float, y: float, text: str, name: str, anchor: str) -> str:
    kind = f' class="{name}"' if name else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}{place}>{html_text(text)}</text>'


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
