"""The report's sentences and numbers, without a page round them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from bneck.records.run import SearchRecord
from bneck.report import text
from bneck.report.block_search import block_search
from bneck.report.blocks import Picture
from bneck.report.cuts import RowCut, cut_sentences, cuts
from bneck.report.numbers import duration, file_size, ms, printable, signed_percent, spread_text
from bneck.report.tables import Column, Table, html_table, markdown_table
from bneck.specs.text import to_text
from bneck.specs.transforms import with_expanded
from bneck.specs.zoo import network


def record(
    *,
    measured: float | None = 0.298,
    target: float | None = 0.3,
    found: list[float] | None = None,
    uniform: list[float] | None = None,
    uniform_ms: float = 0.299,
) -> SearchRecord:
    """As much of a finished run as the headline needs."""
    whole: SearchRecord = {
        "format": 2,
        "state": "finished",
        "target": "0.3ms",
        "found": {"name": "small", "estimated_ms": 0.295, "scores": found or [0.884, 0.886, 0.885]},
        "uniform": {"measured_ms": uniform_ms, "width": 0.72, "scores": uniform or [0.88, 0.882]},
    }
    if measured is not None:
        whole["found"]["measured_ms"] = measured
    if target is not None:
        whole["target_ms"] = target
    return whole


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (0.285, "0.285 ms measured, 5.0 % below the target of 0.300 ms: target met."),
        (0.3, "under 0.1 % below the target of 0.300 ms: target met."),
        (0.30001, "under 0.1 % above the target of 0.300 ms: target NOT met."),
        (0.36, "0.360 ms measured, 20.0 % above the target of 0.300 ms: target NOT met."),
        (None, "not yet measured: estimated at 0.295 ms; whether it meets the target"),
    ],
)
def test_headline_says_plainly_whether_the_target_is_met(
    measured: float | None, words: str
) -> None:
    assert words in text.headline(record(measured=measured))


def test_headline_without_a_target_or_a_network() -> None:
    assert text.headline(record(target=None)).endswith("no target is on record.")
    assert text.headline({}) == "No network found yet."
    assert "70% of the seed network" in text.target_text({"target": "70%", "target_ms": 0.3})


def test_a_verdict_of_the_run_that_the_numbers_deny_is_named() -> None:
    run = record(measured=0.31)
    run["meets_target"] = True
    assert "noted the target as met" in text.disagreement_sentence(run)
    run["meets_target"] = False
    assert text.disagreement_sentence(run) == ""


@pytest.mark.parametrize(
    ("found", "uniform", "verdict", "words"),
    [
        ([0.884, 0.886], [0.880, 0.883], "above", "the found network is 0.4 points ABOVE it."),
        ([0.884, 0.886], [0.880, 0.884], "tie", "the difference of +0.3 points is a tie"),
        ([0.880, 0.890], [0.884, 0.888], "tie", "of \u22120.1 points is a tie"),
        ([0.880, 0.882], [0.884, 0.886], "below", "0.4 points BELOW it. For this data and device"),
        ([0.88], [0.88], "tie", "the difference of 0.0 points is a tie"),
    ],
)
def test_baseline_wins_and_losses_are_both_told(
    found: list[float], uniform: list[float], verdict: str, words: str
) -> None:
    run = record(found=found, uniform=uniform)
    assert text.baseline_verdict(run) == verdict
    assert words in text.baseline_sentence(run)
    assert "(width 0.72)" in text.baseline_sentence(run)


def test_single_trainings_and_unequal_latencies_are_owned_up_to() -> None:
    single = text.baseline_sentence(record(found=[0.9]))
    assert "One training run says nothing about the spread" in single
    slower = text.baseline_sentence(record(uniform_ms=0.32))
    assert "the baseline is 7.4 % slower, which favors the baseline" in slower
    faster = text.baseline_sentence(record(uniform_ms=0.28))
    assert "the baseline is 6.0 % faster, which favors the found network" in faster
    assert "not quite equal" not in text.baseline_sentence(record(uniform_ms=0.301))


def test_accuracy_comes_with_its_repeats() -> None:
    run = record()
    run["data"] = {"splits": {"train": 50_000, "val": 10_000}}
    assert text.accuracy_sentence(run) == (
        "Top-1 is 88.5 \u00b1 0.1 % (mean and half the range of 3 training runs, 10,000 validation "
        "images)."
    )


def test_missing_stages_are_listed_in_order() -> None:
    assert text.missing({})[0] == "the latency table"
    assert len(text.missing({})) == 7
    lacks = text.missing(record(measured=None))
    assert lacks == [
        "the latency table",
        "the seed network",
        "the measurement on the device",
        "the export check",
    ]
    assert text.missing_sentence(record()).startswith("This record is not whole: it lacks the lat")
    assert "Still missing:" in text.missing_sentence({"state": "running"})


def test_time_and_export_sentences() -> None:
    stages = [{"name": "search", "seconds": 90.0}, {"name": "final", "seconds": 10.0}]
    run: SearchRecord = {"stages": stages, "seconds": 80.0, "overhead_seconds": 0.5}  # type: ignore[typeddict-item]
    assert text.total_seconds(run) == 100
    assert text.time_sentence(run).startswith("1 min 40 s in all. The search's own work")
    assert "0.5 s, 0.50 % of that." in text.time_sentence(run)
    run["export"] = {"images": 200, "label_agreement": 0.995, "largest_difference": 2e-3}
    assert "99.50 % of the labels agree, and nothing" in text.export_sentence(run)


def test_cuts_are_read_from_the_specs() -> None:
    seed = network("v3-small@48")
    found = with_expanded(seed, 9, 144)
    run: SearchRecord = {
        "seed_network": {"spec": to_text(seed)},
        "found": {"spec": to_text(found)},
    }
    rows = cuts(run)
    assert rows is not None
    assert [row.row for row in rows] == [i for i in range(15) if i != 13]  # row 13 is the pool
    changed = [row for row in rows if row.changed]
    assert [(row.row, row.expanded, row.out) for row in changed] == [(9, (288, 144), (96, 96))]
    assert 0.3 < changed[0].madds_kept < 0.6
    sentences = cut_sentences(rows)
    assert "1 of 14 rows changed" in sentences
    assert "the expansion of row 9 (288 \u2192 144, 50 % kept)" in sentences
    assert cuts({"seed_network": {"spec": to_text(seed)}}) is None
    assert cuts({"seed_network": {"spec": "no: spec"}, "found": {"spec": ""}}) is None


def test_no_cut_is_said_in_words() -> None:
    row = RowCut(row=1, operator="conv 1x1", expanded=None, out=(16, 16), madds_kept=1.0)
    assert cut_sentences([row]).startswith("No width was changed")


def test_one_table_in_two_languages() -> None:
    columns = (Column("na|me", number=False), Column("time (ms)"))
    table = Table(title="a < b", columns=columns, rows=(("<x>", "1.0"), ("a|b", "12.0")))
    html, markdown = html_table(table), markdown_table(table)
    assert "&lt;x&gt;</th>" in html
    assert '<td class="number" data-label="time (ms)">1.0</td>' in html
    assert markdown.splitlines() == [
        "| na\\|me    | time (ms) |",
        "| --------- | --------: |",
        "| &lt;x&gt; |       1.0 |",
        "| a\\|b      |      12.0 |",
    ]


def test_numbers() -> None:
    assert [ms(v) for v in (0.41234, 9.996, 12.34, 1234.5, 0, None)] == [
        *("0.412", "10.0", "12.3", "1230", "0", "\u2013")
    ]
    assert [signed_percent(v) for v in (0.0312, -0.001, -0.0001)] == ["+3.1", "\u22120.1", "0.0"]
    assert [duration(v) for v in (3.25, 200, 7500)] == ["3.2 s", "3 min 20 s", "2 h 5 min"]
    assert [file_size(v) for v in (12, 1812, 5_090_112)] == ["0.1 kB", "1.8 kB", "5.1 MB"]
    assert spread_text([0.9]) == "90.0 %"
    assert printable("a\nb\x00\udcff") == "a b\ufffd\ufffd"


def test_importing_the_report_loads_no_torch() -> None:
    code = "import sys, bneck.report.page; print({'torch'} & {*sys.modules})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "set()"


def test_the_best_so_far_of_a_block_search() -> None:
    """By hand: trial 2 is better but above the aim, trial 3 is worse, so two trials made the best."""
    numbers = zip((0.5, 0.6, 0.9, 0.55), (0.2, 0.4, 0.9, 0.3), strict=True)
    trials = [
        {"number": i, "accuracy": accuracy, "latency_ms": latency, "stopped": i == 3}
        for i, (accuracy, latency) in enumerate(numbers)
    ]
    run = record()
    run["blocks"] = {
        "space": "toy", "networks": "100", "aim_ms": 0.5, "trials": trials, "front": [1, 0], "finalists": [],
        "table": {"median": 0.02, "p95": 0.05, "networks": 40},
    }  # fmt: skip
    picture = next(block for block in block_search(run) if isinstance(block, Picture))
    tradeoff, climb = picture.panels
    assert (
        climb.count("<title>trial 1: 0.400 ms, 60.0 %</title>") == 2
    )  # as a trial, and as the best
    assert climb.count("<title>trial 2: 0.900 ms, 90.0 %</title>") == 1
    assert climb.count("<title>trial 3: 0.300 ms, 55.0 %</title>") == 1
    assert "aim 0.500 ms" in tradeoff


@pytest.mark.parametrize(
    ("narrowed", "end"),
    [
        ([0.80, 0.81], "and ships."),
        ([0.80, 0.86], "and ships; the difference is within the range of the training runs."),
    ],
)
def test_a_baseline_that_ships_is_named_and_a_tie_is_called_one(
    narrowed: list[float], end: str
) -> None:
    searched: Any = {
        "allocation": {"shipped": "scratch"}, "found": {"title": "uniform width", "scores": [0.85, 0.84]},
        "others": {"narrowed": {"title": "by importance", "scores": narrowed}},
    }  # fmt: skip
    said = text.shipped_sentence(searched)
    assert said == f"Uniform width scores higher than the network by importance, {end}"
