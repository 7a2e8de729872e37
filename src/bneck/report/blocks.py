"""What a page is made of, and each of it as html and as Markdown."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bneck.report.numbers import ARROW, PLUS_MINUS
from bneck.report.tables import Table, html_table, html_text, markdown_table, markdown_text

# Spaces before a unit or sign, and after a sign.
_BOUND = re.compile(
    rf"(?<=\d) (?=[%{PLUS_MINUS}{ARROW}]|ms\b|points\b)|(?<=[{PLUS_MINUS}{ARROW}]) "
)

Tone = Literal["good", "bad", "even", "plain"]


@dataclass(frozen=True, slots=True)
class Heading:
    text: str  # the title of a section


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Plain sentences. A "lead" is set larger, a "note" smaller, a "warning" is framed."""

    text: str
    kind: Literal["lead", "text", "note", "warning"] = "text"


@dataclass(frozen=True, slots=True)
class Tile:
    """One number to see first; only html shows it, its sentence says the same."""

    label: str
    value: str
    remark: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Tiles:
    tiles: tuple[Tile, ...]  # side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawing as svg: `panels` one by one for html, `whole` for a file called `name`.svg.

    Panels of a `wide` one stand below each other and scroll on a phone.
    """

    name: str
    title: str
    description: str
    panels: tuple[str, ...]
    whole: str
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """A photo: its file in the run's folder, the JPEG itself, what it shows, and what is said of it."""

    file: str
    jpeg: bytes
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    photos: tuple[Shown, ...]  # side by side


@dataclass(frozen=True, slots=True)
class Beside:
    """A picture and a table next to each other where there is room, else one after the other."""

    picture: Picture
    table: Table


@dataclass(frozen=True, slots=True)
class Code:
    text: str  # copied as it stands


@dataclass(frozen=True, slots=True)
class Items:
    items: tuple[str, ...]  # of a list


Block: TypeAlias = Heading | Paragraph | Tiles | Picture | Beside | Gallery | Code | Items | Table


def html_block(block: Block) -> str:
    """One block as html."""
    match block:
        case Heading(text):
            return f"<h2>{html_text(text)}</h2>"
        case Paragraph(text, kind):
            return f'<p class="{kind}">{html_prose(text)}</p>'
        case Tiles(tiles):
            parts = [
                f'<div class="tile {tile.tone}"><div class="label">{html_text(tile.label)}</div>'
                f'<div class="value">{html_text(tile.value)}</div>'
                f'<div class="remark">{html_text(tile.remark)}</div></div>'
                for tile in tiles
            ]
            return f'<div class="tiles">{"".join(parts)}</div>'
        case Picture():
            panels = "".join(f'<div class="panel">{svg}</div>' for svg in block.panels)
            wide = " wide" if block.wide else ""
            return (
                f'<figure><div class="panels{wide}">{panels}</div>'
                f"<figcaption>{html_text(block.description)}</figcaption></figure>"
            )
        case Beside(picture, table):
            return f'<div class="beside">{html_block(picture)}{html_table(table)}</div>'
        case Gallery(photos):
            return f'<div class="gallery">{"".join(map(_html_photo, photos))}</div>'
        case Code(text):
            return f'<pre tabindex="0"><code>{html.escape(_storable(text))}</code></pre>'
        case Items(items):
            return f"<ul>{''.join(f'<li>{html_text(item)}</li>' for item in items)}</ul>"
        case Table():
            return html_table(block)


def markdown_block(block: Block) -> str:
    """One block in Markdown; "" for what only html shows."""
    match block:
        case Heading(text):
            return f"## {markdown_text(text)}"
        case Paragraph(text, kind):
            return f"> **{markdown_text(text)}**" if kind == "warning" else markdown_text(text)
        case Tiles():
            return ""
        case Picture():
            title, description = markdown_text(block.title), markdown_text(block.description)
            return f"![{title}]({block.name}.svg)\n\n{description}"
        case Beside(picture, table):
            return f"{markdown_block(picture)}\n\n{markdown_block(table)}"
        case Gallery(photos):
            said = [
                f"- ![{markdown_text(one.title)}]({one.file}) "
                + markdown_text("; ".join((one.title, *one.lines)))
                for one in photos
            ]
            return "\n".join(said)
        case Code(text):
            ticks = max((len(run) for run in re.findall("`+", text)), default=0)
            fence = "`" * max(3, ticks + 1)
            return f"{fence}text\n{_storable(text)}\n{fence}"
        case Items(items):
            return "\n".join(f"- {markdown_text(item)}" for item in items)
        case Table():
            return f"{markdown_text(block.title)}\n\n{markdown_table(block)}"


def _html_photo(one: Shown) -> str:
    title, said = html_text(one.title), "<br>".join(map(html_text, one.lines))
    data = base64.b64encode(one.jpeg).decode()
    return (
        f'<figure><img alt="{title}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption><b>{title}</b><br>{said}</figcaption></figure>"
    )


def html_prose(text: str) -> str:
    """Sentences as html; no line breaks between a number and its unit or sign."""
    return _BOUND.sub("&nbsp;", html_text(text))


def _storable(text: str) -> str:
    """Text that utf-8 can hold: a path may carry bytes that it cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
