"""The report of a whole run, of half a run, and of one that tries to break the page."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bneck.costs.count import count
from bneck.nas.netadapt import Proposal, Trial, adapt
from bneck.records.ledger import Ledger
from bneck.records.run import NetworkRecord, RunFolder, SearchRecord, StepRecord
from bneck.report.page import write_search_report
from bneck.report.pictures import final_chart
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import rename, with_classes
from bneck.specs.zoo import network

VOID = {"meta", "br", "path", "use"}  # what html or svg leaves open or closes by itself

DATA: dict[str, Any] = {
    "name": "fashion-mnist",
    "splits": {"train": 54_000, "val": 10_000},
    "heldout": 6_000,
    "left_out": [[f"train/coat/{i:04}.png", "the file is cut short"] for i in range(23)],
}
DEVICE = {
    "place": "local",
    "processor": "AMD EPYC 9B14",
    "cores": 2,
    "system": "Linux 6.1 x86_64",
    "pinned": True,
}


def estimate_ms(spec: NetSpec) -> float:
    """A plausible device: time grows with the multiply-adds over a fixed start."""
    return 0.12 + count(spec).madds / 1.4e7


def network_record(spec: NetSpec, scores: list[float], *, off: float = 0.0) -> NetworkRecord:
    """A trained and measured network whose estimate is `off` by this share."""
    costs = count(spec)
    ms = estimate_ms(spec) / (1 + off)
    spread = {"median": ms, "p10": 0.98 * ms, "p90": 1.05 * ms}
    measurement = {
        "network": spec.name,
        "runtime": "onnxruntime",
        "runtime_version": "1.22.0",
        "precision": "fp32",
        "threads": 1,
        "warmup": 20,
        "n": 1200,
        "rounds": 30,
        "repeated": 2,
        "latency_ms": spread,
        "raw_latency_ms": {"median": 1.04 * ms, "p10": ms, "p90": 1.1 * ms},
        "pace": 1.04,
        "reference": "v3-small-0.5@64",
    }
    return {
        "name": spec.name,
        "digest": spec.digest(),
        "spec": to_text(spec),
        "params": costs.params,
        "madds": costs.madds,
        "estimated_ms": estimate_ms(spec),
        "measured_ms": ms,
        "measurement": measurement,
        "scores": scores,
        "loss": [0.31] * len(scores),
    }


def search(seed: NetSpec, folder: Path, target_ms: float) -> tuple[NetSpec, list[StepRecord]]:
    """A real search with a made-up judge; its trials go to the ledger."""
    ledger, steps = Ledger(folder / "ledger.jsonl"), []

    def judge(number: int, spec: NetSpec, proposals: Sequence[Proposal]) -> list[Trial]:
        trials = [
            Trial(p, 0.905 - 0.03 * number / 40 - 0.012 * int(p.spec.digest(), 16) % 997 / 40_000)
            for p in proposals
        ]
        for trial in trials:
            proposal = trial.proposal
            change = {
                "kind": proposal.kind,
                "rows": list(proposal.rows),
                "before": proposal.before,
                "after": proposal.after,
            }
            ledger.append(
                {
                    "event": "trial",
                    "step": number,
                    "digest": proposal.spec.digest(),
                    "proposal": change,
                    "estimated_ms": proposal.estimated_ms,
                    "accuracy": trial.accuracy,
                    "loss": 0.3,
                    "seconds": 1.9,
                }
            )
        return trials

    found = seed
    for step in adapt(
        seed, accuracy=0.911, target_ms=target_ms, delta_ms=0.006, estimate=estimate_ms, judge=judge
    ):
        kept = step.kept.proposal
        found = kept.spec
        steps.append(
            StepRecord(
                number=step.number,
                proposal={
                    "kind": kept.kind,
                    "rows": list(kept.rows),
                    "before": kept.before,
                    "after": kept.after,
                },
                digest=found.digest(),
                estimated_ms=kept.estimated_ms,
                accuracy=step.kept.accuracy,
                trials=len(step.trials),
            )
        )
    return rename(found, "v3-small@48-found"), steps


def whole_run(folder: Path) -> SearchRecord:
    """Write a finished run of V3-Small at 48 pixels into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = with_classes(network("v3-small@48"), 10)
    uniform = with_classes(network("v3-small-0.70@48"), 10)
    target_ms = 0.7 * estimate_ms(seed)
    found, steps = search(seed, folder, target_ms)
    record: SearchRecord = {
        "format": 2,
        "kind": "search",
        "task": "classify",
        "metric": "top-1",
        "classes": ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt"],
        "state": "finished",
        "version": "0.1.0",
        "commit": "8e61149",
        "command": "bneck search --data fashion-mnist --network v3-small@48 --target 70% --seed 0",
        "started": "2026-05-04T09:12:44Z",
        "finished": "2026-05-04T10:58:03Z",
        "settings": {
            "seed": 0,
            "epochs": 12,
            "finetune_steps": 150,
            "repeats": 3,
            "metric": "ratio",
        },
        "data": DATA,
        "device": DEVICE,
        "runtime": "onnxruntime",
        "runtime_version": "1.22.0",
        "table": {"entries": 412, "networks": 24, "median": 0.013, "p95": 0.041, "scale": 1.02},
        "target": "70%",
        "target_ms": target_ms,
        "meets_target": True,
        "seconds": 6319.0,
        "seed_network": {
            **network_record(seed, [0.9121, 0.9134, 0.9108], off=-0.012),
            "heldout_score": 0.911,
        },
        "found": network_record(found, [0.9074, 0.9081, 0.9066], off=0.008),
        "uniform": {**network_record(uniform, [0.9031, 0.9042, 0.9018], off=0.02), "width": 0.7},
        "steps": steps,
        "stages": [
            {"name": "latency table", "seconds": 512.4},
            {"name": "seed training", "seconds": 981.0},
            {"name": "search", "seconds": 3120.8},
            {"name": "final training", "seconds": 1602.1},
            {"name": "measurement", "seconds": 61.5},
            {"name": "export", "seconds": 3.2},
        ],
        "overhead_seconds": 14.2,
        "export": {"images": 512, "label_agreement": 1.0, "largest_difference": 1.2e-5},
    }
    RunFolder(folder).write(record)
    return record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchRecord]:
    folder = tmp_path_factory.mktemp("run")
    record = whole_run(folder)
    write_search_report(folder)
    return folder, record


