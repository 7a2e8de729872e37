"""Record the first two commands of a newcomer in a terminal, and draw the recording as a moving svg.

    python scripts/terminal_strip.py record SESSION.cast     `bneck search`, then the command it names as next
    python scripts/terminal_strip.py saved OUTPUT.log SESSION.cast COMMAND      what a command wrote into a file
    python scripts/terminal_strip.py draw SESSION.cast docs/pictures/terminal.svg

The recording is an asciicast (version 2), which asciinema also plays. It takes about six minutes on two
cores, and the run stays next to it. Nothing in it is edited. The drawing shows it faster, with as many
pictures of each command; without CSS animations, or for a reader who wants none, it shows the last one.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI

COLUMNS, ROWS = 88, 26
FRAMES, FRAME_S, LAST_S = (
    28,
    0.6,
    8.0,
)  # pictures per command, how long each is shown, and the last one
ADVANCE, LINE, SIDE, HEAD = (
    8.4,
    19,
    14,
    38,
)  # pixels: a character, a line, the margin, the title bar
CODE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")
Cell = tuple[str, Style]


class Screen:
    """What a terminal shows after some output: the codes that Rich writes, and no others."""

    def __init__(self) -> None:
        self.lines: list[list[Cell]] = [[]]
        self._row = self._column = 0
        self._colors = AnsiDecoder()

    def feed(self, output: str) -> None:
        """Go on with more output."""
        for found in CODE.finditer(output):
            numbers, code, home, down, text = found.groups()
            if text:
                self._write(text)
            elif home:
                self._column = 0
            elif down:
                self._row += 1
                while len(self.lines) <= self._row:
                    self.lines.append([])
            elif code == "m":
                list(self._colors.decode(found[0]))
            elif code == "A":
                self._row -= int(numbers or 1)
            elif code == "K":
                self.lines[self._row] = []

    def _write(self, text: str) -> None:
        line = self.lines[self._row]
        line += [(" ", Style())] * (self._column - len(line))
        line[self._column : self._column + len(text)] = [(c, self._colors.style) for c in text]
        self._column += len(text)

    def shown(self) -> list[list[Cell]]:
        """The last lines, as many as fit, without empty ones at the end."""
        lines = [list(line) for line in self.lines]
        while lines and not "".join(c for c, _ in lines[-1]).strip():
            lines.pop()
        return lines[-ROWS:]


def record(cast: Path) -> None:
    """Run both commands in a terminal, in the recording's folder, and keep what they write and when."""
    with cast.open("w", encoding="utf-8") as file:
        json.dump({"version": 2, "width": COLUMNS, "height": ROWS, "title": "bneck"}, file)
        started, command, said = time.monotonic(), "bneck search", ""
        for _ in range(2):
            for output in typed(command, cast.parent):
                said += output
                file.write("\n" + json.dumps([round(time.monotonic() - started, 2), "o", output]))
            command = re.findall(r"^next:  (.+?)\r?$", said, re.MULTILINE)[-1]
        file.write("\n")


def saved(log: Path, cast: Path, command: str) -> None:
    """A recording of output that was saved in a file, its lines broken as on the terminal; without times."""
    events = [_prompt(command)]
    for line in log.read_text(encoding="utf-8").splitlines():
        file = io.StringIO()
        Console(file=file, width=COLUMNS).print(line, markup=False, highlight=False, emoji=False)
        events.append(file.getvalue().replace("\n", "\r\n"))
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "bneck"}
    lines = [header, *([0, "o", output] for output in events)]
    cast.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")


def typed(command: str, folder: Path) -> Iterator[str]:
    """The prompt with the command, then what it writes, piece by piece."""
    yield _prompt(command)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "bneck", *command.split()[1:]], stdout=theirs, stderr=theirs, stdin=theirs,
        cwd=folder, env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
    )  # fmt: skip
    os.close(theirs)
    rest = b""
    try:
        while part := os.read(ours, 65536):
            whole, rest = _characters(rest + part)
            yield whole
    except OSError:  # the command has ended
        pass
    if process.wait():
        sys.exit(f"{command} ended with exit code {process.returncode}")


