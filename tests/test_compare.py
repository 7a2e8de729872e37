"""Networks and runs side by side: alignment by hand, what is drawn, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bneck.costs.count import count
from bneck.devices.protocol import TimingError
from bneck.report.comparison import comparison_blocks
from bneck.report.difference import changed_rows, row_pairs
from bneck.report.network_picture import Drawn, draw_networks
from bneck.report.scatter import Chart, Point, Series, draw_charts
from bneck.report.subjects import subjects
from bneck.runs.compare import compare
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import load
from commands import Call, refusal
from test_reproduce import trained


def net(*rows: Bneck) -> NetSpec:
    """A stem, the rows, a pool."""
    stem = Conv(kernel=3, out=16, act="hswish", stride=2)
    return NetSpec(name="tiny", rows=(stem, *rows, Pool()), resolution=32, classes=3)


def classified(folder: Path, score: float, images: int) -> Path:
    """A made-up training of v3-small on pictures of ten classes."""
    trained(folder, "classify", "v3-small", score, images, 10)
    record, costs = json.loads((folder / "run.json").read_text()), count(load(folder / "spec.yaml"))
    record |= {"params": costs.params, "madds": costs.madds}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


A = Bneck(kernel=3, expanded=16, out=16, se=0, act="relu")
B = Bneck(kernel=5, expanded=64, out=24, se=16, act="hswish", stride=2)
C = Bneck(kernel=3, expanded=72, out=24, se=0, act="hswish")


def test_rows_of_one_stage_stand_against_each_other() -> None:
    """A row more within a stage is the only one that has no partner."""
    wider = Bneck(kernel=5, expanded=48, out=24, se=16, act="hswish", stride=2)
    pairs = row_pairs(net(A, B, C), net(A, wider, C, C))
    assert [(pair.before, pair.after) for pair in pairs] == [
        *((0, 0), (1, 1), (2, 2), (3, 3), (None, 4), (4, 5))
    ]
    assert [pair.differs for pair in pairs] == [False, False, True, False, True, False]
    assert pairs[2].cells[2] == ("64", "48")
    assert changed_rows(net(A, B, C), net(A, wider, C, C)) == {2, 4}
    assert changed_rows(net(A, B), net(A, B)) == frozenset()


def test_a_network_is_drawn_with_what_its_table_says() -> None:
    """Kernel, widths, a ring for squeeze-and-excite, a colour for the nonlinearity, halvings."""
    svg = draw_networks("n", "title", [Drawn("tiny", net(A, B, C))]).panels[0]
    words = "row 2: bneck 5x5, expansion 64, output 24, squeeze 16, h-swish, stride 2;"
    assert f"<title>{words}" in svg
    assert "row 1: bneck 3x3, expansion 16, output 16, ReLU, stride 1, residual;" in svg
    assert svg.count('class="ring"') == 1
    assert svg.count('class="down"') == 2  # the stem and row 2
    assert svg.count(">pool<") == 1
    assert ">16+</text>" in svg


def test_a_point_lies_where_its_numbers_say() -> None:
    """With 0 and 10 on an axis, 5 is half way between them."""
    series = Series(name="s", points=tuple(Point(x, 1.0 + x, f"<{x}>") for x in (0.0, 5.0, 10.0)))
    picture = draw_charts("c", "t", [Chart(title="a & b", x="x", y="y", series=(series,))])
    places = [
        float(part.partition('"')[0]) for part in picture.panels[0].split('class="touch" cx="')[1:]
    ]
    assert places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.11)
    assert "&lt;5.0&gt;" in picture.panels[0]
    assert "a &amp; b" in picture.panels[0]
    assert picture.whole.startswith("<?xml")


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [(3.0,), (2.0, 2.0), (1e-3, 1e5), (-4.0, 7.0)])
def test_charts_of_odd_ranges(values: tuple[float, ...], log: bool) -> None:
    if log and min(values) <= 0:
        return
    points = tuple(Point(v, v, "p", low=0.9 * v, high=1.1 * v) for v in values)
    chart = Chart(title="t", x="x", y="y", log_x=log, series=(Series(name="s", points=points),))
    assert "nan" not in draw_charts("c", "t", [chart]).whole


def test_a_page_of_names_and_a_run(call: Call, tmp_path: Path) -> None:
    run = classified(tmp_path / "<b>run", 0.9, 1_500)
    page = tmp_path / "page.html"
    answer = call("compare", "v3-small", str(run), "v2-0.35", "--out", str(page), "--json")
    found = json.loads(answer.out)
    assert [s["label"] for s in found["subjects"]] == ["v3-small", "<b>run", "v2-0.35"]
    assert [s["scores"] for s in found["subjects"]] == [[], [0.9], []]
    text = page.read_text()
    assert len(text.encode()) < 1_000_000
    assert "<b>run" not in text
    assert "&lt;b&gt;run has the rows of v3-small." in text
    assert "pictures, 1,500 images, 10 classes" in text


def test_scores_of_different_images_are_warned_of(tmp_path: Path) -> None:
    one = classified(tmp_path / "one", 0.9, 1_500)
    other = classified(tmp_path / "other", 0.8, 700)
    blocks = list(comparison_blocks([*subjects(one), *subjects(other)]))
    assert any("different images" in getattr(block, "text", "") for block in blocks)


def test_measured_now(tmp_path: Path) -> None:
    """Latencies of an interleaved race stand in the page, unless the machine was too busy."""
    try:
        found = compare(
            "v3-small-0.35@32", "v2-0.35@32", measure=True, rounds=3, out=tmp_path / "c.html"
        )
    except TimingError as error:
        pytest.skip(f"too busy a machine: {error}")
    assert all((s.latency_ms or 0) > 0 for s in found.subjects)
    assert "Latency over multiply-adds" in found.page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["v4-small"], "there is no network 'v4-small'"),
        (["v3-small", "--measure", "--rounds", "2"], "threads is 1 and rounds 2"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    call: Call, tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert refusal(call("compare", *arguments, "--out", str(tmp_path / "c.html"))).startswith(said)


def test_a_run_without_a_network_yet(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 1, "kind": "search", "state": "running"}')
    with pytest.raises(InputError, match="has found no network yet"):
        compare(tmp_path, out=tmp_path / "c.html")
    with pytest.raises(InputError, match="nothing to compare"):
        compare(out=tmp_path / "c.html")
