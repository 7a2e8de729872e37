"""The report's drawings, as svg text. The only module that knows matplotlib, and it may be absent.

Colours are Okabe and Ito's, and every kind of point has a marker of its own, so that a drawing
reads without colour too.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from bneck.report.blocks import Picture
from bneck.report.cuts import RowCut
from bneck.report.numbers import ARROW, mean, ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, PAPER = "#333333", "#b9b9b9", "#ffffff"
BLUE, VERMILLION, ORANGE = "#0072B2", "#D55E00", "#E69F00"
MARKS = {"seed": ("s", INK), "found": ("o", BLUE), "uniform": ("^", VERMILLION)}
LABELS = {"seed": "seed network", "found": "found network", "uniform": "uniform width"}
FINALS = (
    "Final networks: measured latency (bar from the 10th to the 90th percentile) and top-1 on "
    "validation images after the final training (a dash for each training, a bar over their range)."
)
SEARCH = (
    "Search: estimated latency, and top-1 on held-out images after a short fine-tuning. Other "
    "images and other training than the final networks, so heights in the two panels do not "
    "compare."
)
WIDTHS = (
    "Widths in channels, from the image (top) to the classifier. Pale: the seed network. Solid: "
    "what the search left of it. Numbers with an arrow were changed; a bar with a gap is longer "
    "than drawn."
)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.size": 11.5,
    "text.color": INK,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": INK,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "figure.facecolor": PAPER,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.1,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 11.0,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: what it shows in words, and who draws it."""

    title: str
    description: str
    draw: Callable[[Axes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalPoint:
    """A network after its final trainings: `role` is a key of `MARKS`, latency is measured."""

    role: str
    latency_ms: float
    p10_ms: float
    p90_ms: float
    top1: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPath:
    """(estimated ms, held-out accuracy) of the seed, of the accepted steps and of all trials."""

    start: tuple[float, float] | None
    steps: tuple[tuple[float, float], ...]
    trials: tuple[tuple[float, float], ...]


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_tradeoff(
    finals: Sequence[FinalPoint], path: SearchPath | None, target_ms: float | None
) -> Picture | None:
    """Accuracy over latency: final networks in one panel, the search in another.

    The panels share no axis: they differ in images, in training, and in where latency is from.
    """
    panels = []
    if finals:
        panels.append(
            Panel(
                "After the final training",
                FINALS,
                lambda axes: _draw_finals(axes, finals, target_ms),
            )
        )
    if path is not None:
        panels.append(
            Panel("During the search", SEARCH, lambda axes: _draw_search(axes, path, target_ms))
        )
    if not panels:
        return None
    return _picture("report-tradeoff", "Accuracy over latency", panels, width=410, height=390)


def draw_widths(rows: Sequence[RowCut]) -> Picture:
    """Seed width and found width of every row as paired bars: expansions, and outputs."""
    labels = [f"{row.row}  {row.operator}" for row in rows]
    expanded, out = [row.expanded for row in rows], [row.out for row in rows]
    panels = [
        Panel("Expanded width (channels)", "", lambda axes: _draw_bars(axes, labels, expanded)),
        Panel("Output width (channels)", WIDTHS, lambda axes: _draw_bars(axes, labels, out)),
    ]
    title = "Widths of the seed network and of the found network, row by row"
    return _picture("report-widths", title, panels, width=410, height=60 + 21 * len(out))


def _draw_finals(axes: Axes, finals: Sequence[FinalPoint], target_ms: float | None) -> None:
    for point in finals:
        marker, colour = MARKS[point.role]
        top1 = 100 * np.asarray(point.top1)
        y = 100 * mean(point.top1)
        centre = point.latency_ms
        colours: dict[str, Any] = {"color": colour, "linewidth": 1.4}
        axes.plot([centre] * len(top1), top1, "-", **colours, zorder=3)
        axes.plot([centre] * len(top1), top1, "_", color=colour, markersize=11, zorder=3)
        axes.plot([point.p10_ms, point.p90_ms], [y, y], "-|", **colours, markersize=8, zorder=3)
        axes.plot(centre, y, marker, color=colour, markersize=9.5, markeredgecolor=PAPER,
                  markeredgewidth=1, zorder=4)  # fmt: skip
        axes.plot([], [], marker, color=colour, markersize=8, label=LABELS[point.role])
        axes.plot([point.latency_ms] * len(top1), top1, "_", color=colour, markersize=8, zorder=3)
    _draw_target(axes, target_ms)
    axes.margins(0.16, 0.2)
    _finish(axes, "measured latency (ms)", "top-1, validation images (%)")


def _draw_search(axes: Axes, path: SearchPath, target_ms: float | None) -> None:
    line = ([path.start] if path.start else []) + list(path.steps)
    trials = _without_strays(path.trials, line)
    if trials:
        strays = len(path.trials) - len(trials)
        x, y = _columns(trials)
        label = f"judged trial ({strays} lie below)" if strays else "judged trial"
        axes.plot(x, y, "x", color=FAINT, markersize=4, label=label, zorder=2)
    if path.steps:
        x, y = _columns(line)
        axes.plot(x, y, "-", color=ORANGE, linewidth=1.5, zorder=3)
        x, y = _columns(path.steps)
        axes.plot(x, y, "D", color=ORANGE, markersize=5.5, markeredgecolor=INK,
                  markeredgewidth=0.6, label="accepted step", zorder=4)  # fmt: skip
    if path.start:
        marker, colour = MARKS["seed"]
        axes.plot(*_columns([path.start]), marker, color=colour, markersize=8,
                  markeredgecolor=PAPER, label=LABELS["seed"], zorder=5)  # fmt: skip
    _draw_target(axes, target_ms)
    axes.margins(0.08, 0.1)
    _finish(axes, "estimated latency (ms)", "top-1, held-out images (%)")


def _without_strays(
    trials: Sequence[tuple[float, float]], line: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Leave out the few ruined trials that would flatten the picture."""
    kept = [accuracy for _, accuracy in line]
    if not kept:
        return list(trials)
    floor = min(kept) - max(0.03, 3 * (max(kept) - min(kept)))
    return [trial for trial in trials if trial[1] >= floor]


def _draw_target(axes: Axes, target_ms: float | None) -> None:
    if target_ms is not None:
        axes.axvline(
            target_ms, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1,
            label=f"target {ms(target_ms)} ms",
        )  # fmt: skip


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.locator_params(axis="x", nbins=6)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.17),
        ncols=2,
        columnspacing=1.6,
        handlelength=1.8,
    )


def _draw_bars(axes: Axes, labels: Sequence[str], widths: Sequence[tuple[int, int] | None]) -> None:
    """Paired bars. Widths that nothing changed may be cut off, so that the cuts can be seen."""
    pairs = [pair or (0, 0) for pair in widths]
    limit = 1.25 * max((max(pair) for pair in pairs if pair[0] != pair[1]), default=10**9)
    limit = min(limit, max(map(max, pairs)))
    for place, (before, after) in enumerate(pairs):
        if not before:
            axes.annotate("none", (0.01 * limit, place), va="center", fontsize=10, color="#8a8a8a")
            continue
        long, cut = max(before, after), before != after
        axes.barh(place, min(before, limit), height=0.74, color="#dfe3e6", edgecolor="#8a8a8a",
                  linewidth=0.7)  # fmt: skip
        axes.barh(place, min(after, limit), height=0.4, color=BLUE)
        if long > limit:
            gap = np.array([0.88, 0.91]) * limit
            axes.fill_betweenx([place - 0.5, place + 0.5], gap - 0.01 * limit, gap + 0.01 * limit,
                               color=PAPER, linewidth=0, zorder=5)  # fmt: skip
        axes.annotate(
            f"{before} {ARROW} {after}" if cut else f"{before}",
            (min(long, limit) + 0.02 * limit, place),
            va="center", fontsize=10.5, color=INK if cut else "#767676",
            fontweight="bold" if cut else "normal",
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels, fontsize=10.5)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * limit)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])


def _picture(name: str, title: str, panels: Sequence[Panel], *, width: int, height: int) -> Picture:
    singles = tuple(
        _inline(
            _svg([panel], width, height, f"{name}-{i}"),
            f"{name}-{i}",
            f"{title}: {panel.title}",
            panel.description,
        )
        for i, panel in enumerate(panels)
    )
    description = " ".join(panel.description for panel in panels).strip()
    whole = _svg(panels, width, height, name)
    titled = rf"\g<0><title>{html.escape(title)}</title>"
    whole = re.sub(r"<svg[^>]*>", titled, whole, count=1)
    return Picture(name=name, title=title, description=description, panels=singles, whole=whole)


def _svg(panels: Sequence[Panel], width: int, height: int, salt: str) -> str:
    """Panels side by side; the same numbers give the same text."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(width * len(panels) / 72, height / 72), layout="constrained")
        axes = np.atleast_1d(np.asarray(figure.subplots(1, len(panels)), dtype=object))
        for panel, place in zip(panels, axes, strict=True):
            place.set_title(panel.title)
            panel.draw(place)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    return file.getvalue()


def _inline(svg: str, name: str, title: str, description: str) -> str:
    """The svg for the middle of a page: no prologue, ids of its own, no rule that reaches out."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box
    label = html.escape(f"{title}. {description}".strip())
    opening = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" '
        f'{box[0]} role="img" aria-label="{label}" stroke-linejoin="round">'
        f"<title>{html.escape(title)}</title>"
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1).strip()


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Milliseconds and percent."""
    return [x for x, _ in points], [100 * y for _, y in points]
