"""The paper beside ours: facts as printed, ratios by hand, nothing invented, gaps with their command."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bneck.costs.paper import TABLE3, TABLE4, TABLE5, TABLE9
from bneck.costs.paper_networks import PRINTED
from bneck.graphs.onnx_graph import network_graph
from bneck.graphs.weights import random_weights
from bneck.paper.reproduce import EXHIBITS, reproduce
from bneck.paper.scores import Scores, architecture
from bneck.records.measurement import Measurement
from bneck.records.run import FORMAT
from bneck.report.exhibits import Comparison, Exhibit, Pair
from bneck.report.numbers import NONE
from bneck.specs.errors import InputError
from bneck.specs.network import layers
from bneck.specs.text import resolve, to_text
from bneck.specs.transforms import fix_skips, with_classes
from bneck.tasks.classify.tables import published_table
from bneck.tasks.registry import task
from commands import Call, refusal

TABLES = Path(__file__).parents[2] / "shared" / "paper" / "tables"


def record(network: str, ms: float, rounds: list[float], precision: str = "fp32") -> dict[str, Any]:
    """A made-up measurement, as `bneck measure --json` prints one."""
    spread = {"median": ms, "p10": 0.9 * ms, "p90": 1.2 * ms}
    return {
        "network": network, "digest": "0", "resolution": 224, "runtime": "onnxruntime",
        "runtime_version": "1", "precision": precision, "threads": 1,
        "device": {"place": "local", "processor": "made up", "cores": 1, "system": "none", "pinned": True},
        "warmup": 1, "n": 9, "rounds": 3, "repeated": 0, "latency_ms": spread,
        "raw_latency_ms": spread, "cpu_ms": ms, "reference": "r", "reference_ms": 1.0, "pace": 1.0,
        "commit": "none", "rounds_ms": rounds, "rounds_cpu_ms": rounds,
    }  # fmt: skip


def cell(exhibit: Exhibit, title: str, network: str, quantity: str, paper: str = "paper") -> Pair:
    """One pair of an exhibit."""
    table: Comparison = next(t for t in exhibit.comparisons if t.title.startswith(title))
    place = next(
        i for i, q in enumerate(table.quantities) if (q.title, q.paper) == (quantity, paper)
    )
    return next(line for line in table.lines if line.network == network).pairs[place]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Exhibit], Path]:
    """Everything, with nothing measured and no run."""
    folder = tmp_path_factory.mktemp("bare")
    found = reproduce("all", measure=False, out=folder)
    return {exhibit.name: exhibit for exhibit in found.exhibits}, folder


@pytest.mark.data
@pytest.mark.skipif(not TABLES.is_dir(), reason="the paper's tables are not here")
def test_the_typed_tables_are_the_paper_s() -> None:
    """Against the tables' own files, cell by cell."""

    def lines(name: str) -> list[dict[str, str]]:
        text = (TABLES / name).read_text().partition("\n")[2]
        return list(csv.DictReader(text.splitlines()))

    for row, line in zip(TABLE3, lines("table3_float.csv"), strict=True):
        assert (row.label, row.top1) == (line["network"], float(line["top1"]))
        assert row.ms == tuple(float(line[f"p{i}_ms"]) for i in (1, 2, 3))
    for row, line in zip(TABLE4, lines("table4_quantized.csv"), strict=True):
        assert (row.label, row.top1) == (line["network"], float(line["top1"]))
        assert row.ms == tuple(float(line[f"p{i}_ms"]) for i in (1, 2, 3))
    for row, line in zip(TABLE5, lines("table5_nonlinearity.csv"), strict=True):
        assert (row.label, row.top1) == (line["variant"], float(line["top1"]))
        assert (*row.ms, row.unfused_ms) == (float(line["p1_ms"]), float(line["p1_noopt_ms"]))
    for row, line in zip(TABLE9, lines("table9_multipliers.csv"), strict=True):
        spec = resolve(row.network)
        assert (row.top1, row.ms) == (float(line["top1"]), (float(line["p1_ms"]),))
        assert spec.resolution == int(line["resolution"])
        assert row.network.startswith(f"v3-{line['network']}")
    for number, name in ((1, "table1_v3_large.csv"), (2, "table2_v3_small.csv")):
        for cells, line in zip(PRINTED[number].rows, lines(name), strict=True):
            operator = "NBN" if "NBN" in line["operator"] else line["operator"]
            squeeze = "x" if line["se"] in ("1", "printed") else "-"
            wanted = (line["input"], operator, line["kernel"], line["exp"] or "-", line["out"] or "-",
                      squeeze, line["nl"] or "-", line["stride"])  # fmt: skip
            assert cells == wanted


