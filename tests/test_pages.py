"""Pages as a browser shows them: no word in the console, nothing wider than a phone, dark and light."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from bneck.paper.reproduce import reproduce
from bneck.runs.compare import compare
from bneck.runs.report import write_report
from browser import CHROMIUM, DESK, PHONE, Look, look_framed
from test_report import whole_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

# Sorts the first table by its column of MAdds, twice, and touches the first point of a chart.
TOUCH = """<script>
{
const table = document.querySelector("table.sortable");
const heads = [...table.tHead.rows[0].cells];
const column = heads.findIndex((head) => head.textContent.includes("MAdds (M)"));
const first = () => table.tBodies[0].rows[0].cells[0].textContent;
heads[column].firstElementChild.click();
const least = first();
heads[column].firstElementChild.click();
const most = first();
document.querySelector(".chart .point").dispatchEvent(new PointerEvent("pointerenter"));
const tip = document.querySelector(".tip");
const said = { least, most, tip: tip.textContent, shown: !tip.hidden };
document.documentElement.dataset.said = JSON.stringify(said);
}
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three kinds of page, each on its own."""
    root = tmp_path_factory.mktemp("pages")
    whole_run(root / "run")
    write_report(root / "run")
    (root / "run" / "report.html").rename(root / "report.html")
    compare("v3-large", "v3-large-0.75", root / "run", out=root / "compare.html")
    reproduce("all", measure=False, out=root / "paper")
    (root / "paper" / "reproduce.html").rename(root / "reproduce.html")
    return root


def check(seen: Look) -> None:
    assert seen.console == []
    assert seen.said("scroll") == seen.said("client")
    assert seen.said("height") > 500


def test_comparison_fits_a_phone(folder: Path) -> None:
    check(look_framed(folder, "compare.html", width=PHONE))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["report.html", "reproduce.html"])
def test_pages_fit_a_phone(folder: Path, page: str) -> None:
    assert (folder / page).stat().st_size < 1_000_000
    check(look_framed(folder, page, width=PHONE))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["report.html", "compare.html", "reproduce.html"])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_are_light_or_dark_as_the_reader_wants(
    folder: Path, tmp_path: Path, page: str, dark: bool
) -> None:
    """The ground of the page, and every panel's with it: no white field in the dark."""
    picture = tmp_path / "seen.png"
    look_framed(folder, page, width=DESK, height=1200, dark=dark, picture=picture)
    pixels = Image.open(picture).convert("L").histogram()
    bright, deep = sum(pixels[200:]), sum(pixels[:60])
    assert (deep > 10 * bright) if dark else (bright > 10 * deep)


@pytest.mark.slow
def test_tables_sort_and_points_speak(folder: Path) -> None:
    """By multiply-adds the least network is first, then the most; a point says what it is."""
    page = (folder / "compare.html").read_text(encoding="utf-8")
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page)
    (folder / "touched.html").write_text(open_page.replace("</body>", TOUCH + "</body>"))
    seen = look_framed(folder, "touched.html", width=DESK)
    assert seen.console == []
    said = seen.touched()
    assert (said["least"], said["most"]) == ("run, found", "v3-large")
    assert said["shown"]
    assert re.match(r"run, seed: [\d.]+ ms, [\d.]+ %", said["tip"])
