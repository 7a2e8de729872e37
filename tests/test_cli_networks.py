"""The commands that need no data: names and spec files, counts, tables, measurements."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import bneck
import bneck.runs.measure
from bneck import runs
from bneck.costs.published import PUBLISHED
from bneck.devices import protocol
from bneck.imports.published import KNOWN
from bneck.specs.text import from_text, to_text
from bneck.specs.zoo import NETWORKS, network
from commands import Call, refusal


class TestCount:
    def test_json_has_whole_numbers(self, call: Call) -> None:
        answer = call("count", "v3-large", "--json")
        assert (answer.code, answer.err) == (0, "")
        found = json.loads(answer.out)
        assert found["params"] == 5_483_032  # docs of the issue; 5.4M in Table 3
        assert type(found["params"]) is type(found["madds"]) is int
        assert sum(row["madds"] for row in found["rows"]) == found["madds"]
        assert sum(row["params"] for row in found["rows"]) == found["params"]

    def test_a_resolution_may_follow_the_name(self, call: Call) -> None:
        at_112 = json.loads(call("count", "v3-small@112", "--json").out)
        at_224 = json.loads(call("count", "v3-small", "--json").out)
        assert at_112["resolution"] == 112
        assert at_112["params"] == at_224["params"]
        assert at_112["madds"] < at_224["madds"] / 3

    def test_several_networks_make_a_list(self, call: Call, tiny_file: Path) -> None:
        found = json.loads(call("count", "v3-small", tiny_file, "--json").out)
        assert [one["network"] for one in found] == ["v3-small", str(tiny_file)]

    def test_a_person_reads_a_table(self, call: Call) -> None:
        answer = call("count", "v3-small")
        assert answer.code == 0
        assert "2,542,856" in answer.out

    def test_a_spec_file_counts_like_the_network_it_holds(self, call: Call, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(to_text(network("v3-small")))
        mine, known = (json.loads(call("count", n, "--json").out) for n in (path, "v3-small"))
        assert (mine["params"], mine["madds"]) == (known["params"], known["madds"])


class TestShow:
    @pytest.mark.parametrize("name", [*NETWORKS, "v3-large-0.75@160", "v3-small-1.25"])
    def test_text_round_trips(self, call: Call, name: str) -> None:
        answer = call("show", name, "--text")
        assert answer.code == 0
        assert from_text(answer.out) == network(name)

    def test_text_of_a_file_is_the_file(self, call: Call, tiny_file: Path) -> None:
        assert call("show", tiny_file, "--text").out == tiny_file.read_text()

    def test_json_holds_spec_and_costs(self, call: Call) -> None:
        found = json.loads(call("show", "v3-small", "--json").out)
        assert from_text(found["spec"]) == network("v3-small")
        assert found["params"] == bneck.count("v3-small").params

    def test_the_table_has_a_line_for_every_row(self, call: Call) -> None:
        lines = call("show", "v3-small").out.splitlines()
        assert sum("bneck" in line for line in lines) == 11  # Table 2
        assert any("total" in line and "2,542,856" in line for line in lines)


class TestMeasure:
    def test_json_is_a_list_of_records(
        self, call: Call, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quick = partial(protocol.Protocol, burst_ms=1.0, max_repeats=1, max_spread=1e9)
        monkeypatch.setattr(runs.measure, "Protocol", quick)
        answer = call("measure", tiny_file, "v3-small@32", "--rounds", 3, "--json")
        assert (answer.code, answer.err) == (0, "measuring (3)\n")
        found = json.loads(answer.out)
        assert [one["network"] for one in found] == ["tiny", "v3-small@32"]
        for one in found:
            assert (one["runtime"], one["precision"], one["threads"]) == ("onnxruntime", "fp32", 1)
            assert one["n"] >= 9
            spread = one["latency_ms"]
            assert set(spread) == {"median", "p10", "p90"}
            assert 0 < spread["p10"] <= spread["median"] <= spread["p90"]
        table = call("measure", tiny_file, "--rounds", 3)
        assert table.code == 0
        assert "tiny" in table.out

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ((), "Missing argument 'networks'; see --help"),
            (
                ("v3-small", "--rounds", 2),
                "threads is 1 and rounds 2; they must be at least 1 and 3",
            ),
            (
                ("v3-small", "--threads", 0),
                "threads is 0 and rounds 20; they must be at least 1 and 3",
            ),
            (
                ("v3-small", "--runtime", "tensorrt"),
                "there is no runtime 'tensorrt'; known are onnxruntime, litert, openvino, executorch, "
                "torch, torch-compiled",
            ),
        ],
    )
    def test_refusals(self, call: Call, arguments: tuple[Any, ...], sentence: str) -> None:
        assert refusal(call("measure", *arguments)) == sentence


class TestNames:
    @pytest.mark.parametrize("command", ["show", "count", "measure"])
    def test_an_unknown_network_is_answered_with_near_ones(self, call: Call, command: str) -> None:
        sentence = refusal(call(command, "v3-smal"))
        assert "there is no network 'v3-smal'; did you mean v3-small" in sentence

    def test_in_a_search_too_and_no_folder_is_made(
        self, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert "there is no network 'resnet'" in refusal(call("search", "--seed-network", "resnet"))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("frobnicate",), "No such command 'frobnicate'; see --help"),
            (("meassure",), "No such command 'meassure'; did you mean 'measure'; see --help"),
            (("count", "v3-small", "--colour"), "No such option: --colour"),
            (("search", "--steps", "many"), "Invalid value for '--steps'"),
        ],
    )
    def test_unknown_words(self, call: Call, arguments: tuple[str, ...], sentence: str) -> None:
        assert refusal(call(*arguments)).startswith(sentence)


class TestSpecFiles:
    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("dropout:", "drop_out:", "has an unknown key 'drop_out'; known are name, "),
            ("act: hswish,", "act: swish, ", "act is 'swish'; allowed are linear, relu"),
            ("out: 48,", "out: -48,", "out is -48; it must be a whole number of at least 1"),
            ("kernel: 5,", "kernel: 4,", "kernel is 4; it must be odd"),
            ("kernel: 5,", "cernel: 5,", "row 3 (bneck) has an unknown key 'cernel'"),
            (
                "stride: 2}",
                "stride: 2, skip: 'yes'}",
                "row 1 asks for a residual that cannot add up: stride 2, ",
            ),
            ("bneck: 1", "bneck: 7", "has format 7; this version reads 'bneck: 1'"),
            ("rows:", "rows: [", "is not yaml near line"),
        ],
    )
    def test_what_cannot_be_is_named_with_its_file(
        self, call: Call, tiny_file: Path, tmp_path: Path, old: str, new: str, sentence: str
    ) -> None:
        text = tiny_file.read_text()
        assert old in text
        path = tmp_path / "broken.yaml"
        path.write_text(text.replace(old, new, 1))
        said = refusal(call("count", path))
        assert said.startswith(f"{path}: ")
        assert sentence in said

    def test_no_such_file(self, call: Call, tmp_path: Path) -> None:
        path = tmp_path / "none.yaml"
        assert refusal(call("show", path)) == f"{path} cannot be read: No such file or directory"


class TestZoo:
    def test_every_family_is_listed_and_what_differs_from_print_is_marked(self, call: Call) -> None:
        answer = call("zoo")
        assert (answer.code, answer.err) == (0, "")
        listed = [line.split() for line in answer.out.splitlines()]
        assert {cells[0] for cells in listed if cells} >= set(NETWORKS)
        assert ["v3-large", "5.483", "5.4", "216.59", "219", "*"] in [cells[:6] for cells in listed]
        assert ["v3-large", "5.483", "5.4", "216.59", "217", "75.2"] in [c[:6] for c in listed]

    def test_json_holds_exact_counts_and_the_printed_rows(self, call: Call) -> None:
        found = json.loads(call("zoo", "v3-small@96", "--json").out)
        assert [one["network"] for one in found] == ["v3-small@96"]
        assert found[0]["params"] == 2_542_856
        assert found[0]["published"][0]["source"] == "Table 9"
        assert found[0]["published"][0]["differs"] is False

    def test_a_name_stands_for_what_begins_with_it_and_stars_are_stars(self, call: Call) -> None:
        def names(pattern: str) -> list[str]:
            return [one["network"] for one in json.loads(call("zoo", pattern, "--json").out)]

        assert names("v1") == ["v1"]
        assert names("v3-*@96") == ["v3-large@96", "v3-small@96"]

    def test_published_scores_have_their_source_and_weights(self, call: Call) -> None:
        found = json.loads(call("zoo", "v3-small", "--published", "--json").out)
        assert {
            "network": "v3-small", "params": 2_542_856, "madds": bneck.count("v3-small").madds, "top1": 67.7,
            "source": "timm", "weights": "timm/mobilenetv3_small_100.lamb_in1k", "license": "apache-2.0",
            "json_version": 1,
        } in found  # fmt: skip
        assert {"network": "v3-small@96", "top1": 51.7, "source": "Table 9"}.items() <= next(
            one.items() for one in found if one["network"] == "v3-small@96"
        )
        scores = [one["top1"] for one in found if one["network"] == "v3-small"]
        assert scores == sorted(scores, reverse=True)
        everything = json.loads(call("zoo", "--published", "--json").out)
        assert {one["network"] for one in everything} == {
            *(one.network for one in KNOWN), *(row.network for row in PUBLISHED if row.top1),
        }  # fmt: skip
        assert {one["weights"] for one in everything} - {None} == {one.name for one in KNOWN}
        # What timm prints beside weights of its own stands there once.
        assert [one["top1"] for one in everything if one["network"] == "v4-conv-small"] == [73.8]
        table = call("zoo", "v4", "--published").out
        assert "timm/mobilenetv4_conv_medium.e500_r224_in1k" in table

    def test_nothing_is_published_about_detectors_or_such_a_name(self, call: Call) -> None:
        said = refusal(call("zoo", "--published", "--task", "detect"))
        assert said.startswith("no published scores of the task detect are known; choose another")
        said = refusal(call("zoo", "proxyless-mobile-0.5", "--published"))
        assert said == (
            "nothing is published about a network called 'proxyless-mobile-0.5'; see: bneck zoo --published"
        )

    def test_nothing_of_that_name(self, call: Call) -> None:
        said = refusal(call("zoo", "resnet"))
        assert said == "no network of the zoo is called 'resnet'; see: bneck zoo"