def test_tables_1_and_2_row_by_row(bare: tuple[dict[str, Exhibit], Path]) -> None:
    """All rows of Large are as printed; of Small all but the tick on the last convolution."""
    for name, different in (("table1", []), ("table2", [12])):
        rows = bare[0][name].plain[0].rows
        assert [i for i, row in enumerate(rows) if row[-1] == "no"] == different
    assert bare[0]["table2"].plain[0].rows[12][5] == "x \u2192 -"


def test_nothing_is_filled_in_that_no_run_has(bare: tuple[dict[str, Exhibit], Path]) -> None:
    """Accuracies and latencies of ours stay empty; the page says "not here"."""
    for exhibit in bare[0].values():
        for table in exhibit.comparisons:
            for place, quantity in enumerate(table.quantities):
                counted = "MAdds" in quantity.title or quantity.title in (
                    "params (M)",
                    "convolutions (B)",
                )
                if not counted:
                    assert all(line.pairs[place].ours is None for line in table.lines), table.title
    assert "not here" in (bare[1] / "reproduce.html").read_text()
    assert not (bare[1] / "latencies.json").exists()


def test_every_gap_names_a_command_that_exists(bare: tuple[dict[str, Exhibit], Path]) -> None:
    """Its words, its options and its network are known."""
    import typer.main

    from bneck.cli.main import app

    group: Any = typer.main.get_command(app)
    seen = 0
    for exhibit in bare[0].values():
        if exhibit.name not in ("table1", "table2", "figure2"):
            assert exhibit.missing, exhibit.name
        for line in exhibit.missing:
            program, word, network, *options = shlex.split(line)
            assert program == "bneck"
            known = {name for p in group.commands[word].params for name in p.opts}
            assert {o for o in options if o.startswith("--")} <= known, line
            if word == "train":
                resolve(network)
            seen += 1
    assert seen > 60


def test_counts_and_the_paper_s_ratios(bare: tuple[dict[str, Exhibit], Path]) -> None:
    exhibits = bare[0]
    madds = cell(exhibits["table9"], "ImageNet top-1", "v3-large", "MAdds (M)")
    assert (madds.paper, round(madds.ours or 0, 2)) == (217, 216.59)
    ratio = cell(exhibits["table3"], "Latency", "v3-large", "ratio", "Pixel 1")
    assert ratio == Pair(51 / 64)
    assert cell(exhibits["table4"], "8-bit", "v2", "8-bit / float") == Pair(52 / 64)
    assert cell(exhibits["table5"], "h-swish", "v3-large", "unfused / fused") == Pair(57.5 / 51.4)
    assert cell(exhibits["table6"], "Latency", "v3-large+dagger", "over V2") == Pair(119 / 162)
    # 34.3M by hand in docs/paper.md: the depthwise, the projection and the 1280 conv at 7 x 7.
    saved = next(
        line
        for line in exhibits["figure9"].comparisons[0].lines
        if line.label == "efficient last stage"
    ).pairs[1]
    assert (saved.paper, round(saved.ours or 0, 1)) == (30, 34.3)