class Tags(HTMLParser):
    """Checks that every tag is closed where it should be, and gathers what it says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Every table of a Markdown text as lines of cells."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            tables.append([])
        inside = True
        tables[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return tables


def test_page_is_one_small_file_without_references(run: tuple[Path, SearchRecord]) -> None:
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert len(page.encode()) < 1_000_000
    assert not tags.open
    assert page.count("<script") == page.count("</script>") == 1
    assert not tags.names & {"link", "img", "iframe", "object", "base"}
    for name, value in tags.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith("#")
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "@import" not in page
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem"):
        assert rule in page


def test_the_only_script_is_the_page_s_own(run: tuple[Path, SearchRecord]) -> None:
    """The policy names it by the digest of what stands there, and allows nothing else."""
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert script
    assert policy
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy[1] == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_every_accepted_step_is_in_both_pages(run: tuple[Path, SearchRecord]) -> None:
    folder, record = run
    twin, page = ((folder / f"report.{end}").read_text(encoding="utf-8") for end in ("md", "html"))
    table = next(t for t in markdown_tables(twin) if t[0][0] == "step")
    assert [row[0] for row in table[2:]] == [str(i) for i in range(len(record["steps"]) + 1)]
    assert len(record["steps"]) > 10
    for step in record["steps"]:
        widths = f"{step['proposal']['before']} \u2192 {step['proposal']['after']}"
        assert table[2 + step["number"]][2] == widths
        assert widths in page


def test_markdown_tables_are_well_formed_and_the_same_as_html(
    run: tuple[Path, SearchRecord],
) -> None:
    folder, _ = run
    twin, page = ((folder / f"report.{end}").read_text(encoding="utf-8") for end in ("md", "html"))
    tables = markdown_tables(twin)
    assert len(tables) == page.count("<table ") == 8
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}
        assert all(re.fullmatch(r"-{2,}[-:]", cell) for cell in table[1])
    for name in re.findall(r"!\[.*?\]\((.*?)\)", twin):
        assert (folder / name).read_text(encoding="utf-8").startswith("<?xml")
    assert "report-tradeoff.svg" in twin
    assert "report-search.svg" in twin
    assert "report-networks.svg" in twin


def test_pictures_have_text_as_text_and_a_name(run: tuple[Path, SearchRecord]) -> None:
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(pictures) == 4
    for picture in pictures:
        assert "<title>" in picture
        assert 'role="img"' in picture
        assert "aria-label=" in picture
    drawn = "".join(pictures)
    for words in (
        "measured latency (ms)",
        "estimated latency (ms)",
        "accepted step",
        "judged trial",
    ):
        assert words in drawn
    for words in ("seed network", "found network", "uniform width", "target 0."):
        assert words in pictures[0]


def test_first_come_the_verdict_the_front_and_the_networks(run: tuple[Path, SearchRecord]) -> None:
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    order = (
        "<h1>",
        'class="tiles"',
        'class="beside"',
        "After the final training",
        "found is better by",
        "<h2>",
    )
    places = [page.index(words) for words in order]
    assert places == sorted(places)
    glance = markdown_tables((run[0] / "report.md").read_text(encoding="utf-8"))[0]
    first, found, uniform = glance[2:5]
    assert (first[0], found[0].strip("*"), uniform[0][:14]) == (
        "seed: v3-small@48",
        "found: v3-small@48-found",
        "uniform: width",
    )
    mean = [sum(run[1][key]["scores"]) / len(run[1][key]["scores"]) for key in ("found", "uniform")]
    assert uniform[3] == f"{100 * (mean[0] - mean[1]):+.1f}"


def test_mistakes_stand_next_to_those_of_the_seed_network(
    run: tuple[Path, SearchRecord], tmp_path: Path
) -> None:
    record: Any = copy.deepcopy(run[1])
    record["mistakes"] = {
        "images": 1000, "found": 120, "seed": 100, "both": 70,
        "confused": [{"true": "Shirt", "predicted": "<Coat>", "found": 31, "seed": 29}],
        "worst": [{
            "picture": f"mistakes/{n}.jpg", "true": "Bag|1", "found": "Shirt", "found_probability": 0.004,
            "seed": "Bag|1", "seed_probability": 0.63,
        } for n in (0, 1)],
    }  # fmt: skip
    (tmp_path / "mistakes").mkdir()
    (tmp_path / "mistakes" / "0.jpg").write_bytes(b"a photo")  # the other one was deleted
    RunFolder(tmp_path).write(record)
    page, twin = (path.read_text(encoding="utf-8") for path in write_search_report(tmp_path))
    assert "the found network gets 120 wrong and the seed network 100; 70 are wrong in both" in page
    confused = next(t for t in markdown_tables(twin) if t[0][0] == "true class")
    assert confused[2] == ["Shirt", "&lt;Coat&gt;", "31", "29"]
    assert re.findall(r'<img alt="(.*?)" src="(.*?)">', page) == [
        ("Bag|1", f"data:image/jpeg;base64,{base64.b64encode(b'a photo').decode()}")
    ]
    assert "seed: Bag|1 (63.0 % for the true class)" in page
    assert (
        r"![Bag\|1](mistakes/0.jpg) Bag\|1; found: Shirt (0.4 % for the true class); seed: " in twin
    )


def test_the_report_is_the_same_when_made_again(run: tuple[Path, SearchRecord]) -> None:
    names = (
        "report.html",
        "report.md",
        "report-tradeoff.svg",
        "report-search.svg",
        "report-networks.svg",
    )
    first = [(run[0] / name).read_bytes() for name in names]
    write_search_report(run[0])
    assert [(run[0] / name).read_bytes() for name in names] == first


def test_first_bad_images_are_named_and_all_are_counted(run: tuple[Path, SearchRecord]) -> None:
    twin = (run[0] / "report.md").read_text(encoding="utf-8")
    assert "23 images could not be read" in twin
    assert "0019.png: the file is cut short" in twin
    assert "0020.png" not in twin


def test_text_from_outside_stays_text(run: tuple[Path, SearchRecord], tmp_path: Path) -> None:
    record: Any = copy.deepcopy(run[1])
    record["data"] = {
        "name": 'a"b<i>|`$x$`',
        "left_out": [["x/\udcff\x1b[31m<b>.png", "no | image\nat all"]],
    }
    record["classes"] = ["<script>alert(1)</script>", "a|b", "[x](http://evil.example)"]
    record["command"] = "bneck search --data '</code><script>' --note ```"
    record["found"]["name"] = "<img src=x onerror=1>"
    record["settings"] = {"<u>": "</td>"}
    RunFolder(tmp_path).write(record)
    page, twin = (path.read_text(encoding="utf-8") for path in write_search_report(tmp_path))
    tags = Tags(page)
    assert not tags.open
    assert page.count("<script") == 1
    assert not tags.names & {"img", "i", "b", "u", "a"}
    assert "&lt;script&gt;alert(1)" in page
    prose = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", twin)
    assert "<" not in prose
    assert not re.search(r"(?<!\\)\]\(http", prose)
    for table in markdown_tables(twin):
        assert {len(row) for row in table} == {len(table[0])}
    assert "\x1b" not in page + prose


@pytest.mark.parametrize("kept", range(3, 25, 3))
def test_half_a_record_still_makes_a_report(
    run: tuple[Path, SearchRecord], tmp_path: Path, kept: int
) -> None:
    part: Any = dict(list(run[1].items())[:kept])
    part["state"] = "running"
    shutil.copy(run[0] / "ledger.jsonl", tmp_path)
    RunFolder(tmp_path).write(part)
    page, twin = (path.read_text(encoding="utf-8") for path in write_search_report(tmp_path))
    assert "This run is not finished" in page
    assert "Still missing: " in page
    assert "Still missing: " in twin


def test_nothing_but_a_beginning(tmp_path: Path) -> None:
    RunFolder(tmp_path).write({"format": 2, "kind": "search", "state": "running"})
    page, twin = (path.read_text(encoding="utf-8") for path in write_search_report(tmp_path))
    assert "No network found yet." in page
    for part in (
        "the latency table",
        "the search",
        "the uniform-width baseline",
        "the export check",
    ):
        assert part in twin
    assert "<svg" not in page
    assert ".svg" not in twin


def test_networks_of_several_targets_are_in_one_picture_joined_by_how_they_were_made() -> None:
    """Two targets, the slower first; joined from the fastest, and the lines have the targets' own words."""

    def network(measured_ms: float, score: float) -> dict[str, Any]:
        return {"name": "n", "measured_ms": measured_ms, "scores": [score]}

    record: Any = {
        "metric": "top-1", "target": "70%", "target_ms": 7.0, "seed_network": network(10.0, 0.75),
        "found": network(6.9, 0.76), "uniform": network(6.8, 0.7),
        "family": [{
            "target": "5ms", "target_ms": 5.0, "found": network(4.9, 0.72), "uniform": network(5.1, 0.6),
        }],
    }  # fmt: skip
    chart = final_chart(record)
    assert chart is not None
    drawn = {one.name: [(point.x, point.y) for point in one.points] for one in chart.series}
    assert drawn == {
        "seed network": [(10.0, 75.0)],
        "found network": [(4.9, 72.0), (6.9, 76.0)],
        "uniform width": [(5.1, 60.0), (6.8, 70.0)],
    }
    assert chart.lines == ((7.0, "70%"), (5.0, "5ms"))
    del record["family"]
    assert [one.lines for one in [final_chart(record)] if one] == [((7.0, "target 7.00 ms"),)]
