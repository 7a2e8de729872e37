"""Boxes drawn on pictures, and many pictures on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours: most people tell them apart.
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a7500", "#000000",
)  # fmt: skip
HIT, MISSED, FALSE_ALARM = "#009e73", "#0072b2", "#d55e00"
SHEET_SIDE, SHEET_COLUMNS, GAP = 360, 4, 10
DASH = 6


@dataclass(frozen=True, slots=True)
class Mark:
    """A box to draw: corners in normalized coordinates, what to write at it, its colour."""

    box: Sequence[float]
    text: str
    colour: str
    dashed: bool = False


def with_boxes(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A copy of an RGB image with boxes and their names drawn on it; the first lie on top."""
    page = image.copy()
    draw = ImageDraw.Draw(page)
    line = max(1, round(min(page.size) / 200))
    font: Any = ImageFont.load_default(max(10, round(min(page.size) / 32)))
    ends = (page.width - 1, page.height - 1) * 2
    placed = [
        (mark, [round(at * end) for at, end in zip(mark.box, ends, strict=True)])
        for mark in reversed(marks)
    ]
    for mark, box in placed:
        if mark.dashed:
            _dashed(draw, box, mark.colour, line)
        else:
            draw.rectangle(box, outline=mark.colour, width=line)
    for mark, box in placed:  # after all boxes, whose lines would cross the words
        if mark.text:
            _label(draw, box, mark, font, page.width)
    return page


def sheet(
    tiles: Sequence[tuple[Image.Image, str]], legend: Sequence[tuple[str, str]]
) -> Image.Image:
    """Pictures with captions in four columns, and above them what colours mean: (text, colour)."""
    font: Any = ImageFont.load_default(15)
    columns = max(1, min(SHEET_COLUMNS, len(tiles)))
    small = [(_fitted(image), caption) for image, caption in tiles]
    rows = [small[i : i + columns] for i in range(0, len(small), columns)]
    heights = [max(image.height for image, _ in row) + 26 for row in rows]
    width = columns * (SHEET_SIDE + GAP) + GAP
    page = Image.new("RGB", (max(width, 420), sum(heights) + GAP * len(rows) + 40), "white")
    draw = ImageDraw.Draw(page)
    x = GAP
    for text, colour in legend:
        draw.rectangle((x, 12, x + 16, 28), outline=colour, width=3)
        draw.text((x + 22, 10), text, fill="black", font=font)
        x += 22 + round(draw.textlength(text, font=font)) + 24
    y = 40
    for row, height in zip(rows, heights, strict=True):
        for column, (image, caption) in enumerate(row):
            x = GAP + column * (SHEET_SIDE + GAP)
            page.paste(image, (x, y))
            draw.text((x, y + image.height + 3), caption, fill="black", font=font)
        y += height + GAP
    return page


def _fitted(image: Image.Image) -> Image.Image:
    scale = SHEET_SIDE / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _label(
    draw: ImageDraw.ImageDraw, box: Sequence[int], mark: Mark, font: Any, width: int
) -> None:
    """The name above a box, inside it where there is no room."""
    extent = draw.textbbox((0, 0), mark.text, font=font)
    wide, high = extent[2] + 4, extent[3] + 3
    x = max(0, min(box[0], width - round(wide)))
    y = box[1] - round(high) if box[1] >= high else box[1]
    draw.rectangle((x, y, x + wide, y + high), fill=mark.colour)
    draw.text((x + 2, y), mark.text, fill="white", font=font)


def _dashed(draw: ImageDraw.ImageDraw, box: Sequence[int], colour: str, line: int) -> None:
    left, top, right, bottom = box
    for x in range(left, right, 2 * DASH):
        for y in (top, bottom):
            draw.line((x, y, min(x + DASH, right), y), fill=colour, width=line)
    for y in range(top, bottom, 2 * DASH):
        for x in (left, right):
            draw.line((x, y, x, min(y + DASH, bottom)), fill=colour, width=line)