def test_handed_in_latencies_become_ratios_round_by_round(tmp_path: Path) -> None:
    """3/4, 6/4 and 4/4 have the median 1, whatever the medians of the times are."""
    file = tmp_path / "times.json"
    file.write_text(json.dumps([record("v2", 4.0, [4, 4, 4]), record("v3-large", 9.0, [3, 6, 4])]))
    found = reproduce("table3", latencies=[file], out=tmp_path / "out")
    pair = cell(found.exhibits[0], "Latency", "v3-large", "ratio", "Pixel 1")
    assert (pair.paper, pair.ours) == (51 / 64, 1.0)
    assert pair.low == pytest.approx(0.8)  # a fifth of the way from 0.75 to 1
    assert cell(found.exhibits[0], "Latency", "v3-large", "ms", "Pixel 1").ours == 9.0
    assert cell(found.exhibits[0], "Latency", "mnasnet-a1", "ratio", "Pixel 1").ours is None
    again = reproduce("table3", latencies=[tmp_path / "out/latencies.json"], out=tmp_path / "two")
    assert again.exhibits == found.exhibits


def test_what_is_published_stands_in_figure_1_at_its_latency_here(tmp_path: Path) -> None:
    """timm's scores: V3-Small 67.9, LCNet 72.1, V4-Conv-S 73.8, V3-Large 77.9; Table 9's at 192 px."""
    ms = {"v3-small": 2.0, "v4-conv-small": 4.0, "lcnet": 5.0, "v3-large": 7.0}
    times = [record(name, value, [value] * 3) for name, value in ms.items()]
    times.append(record("v3-large@192", 6.0, [6, 6, 6]) | {"resolution": 192})
    file = tmp_path / "times.json"
    file.write_text(json.dumps(times))
    (found,) = reproduce("figure1", latencies=[file], out=tmp_path / "out").exhibits
    assert [chart.title for chart in found.charts] == [
        "The paper",
        "Here",
        "Published until today, here",
    ]
    series = {one.name: [(p.x, p.y) for p in one.points] for one in found.charts[2].series}
    assert series == {
        "front": [(2.0, 67.9), (4.0, 73.8), (7.0, 77.9)],
        "V3-Large": [(7.0, 77.9)],
        "V3-Large, other px": [(6.0, 73.7)],
        "V3-Small": [(2.0, 67.9)],
        "V4": [(4.0, 73.8)],
        "LCNet": [(5.0, 72.1)],
    }
    (table,) = found.plain
    assert table.rows[:3] == (
        ("v3-small", "67.9", "timm", "2", "yes"),
        ("v4-conv-small", "73.8", "timm", "4", "yes"),
        ("lcnet", "72.1", "timm", "5", ""),
    )


def test_what_is_published_is_listed_where_nothing_was_measured(
    bare: tuple[dict[str, Exhibit], Path],
) -> None:
    """Each with a score and a source that bneck zoo --published has too, if at the usual resolution."""
    figure = bare[0]["figure1"]
    assert [chart.title for chart in figure.charts] == ["The paper"]
    known = {
        (one["network"], f"{one['top1']:g}", one["source"]) for one in published_table("*").values
    }
    rows = [row for row in figure.plain[0].rows if "@" not in row[0]]
    assert {row[0] for row in rows} == {name for name, *_ in known if "@" not in name}
    for name, top1, source, ms, ahead in rows:
        assert (name, top1, source) in known
        assert (ms, ahead) == (NONE, "")


