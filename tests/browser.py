"""Looking at pages in headless Chromium: what stands in them, what their console says, how wide they are."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
PHONE, DESK = 375, 1280

# The page in a frame as wide as a phone, since a window cannot be that narrow. What is measured goes
# into the outer page, which is what comes back.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><style>body{{margin:0}}iframe{{border:0;display:block}}</style>
<iframe id="page" src="{page}" width="{width}" height="{height}"></iframe><pre id="said"></pre>
<script>
addEventListener("load", () => setTimeout(() => {{
  const inner = document.getElementById("page").contentDocument;
  const root = inner.documentElement;
  const said = {{ scroll: root.scrollWidth, client: root.clientWidth, height: root.scrollHeight,
    touched: root.dataset.said || "" }};
  document.getElementById("said").textContent = JSON.stringify(said);
}}, {wait}));
</script>"""

# Opens every page in turn at every width. An element counts as too wide if it ends outside the window and
# nothing around it scrolls or cuts it off.
TURNS = """<!DOCTYPE html><meta charset="utf-8"><iframe id="page" height="900"></iframe><pre id="said"></pre>
<script>
const frame = document.getElementById("page");
const open = (page, width) => new Promise((done) => {{
  frame.width = width;
  frame.onload = () => setTimeout(() => done(frame.contentDocument), 200);
  frame.src = page;
}});
const cut = (element) => {{
  for (let one = element.parentElement; one; one = one.parentElement)
    if (getComputedStyle(one).overflowX !== "visible" && one !== one.ownerDocument.documentElement
        && one !== one.ownerDocument.body) return true;
  return false;
}};
const measured = async () => {{
  const all = [];
  for (const page of {pages}) for (const width of {widths}) {{
    const root = (await open(page, width)).documentElement;
    const wide = [...root.querySelectorAll("body *")].filter((one) =>
      one.getBoundingClientRect().right > root.clientWidth + 1 && one.checkVisibility() && !cut(one));
    all.push({{ page, width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight,
      wide: wide.slice(0, 5).map((one) => one.tagName + " " + one.textContent.trim().slice(0, 30)),
      broken: [...root.querySelectorAll("img")].filter((one) => !one.naturalWidth).map((one) => one.src) }});
  }}
  document.getElementById("said").textContent = JSON.stringify(all);
}};
addEventListener("load", measured);
</script>"""


@dataclass(frozen=True)
class Measured:
    """A page in a window `width` px wide: how wide its content is, and what is too wide or missing."""

    page: str
    width: int
    scroll: int
    height: int
    wide: list[str]
    broken: list[str]


@dataclass(frozen=True)
class Look:
    """What a page came out as."""

    dom: str
    console: list[str]

    def said(self, name: str) -> int:
        """A number that the frame measured."""
        found = re.search(rf'"{name}":(\d+)', html.unescape(self.dom))
        assert found, self.dom[-500:]
        return int(found[1])

    def touched(self) -> dict[str, Any]:
        """What a script in the page said."""
        found = re.search(r'<pre id="said">(.*?)</pre>', self.dom, re.DOTALL)
        assert found, self.dom[-500:]
        return dict(json.loads(json.loads(html.unescape(found[1]))["touched"]))


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A folder served on loopback; yields its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def look(
    address: str,
    *,
    dark: bool = False,
    size: tuple[int, int] = (DESK, 900),
    picture: Path | None = None,
    wait_ms: int = 2000,
    limit_s: float = 60,
) -> Look:
    """Open an address; its document after `wait_ms` of the page's own time, and what the console said."""
    assert CHROMIUM
    with tempfile.TemporaryDirectory() as profile:
        answer = subprocess.run(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--disable-background-networking", "--disable-component-update", "--no-first-run",
                f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}",
                f"--virtual-time-budget={wait_ms}", "--enable-logging=stderr", "--v=0",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--screenshot={picture}" if picture else "--dump-dom", address,
            ],
            capture_output=True, text=True, timeout=limit_s,
        )  # fmt: skip
    console = [line for line in answer.stderr.splitlines() if "CONSOLE" in line]
    return Look(answer.stdout, console)


def look_framed(
    folder: Path,
    page: str,
    *,
    width: int = PHONE,
    height: int = 800,
    dark: bool = False,
    picture: Path | None = None,
) -> Look:
    """Open a page of `folder` in a frame of a phone's width."""
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(page=page, width=width, height=height, wait=300))
    try:
        with serving(folder) as address:
            size = (max(width, 500), height)
            return look(f"{address}/frame.html", dark=dark, size=size, picture=picture)
    finally:
        frame.unlink()


def measure(folder: Path, pages: Sequence[str], widths: Iterable[int]) -> list[Measured]:
    """Every page of `folder` at every width, opened by one browser."""
    frame = folder / "turns.html"
    each = list(dict.fromkeys(widths))
    frame.write_text(TURNS.format(pages=json.dumps(list(pages)), widths=json.dumps(each)))
    try:
        with serving(folder) as address:
            wait_ms = 1_000 * (len(pages) * len(each) + 5)
            seen = look(f"{address}/turns.html", wait_ms=wait_ms, limit_s=600)
    finally:
        frame.unlink()
    found = re.search(r'<pre id="said">(.+?)</pre>', seen.dom, re.DOTALL)
    assert found, "the browser did not come to the end of the pages"
    return [Measured(**one) for one in json.loads(html.unescape(found[1]))]
