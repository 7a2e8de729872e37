"""Detectors as values: structure, anchors and counts, by hand and against Table 6."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.runs.networks import zoo
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.zoo import network
from bneck.tasks.detect.count import TABLE6, count_detector
from bneck.tasks.detect.head import Detector, anchors, features, head_layers, maps, ssdlite
from commands import Call, refusal
from drawn import specs

PRINTED = Path(__file__).parents[2] / "shared/paper/tables/table6_ssdlite_coco.csv"

# Computed outside this project from the authors' structure: parameters without and with batch norm's,
# multiply-adds of convolutions, with elementwise ones; 91 slots, 320 px.
EXACT = {
    "v3-large": (4_966_591, 5_006_735, 0.6131, 0.6205),
    "v3-large+dagger": (3_215_311, 3_248_255, 0.5066, 0.5134),
    "v3-small": (2_493_487, 2_518_271, 0.2104, 0.2143),
    "v3-small+dagger": (1_765_279, 1_785_743, 0.1623, 0.1658),
}


def names(detector: Detector) -> list[tuple[int, int]]:
    return [(one.width, one.size[0]) for one in maps(detector)]


class TestTable6:
    @pytest.mark.parametrize("name", EXACT)
    def test_v3_is_exact(self, name: str) -> None:
        costs = count_detector(ssdlite(name))
        params, every, madds, elementwise = EXACT[name]
        assert (costs.params_table6, costs.params) == (params, every)
        assert costs.madds / 1e9 == pytest.approx(madds, abs=5e-5)
        assert costs.madds_elementwise / 1e9 == pytest.approx(elementwise, abs=5e-5)

    def test_v3_rounds_to_what_is_printed(self) -> None:
        for row in zoo("v3-*", task="detect"):
            assert f"{row['counted']['params_table6'] / 1e6:.2f}" == row["params_m"]
            assert row["counted"]["madds"] / 1e9 == pytest.approx(float(row["madds_b"]), abs=0.01)

    def test_the_exceptions_are_these(self) -> None:
        rows = zoo(task="detect")
        differing = [row["network"] for row in rows if row["differs"]]
        assert differing == ["v1", "v2", "mnasnet-a1", "mnasnet-a1-0.5"]
        assert all(row["note"] for row in rows if row["differs"])
        # V1 and V2 fit with the 81 slots of the MobileNetV2 paper, MnasNet within 1 %.
        for row in zoo("v[12]", task="detect"):
            assert f"{row['params_81_slots'] / 1e6:.1f}" == row["params_m"]
        for row in zoo("mnasnet", task="detect"):
            assert row["counted"]["params_table6"] / 1e6 == pytest.approx(
                float(row["params_m"]), rel=0.01
            )

    @pytest.mark.data
    @pytest.mark.skipif(not PRINTED.is_file(), reason=f"{PRINTED} is absent")
    def test_the_rows_are_the_paper_s(self) -> None:
        lines = [line for line in PRINTED.read_text().splitlines() if not line.startswith("#")]
        rows = list(csv.DictReader(lines))
        assert [(r["backbone"], r["params_m"], r["madds_b"]) for r in rows] == [
            (row.label, row.params_m, row.madds_b) for row in TABLE6
        ]
        assert [(float(r["map"]), float(r["latency_ms"])) for r in rows] == [
            (row.map, row.latency_ms) for row in TABLE6
        ]

    def test_an_unknown_network(self) -> None:
        with pytest.raises(InputError, match=r"Table 6 has no network 'v9'; it has v1, v2"):
            zoo("v9", task="detect")


class TestStructure:
    def test_maps_of_the_paper(self) -> None:
        tail = [(512, 5), (256, 3), (256, 2), (128, 1)]
        assert names(ssdlite("v3-large+dagger")) == [(672, 20), (480, 10), *tail]
        assert names(ssdlite("v3-small+dagger")) == [(288, 20), (288, 10), *tail]
        assert names(ssdlite("v3-small")) == [(288, 20), (576, 10), *tail]
        assert names(ssdlite("v2")) == [(576, 20), (1280, 10), *tail]
        assert names(ssdlite("mnasnet-a1")) == [(672, 20), (1280, 10), *tail]

    def test_where_nothing_expands_c4_is_the_row_s_input(self) -> None:
        found = ssdlite("v1")
        assert not found.taps_expansion
        assert [one.width for one in maps(found)[:2]] == [512, 1024]
        assert maps(found)[0].layer == f"rows.{found.c4_row - 1}.project"

    def test_a_width_scales_the_last_conv_and_the_further_maps(self) -> None:
        assert names(ssdlite("v2-0.5"))[1:] == [(640, 10), (256, 5), (128, 3), (128, 2), (64, 1)]
        assert [w for w, _ in names(ssdlite("v2-0.35"))] == [192, 448, 179, 89, 89, 44]
        # A spec that is written down says itself how wide it is.
        assert [w for w, _ in names(ssdlite(network("v2-0.5")))][1:3] == [1280, 512]

    def test_heads_share_nothing_and_predict_with_a_bias(self) -> None:
        heads = list(head_layers(ssdlite("v3-small")))
        assert [layer.kind for layer in heads] == ["depthwise", "conv"] * 12
        predicts = heads[1::2]
        assert [layer.out for layer in predicts] == [12, 273] + [24, 546] * 5
        assert not any(layer.bn for layer in predicts)
        assert all(layer.bn and layer.act == "relu6" for layer in heads[0::2])

    def test_sizes_follow_the_resolution(self) -> None:
        assert [size for _, size in names(ssdlite("v3-small@256"))] == [16, 8, 4, 2, 1, 1]
        assert ssdlite("v3-small@256", resolution=224).resolution == 224
        assert [s for _, s in names(ssdlite("v3-small", resolution=300))] == [19, 10, 5, 3, 2, 1]

    def test_by_hand(self) -> None:
        spec = NetSpec(
            name="hand",
            rows=(
                Conv(3, 8, "relu", 2),
                Bneck(3, 16, 8, 0, "relu", 2),
                Bneck(3, 8, 8, 0, "relu"),
                Pool(),
            ),
        )
        found = Detector(network=spec, classes=2, resolution=32, extras=(32,))
        # 32 px: stem 16, row 1 expands 8 -> 16 at 16 px (C4), C5 8 channels at 8 px, then 32 at 4.
        assert names(found) == [(16, 16), (8, 8), (32, 4)]
        backbone = 3 * 8 * 9 + (8 * 16 + 16 * 9 + 16 * 8) + (8 * 9 + 8 * 8)
        backbone_bn = 2 * (8 + (16 + 16 + 8) + (8 + 8))
        extras, extras_bn = 8 * 16 + 16 * 9 + 16 * 32, 2 * (16 + 16 + 32)
        # A depthwise and a 1x1 conv with bias a head; 3 boxes of 4 numbers or 3 slots, then 6.
        heads = [(16, 12), (16, 9), (8, 24), (8, 18), (32, 24), (32, 18)]
        head = sum(w * 9 + w * out + out for w, out in heads)
        costs = count_detector(found)
        assert costs.params_table6 == backbone + extras + head
        assert costs.params == costs.params_table6 + backbone_bn + extras_bn + 2 * 2 * 56
        assert costs.anchors == 256 * 3 + 64 * 6 + 16 * 6
        madds = 3 * 8 * 9 * 256 + 8 * 16 * 256 + (16 * 9 + 16 * 8 + 8 * 9 + 8 * 8) * 64
        madds += 8 * 16 * 64 + (16 * 9 + 16 * 32) * 16
        cells = (256, 256, 64, 64, 16, 16)
        madds += sum((w * 9 + w * o) * c for (w, o), c in zip(heads, cells, strict=True))
        assert costs.madds == madds
        assert sum(part.madds for part in costs.parts) == madds
        assert sum(part.params for part in costs.parts) == costs.params


class TestAnchors:
    def test_of_the_paper(self) -> None:
        found = anchors(ssdlite("v3-large"))
        assert len(found) == 1200 + 600 + 150 + 54 + 24 + 6
        assert found[0] == pytest.approx((0.5 / 20, 0.5 / 20, 0.1, 0.1))
        assert found[1] == pytest.approx((0.025, 0.025, 0.2 * math.sqrt(2), 0.2 / math.sqrt(2)))
        assert found[3][:2] == pytest.approx((1.5 / 20, 0.5 / 20))  # columns go first
        ten = found[1200:1206]
        assert {box[:2] for box in ten} == {(0.05, 0.05)}
        assert ten[0][2:] == pytest.approx((0.35, 0.35))
        assert ten[5][2:] == pytest.approx((math.sqrt(0.35 * 0.5),) * 2)
        assert found[-1] == pytest.approx((0.5, 0.5, *[math.sqrt(0.95)] * 2))
        # Ratio 3: as wide as three heights, not cut at the image's edge.
        width, height = found[-3][2:]
        assert width / height == pytest.approx(3)
        assert width > 1

    @settings(max_examples=20, deadline=None)
    @given(st.integers(32, 400), st.sampled_from(["v3-small", "v1", "v2-0.35"]))
    def test_as_many_as_are_predicted(self, resolution: int, name: str) -> None:
        found = ssdlite(name, classes=3, resolution=resolution)
        boxes = anchors(found)
        assert len(boxes) == count_detector(found).anchors
        assert all(0 < x < 1 and 0 < y < 1 and w > 0 and h > 0 for x, y, w, h in boxes)


@settings(max_examples=40, deadline=None)
@given(specs())
def test_any_network_with_a_strided_row_can_be_a_backbone(spec: NetSpec) -> None:
    strided = any(
        not isinstance(row, Pool) and row.stride == 2 for row in spec.rows[1 : spec.pool_at]
    )
    if not strided:
        with pytest.raises(InputError, match="has no row with stride 2 after its stem"):
            Detector(network=spec)
        return
    found = Detector(network=spec, classes=1, resolution=64)
    walk = {layer.name: layer for layer in found.layers()}
    assert [walk[m.layer].out for m in maps(found)] == [m.width for m in maps(found)]
    assert [walk[m.layer].size_out for m in maps(found)] == [m.size for m in maps(found)]
    assert maps(found)[1].layer == list(features(found))[-1].name


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"classes": 0}, "classes is 0; it must be a whole number of at least 1"),
            ({"classes": True}, "classes is True"),
            ({"resolution": 31}, "resolution is 31; it must be a whole number of at least 32"),
        ],
    )
    def test_numbers(self, change: dict[str, int], said: str) -> None:
        with pytest.raises(InputError, match=said):
            ssdlite("v3-small", **change)

    def test_extras(self) -> None:
        with pytest.raises(InputError, match="one or more widths"):
            Detector(network=network("v3-small"), extras=())


class TestCommands:
    def test_count(self, call: Call) -> None:
        found = json.loads(call("count", "v3-small+dagger", "--task", "detect", "--json").out)
        assert found["params_table6"] == 1_765_279
        assert found["anchors"] == 2034
        assert "1,765,279" in call("count", "v3-small+dagger", "--task", "detect").out

    def test_zoo(self, call: Call) -> None:
        found = json.loads(call("zoo", "--task", "detect", "--json").out)
        assert len(found) == 11
        assert call("zoo", "v3", "--task", "detect").out.count("v3-") == 4

    def test_options_of_detection_alone(self, call: Call) -> None:
        said = refusal(call("count", "v3-small", "--classes", 3))
        assert said.startswith(
            "--classes is an option of the task detect or segment, and this is cl"
        )