def test_latencies_of_segmenters_go_by_their_size(tmp_path: Path) -> None:
    """Ratios of CPU time round by round: 2/4, 3/4 and 4/4 at half size, nothing at full."""
    file, names = tmp_path / "times.json", ("v2+os16 raspp256", "v3-large+os16 raspp256")
    rounds = ([4, 4, 4], [2, 3, 4])
    sides = {"resolution": 512, "width": 1024}
    times = [record(name, 4.0, own) | sides for name, own in zip(names, rounds, strict=True)]
    detector = record("ssdlite v2", 7.0, [7, 7, 7]) | {"runtime_version": "2"}
    file.write_text(json.dumps([*times, detector]))
    found = reproduce("table7", "table6", latencies=[file], out=tmp_path / "out")
    boxes, pixels = found.exhibits
    line = next(line for line in pixels.comparisons[1].lines if line.label.startswith("5: "))
    ms, ratio, full_ms, full_ratio = line.pairs
    assert (ms.paper, ms.ours, ratio.paper, ratio.ours) == (906, 4.0, 906 / 1020, 0.75)
    assert (full_ms.ours, full_ratio.ours) == (None, None)
    assert cell(boxes, "Latency", "v2", "ms", "Pixel 1").ours == 7.0
    assert "onnxruntime 1, 1 thread, batch 1, random weights, scores at full" in pixels.notes[-1]
    assert "onnxruntime 2, 1 thread, batch 1, random weights; medians" in boxes.notes[-1]


def test_a_measurement_survives_json() -> None:
    values = record("v2", 4.0, [4, 4, 4], "int8")
    one = Measurement.from_json(values)
    assert Measurement.from_json(json.loads(json.dumps(one.as_json()))) == one
    assert one.rounds_ms == (4, 4, 4)


def trained(
    folder: Path, name: str, network: str, score: float, images: int, classes: int, **options: Any
) -> Path:
    """A made-up training run of a task."""
    folder.mkdir()
    chosen = task(name)
    spec, wrapper = chosen.arrange(network, chosen.Options(**options), None)
    if name == "classify":
        spec = with_classes(spec, classes)
    spec = fix_skips(spec)
    (folder / "spec.yaml").write_text(to_text(spec))
    (folder / "run.json").write_text(
        json.dumps(
            {
                "format": FORMAT, "kind": "train", "state": "finished", "task": name,
                "metric": chosen.metric.name, "wrapper": chosen.stored(spec, wrapper),
                "classes": [str(i) for i in range(classes)],
                "data": {"name": "pictures", "path": "x", "splits": {"train": 9, "val": images}},
                "scores": {"val": {"split": "val", "images": images, "score": score}},
            }
        )
    )  # fmt: skip
    return folder


def test_an_accuracy_comes_from_a_run_on_imagenet_alone(tmp_path: Path) -> None:
    """50,000 images of 1,000 classes go into the table; a run on other images into a note."""
    real = trained(tmp_path / "real", "classify", "v3-large", 0.745, 50_000, 1000)
    small = trained(tmp_path / "small", "classify", "v3-small", 0.91, 1_500, 10)
    found = reproduce("table3", runs=[real, small], measure=False, out=tmp_path / "out")
    exhibit = found.exhibits[0]
    large = cell(exhibit, "ImageNet top-1", "v3-large", "top-1 (%)")
    assert (large.paper, large.ours) == (75.2, 74.5)
    assert cell(exhibit, "ImageNet top-1", "v3-small", "top-1 (%)").ours is None
    assert any("91.0 % top-1 on pictures (1,500 images, 10 classes)" in n for n in exhibit.notes)
    missing = [line.split()[2] for line in exhibit.missing]
    assert "v3-large" not in missing
    assert "v3-small" in missing