def draw(cast: Path, svg: Path) -> None:
    """The recording as a svg that moves."""
    events = [json.loads(line) for line in cast.read_text(encoding="utf-8").splitlines()[1:]]
    frames = list(sampled(events))
    lines: dict[str, str] = {}  # every line is drawn once, and used in many pictures
    pictures, moving, at_s = [], [], 0.0
    whole_s = FRAME_S * (len(frames) - 1) + LAST_S
    for number, shown in enumerate(frames):
        used = [
            f'<use href="#{lines.setdefault(drawn, f"l{len(lines)}")}" y="{HEAD + LINE * (i + 1)}"/>'
            for i, line in enumerate(shown)
            if (drawn := "".join(_runs(line)))
        ]
        pictures.append(f'<g class="f" id="f{number}">{"".join(used)}</g>')
        last = number == len(frames) - 1
        start, end = 100 * at_s / whole_s, 100 if last else 100 * (at_s + FRAME_S) / whole_s
        moving.append(
            f"@keyframes k{number}{{0%{{visibility:{'hidden' if number else 'visible'}}}"
            f"{start:.2f}%{{visibility:visible}}"
            + ("" if last else f"{end:.2f}%{{visibility:hidden}}100%{{visibility:hidden}}")
            + f"}}#f{number}{{animation:k{number} {whole_s:.1f}s step-end infinite}}"
        )
        at_s += FRAME_S
    width, height = round(COLUMNS * ADVANCE + 2 * SIDE), HEAD + LINE * ROWS + SIDE
    defined = "".join(f'<g id="{name}">{drawn}</g>' for drawn, name in lines.items())
    svg.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="A terminal: bneck search and bneck ship">'
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "fill:#d9d9d9;white-space:pre}.t{text-anchor:middle;fill:#8f98a3}.b{font-weight:bold}.d{opacity:.65}"
        f".f{{visibility:hidden}}#f{len(frames) - 1}{{visibility:visible}}"
        f"@media (prefers-reduced-motion:no-preference){{{''.join(moving)}}}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="#1c2128" stroke="#444c56"/>'
        '<circle cx="20" cy="19" r="5" fill="#ff5f57"/><circle cx="38" cy="19" r="5" fill="#febc2e"/>'
        f'<circle cx="56" cy="19" r="5" fill="#28c840"/><text x="50%" y="24" class="t">bneck</text>'
        f"<defs>{defined}</defs>{''.join(pictures)}</svg>\n",
        encoding="utf-8",
    )


def sampled(events: list[tuple[float, str, str]]) -> Iterator[list[list[Cell]]]:
    """Screens that divide each command's output evenly, without repeats."""
    screen, before = Screen(), None
    prompts = [i for i, (_, _, text) in enumerate(events) if text.startswith("\x1b[32m$")]
    for first, end in zip(prompts, [*prompts[1:], len(events)], strict=True):
        for number in range(first, end):
            screen.feed(events[number][2])
            ends = FRAMES * (number + 1 - first) // (end - first)
            if number == first or ends > FRAMES * (number - first) // (end - first):
                shown = screen.shown()
                if shown != before:
                    yield shown
                before = shown


def _prompt(command: str) -> str:
    typed = command.replace("\n", "\r\n")
    return f"\x1b[32m$\x1b[0m \x1b[1m{typed}\x1b[0m\r\n"


def _runs(line: list[Cell]) -> Iterator[str]:
    """The stretches of one style, each as wide as its characters are in a terminal, whatever the font."""
    column = 0
    for style, cells in groupby(line, key=lambda cell: cell[1]):
        text = "".join(character for character, _ in cells)
        if text.strip():
            names = " ".join(n for n, on in (("b", style.bold), ("d", style.dim)) if on)
            color = style.color.get_truecolor(MONOKAI).hex if style.color else ""
            yield (
                f'<text x="{SIDE + column * ADVANCE:.1f}" textLength="{len(text) * ADVANCE:.1f}"'
                + (f' class="{names}"' if names else "")
                + (f' style="fill:{color}"' if color else "")
                + f">{escape(text, quote=False)}</text>"
            )
        column += len(text)


def _characters(data: bytes) -> tuple[str, bytes]:
    """Whole characters, and the bytes of one that is not complete yet."""
    for cut in range(4):
        try:
            return data[: len(data) - cut].decode(), data[len(data) - cut :]
        except UnicodeDecodeError:
            continue
    raise ValueError("the terminal's output is not UTF-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", cast]:
            record(Path(cast))
        case ["saved", log, cast, command]:
            saved(Path(log), Path(cast), command)
        case ["draw", cast, svg]:
            draw(Path(cast), Path(svg))
        case _:
            sys.exit(__doc__)