def test_an_accuracy_of_every_task_finds_its_row(tmp_path: Path) -> None:
    """A network whose width scales its tail, and segmenters that differ by their head's filters."""
    runs = [
        trained(tmp_path / "coco", "detect", "v2-0.35", 0.125, 5_000, 80),
        trained(tmp_path / "cells", "detect", "v3-small", 0.6, 36, 3),
        trained(tmp_path / "small", "detect", "v3-large", 0.2, 5_000, 80, resolution=256),
        trained(tmp_path / "streets", "segment", "v3-large+rf2+os16", 0.75, 500, 19, filters=256),
        trained(tmp_path / "half", "segment", "v3-small+rf2", 0.6, 500, 19, size="512x1024"),
    ]
    found = reproduce("table6", "table7", runs=runs, measure=False, out=tmp_path / "out")
    boxes, pixels = found.exhibits
    coco = [line for line in boxes.comparisons[0].lines if line.pairs[0].ours is not None]
    assert [(line.network, line.pairs[0]) for line in coco] == [("v2-0.35", Pair(13.7, 12.5))]
    assert any("60.0 % mAP on pictures (36 images, 3 classes)" in note for note in boxes.notes)
    assert any("20.0 % mAP on pictures (5,000 images" in note for note in boxes.notes)
    city = [line for line in pixels.comparisons[0].lines if line.pairs[0].ours is not None]
    assert [line.label for line in city] == ["7: v3-large+rf2+os16 lraspp256"]
    assert city[0].pairs[0] == Pair(72.37, 75.0)
    assert any("60.0 % mIOU on pictures (500 images, 19 classes)" in note for note in pixels.notes)
    assert (len(boxes.missing), len(pixels.missing)) == (10, 10)


def test_the_accuracy_of_a_search_is_that_of_what_it_found(tmp_path: Path) -> None:
    """The mean over its final trainings, with the wrapper that its record has."""
    folder = trained(tmp_path / "run", "detect", "v2", 0.0, 5_000, 90)
    record = json.loads((folder / "run.json").read_text())
    found = {"spec": (folder / "spec.yaml").read_text(), "scores": [0.2, 0.22]}
    searched = {**record, "kind": "search", "found": found, "scores": None}
    (folder / "run.json").write_text(json.dumps(searched))
    assert Scores([folder]).best("detect", "v2") == pytest.approx(21.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": {}}, "has no accuracy yet; finish the run"),
        ({"kind": "search"}, "has no accuracy yet; finish the run"),
        ({"kind": "import"}, "is an import, which nobody judged; run bneck evaluate"),
    ],
)
def test_a_run_without_an_accuracy(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder = trained(tmp_path / "run", "classify", "v2", 0.7, 50_000, 1000)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **changes}))
    with pytest.raises(InputError, match=said):
        Scores([folder])


def test_scores_of_quantised_files_and_of_evaluations(tmp_path: Path) -> None:
    (tmp_path / "quantize.json").write_text(
        json.dumps(
            {"network": "v2", "task": "classify", "data": "x", "images": {"val": 50_000},
             "rows": [{"name": n, "score": t} for n, t in (("naive", 0.3), ("ptq", 0.7), ("qat", 0.71))]}
        )
    )  # fmt: skip
    file = tmp_path / "judged.json"
    file.write_text(
        json.dumps(
            {"network": "gone", "name": "v2", "task": "classify", "metric": "top-1",
             "precision": "fp32", "split": "val", "images": 50_000, "score": 0.72, "top5": 0.9,
             "classes": 1001, "crop": "central", "resolution": 224}
        )
    )  # fmt: skip
    scores = Scores([tmp_path, file])
    assert (scores.top1("v2", "int8"), scores.top1("v2")) == (71.0, 72.0)
    assert scores.top1("v2@192") is None


def test_an_evaluation_of_a_detector_is_its_run_s(tmp_path: Path) -> None:
    """What is round the network, and how many classes it knows, is in the run's folder."""
    run = trained(tmp_path / "run", "detect", "v3-large+dagger", 0.1, 36, 80)
    values = {"name": "v3-large+dagger", "task": "detect", "split": "val", "images": 5_000}
    for place in (run, run / "model.onnx"):
        file = tmp_path / "judged.json"
        file.write_text(json.dumps({**values, "network": str(place), "score": 0.215}))
        assert Scores([file]).best("detect", "v3-large+dagger") == 21.5
    file.write_text(json.dumps({**values, "network": "gone", "score": 0.215}))
    with pytest.raises(InputError, match="holds no accuracy"):
        Scores([file])


def test_padding_and_residuals_written_down_change_no_network() -> None:
    spec = resolve("v3-small")
    assert architecture(fix_skips(with_classes(spec, 7))) == architecture(spec)
    assert architecture(resolve("v3-small@192")) != architecture(spec)


def test_unfused_h_swish_computes_the_same() -> None:
    """Four operators for one, the same scores."""
    import onnxruntime

    spec = resolve("v3-small-0.35@32")
    weights = random_weights(layers(spec), np.random.default_rng(0))
    model, slow = network_graph(spec, weights), network_graph(spec, weights, hswish="split")
    assert {node.op_type for node in model.graph.node} - {n.op_type for n in slow.graph.node} == {
        "HardSwish"
    }
    image = np.random.default_rng(1).standard_normal((1, 3, 32, 32), dtype=np.float32)
    answers = [
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"image": image})[0]
        for m in (model, slow)
    ]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)


def test_the_command_prints_and_writes(call: Call, tmp_path: Path) -> None:
    answer = call("reproduce", "table3", "--no-measure", "--out", str(tmp_path))
    assert answer.code == 0
    assert re.search(r"V3-Large 1\.0 +75\.2 +not here +219 +216\.6 +0\.989", answer.out)
    assert "bneck train v2-0.35 --data IMAGENET --recipe paper" in answer.out
    found = json.loads(
        call("reproduce", "table9", "--no-measure", "--json", "--out", str(tmp_path / "b")).out
    )
    assert found["exhibits"][0]["name"] == "table9"
    assert {Path(file).name for file in found["files"]} == {
        *("reproduce.html", "reproduce.md", "reproduce.json")
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table10"], "there is no 'table10' to reproduce; known are table1, table2"),
        (["table3", "--threads", "0"], "threads is 0; it must be at least 1"),
        (["table3", "--runtime", "nnapi"], "nnapi does not run precision 'fp32'; it runs none"),
        (["table3", "--runs", "nowhere"], "nowhere is not a run folder: it has no run.json"),
        (["table3", "--latencies", "nowhere.json"], "nowhere.json holds no latencies; give what"),
    ],
)
def test_bad_input_ends_in_one_sentence(call: Call, arguments: list[str], said: str) -> None:
    assert refusal(call("reproduce", *arguments)).startswith(said)


@pytest.mark.parametrize("text", ["", "[1]", '{"measurements": [{}]}', '[{"network": "v2"}]', "{}"])
def test_files_that_hold_no_latencies(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.json"
    file.write_text(text)
    with pytest.raises(InputError, match="holds no latencies"):
        reproduce("table3", latencies=[file], out=tmp_path / "out")


@pytest.mark.slow
def test_quick_tables_are_measured_here(tmp_path: Path) -> None:
    """Table 5 with its unfused column and Table 4 in 8 bits: every cell of ours is there."""
    found = reproduce("table4", "table5", quick=True, out=tmp_path)
    for exhibit in found.exhibits:
        for table in exhibit.comparisons[1:]:
            for place, quantity in enumerate(table.quantities):
                if quantity.paper not in ("Pixel 2", "Pixel 3"):
                    missing = [line.label for line in table.lines if line.pairs[place].ours is None]
                    assert missing in ([], ["ReLU"]), quantity.title
    assert "Latencies: local" in found.exhibits[0].notes[-1]
    assert len(EXHIBITS) == 14


@pytest.mark.slow
def test_quick_detectors_and_segmenters_are_measured_here(tmp_path: Path) -> None:
    """Every row of Tables 6 and 8 has its own latency and ratio, at half size alone."""
    found = reproduce("table6", "table8", quick=True, out=tmp_path)
    boxes, pixels = (exhibit.comparisons[1].lines for exhibit in found.exhibits)
    assert all(pair.ours for line in boxes for pair in line.pairs)
    assert all(line.pairs[0].ours and line.pairs[1].ours for line in pixels)
    assert not any(line.pairs[2].ours or line.pairs[3].ours for line in pixels)
    again = reproduce("table8", latencies=[tmp_path / "latencies.json"], out=tmp_path / "two")
    assert again.exhibits == found.exhibits[1:]
