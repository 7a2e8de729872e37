"""Latency tables: calibration and error by hand; files that a kill cannot spoil."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.costs.table import Key, LatencyTable, RowShape, TableError, Widths, row_keys
from bneck.costs.table_file import header_line, network_line, read_table, row_line
from bneck.records.ledger import Ledger
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.transforms import rename, scale_width
from bneck.specs.zoo import V3_SMALL

CONV = RowShape("conv", 8, 8, act="relu")
POOL = RowShape("pool", 8, 8)


def table(shape: RowShape, rows: Mapping[Any, float]) -> LatencyTable:
    filled = LatencyTable({"processor": "by hand"})
    for widths, ms in rows.items():
        filled.add_row(shape, widths, ms)
    return filled


SQUARE = {(8, 16): 1.0, (8, 32): 3.0, (24, 16): 5.0, (24, 32): 11.0}


class TestUnanswered:
    @pytest.mark.parametrize("widths", [(7, 16), (25, 16), (8, 15), (24, 33), (0, 0)])
    def test_outside_what_was_measured_the_shape_is_named(self, widths: Widths) -> None:
        with pytest.raises(
            TableError, match="cannot answer for a conv at 8x8 with widths"
        ) as caught:
            table(CONV, SQUARE).row_ms(CONV, widths)
        assert str(widths) in str(caught.value)
        assert isinstance(caught.value, InputError)

    def test_the_measured_range_is_named(self) -> None:
        with pytest.raises(
            TableError, match="it measured 8 to 24 there; fill it for this network first"
        ):
            table(CONV, SQUARE).row_ms(CONV, (32, 16))

    def test_a_shape_never_measured_is_named(self) -> None:
        with pytest.raises(TableError, match=r"a pool at 8x8 .* it measured nothing there"):
            table(CONV, SQUARE).row_ms(POOL, (8,))

    def test_many_widths_at_once_are_answered_as_one_by_one(self) -> None:
        filled, axes = filled_for(SMALL), (range(4, 40, 2), range(12, 76, 4))
        for into, out in product((16, 24, 32), (16, 32, 64)):
            filled.add_row(CONV, (into, out), 0.1 + into * out / 1000)
        for (i, into), (j, out) in product(*map(enumerate, axes)):
            try:
                wanted = filled.row_ms(CONV, (into, out))
            except TableError:
                wanted = math.inf
            assert filled.rows_ms(CONV, axes)[i, j] == pytest.approx(wanted)
        assert np.isinf(filled.rows_ms(replace(POOL, height=5), [[8, 16]])).all()

    def test_a_row_measured_later_is_seen(self) -> None:
        filled = filled_for(SMALL)
        filled.add_row(CONV, (16, 16), 1.0)
        before = filled.row_ms(CONV, (16, 16))
        filled.add_row(CONV, (16, 16), 9.0)
        assert filled.row_ms(CONV, (16, 16)) == pytest.approx(9 * before, rel=1e-3)


SMALL = NetSpec(
    name="small",
    resolution=9,
    classes=10,
    padding="same",
    rows=(
        Conv(3, 16, "hswish", 2),  # 9 x 9 -> 5 x 5
        Bneck(3, 16, 24, 8, "relu", 2),  # no expand conv -> 3 x 3; 16 / 4, rounded to 8
        Bneck(1, 64, 24, 5, "relu6", dilation=2),  # a squeeze width of its own
        Conv(1, 32, "hswish"),
        Pool(),
        Conv(1, 64, "hswish", bn=False),
    ),
)


def test_the_keys_of_a_network_are_its_rows_and_the_classifier() -> None:
    assert list(row_keys(SMALL)) == [
        (RowShape("conv", 9, 9, kernel=3, stride=2, act="hswish", padding="same"), (3, 16)),
        (
            RowShape(
                "bneck",
                5,
                5,
                kernel=3,
                stride=2,
                act="relu",
                se="quarter",
                gate="hsigmoid",
                padding="same",
            ),
            (16, 24),
        ),
        (
            RowShape("bneck", 3, 3, dilation=2, act="relu6", se="5", gate="hsigmoid", expands=True),
            (24, 64, 24),
        ),
        (RowShape("conv", 3, 3, act="hswish"), (24, 32)),
        (RowShape("pool", 3, 3), (32,)),
        (RowShape("conv", 1, 1, act="hswish"), (32, 64)),
        (RowShape("conv", 1, 1), (64, 10)),
    ]


CLASSIFIER = (RowShape("conv", 1, 1), (64, 10))


def times(n: int) -> tuple[Key, ...]:
    """The rows of a network of n classifiers."""
    return (CLASSIFIER,) * n


def filled_for(spec: NetSpec) -> LatencyTable:
    """Rows of 1, 2, 4, 8 ... ms; a whole network takes 1.5 times the sum of its rows and 0.25 ms."""
    filled = LatencyTable({})
    for n, (shape, widths) in enumerate(row_keys(spec)):
        filled.add_row(shape, widths, 2.0**n)
    for n in range(1, 9):
        filled.add_network(times(n), 1.5 * 64 * n + 0.25, held_out=False)
    return filled


class TestNetworks:
    def test_an_estimate_is_the_line_through_the_sum_of_the_rows(self) -> None:
        filled = filled_for(SMALL)
        # 1 + 2 + 4 + 8 + 16 + 32 + 64, each row as it was measured, but for what damps the law.
        assert filled.estimate_ms(SMALL) == pytest.approx(1.5 * 127 + 0.25, rel=2e-3)

    @settings(deadline=None)
    @given(st.floats(0.5, 2.0), st.floats(-0.4, 3.0))
    def test_the_line_is_recovered(self, scale: float, offset: float) -> None:
        filled = LatencyTable({})
        filled.add_row(*CLASSIFIER, 1.0)
        for n in range(1, 9):
            filled.add_network(times(n), scale * n + offset, held_out=False)
            filled.add_network(times(n), 1000 * scale * n, held_out=True)  # calibrates nothing
        for n in range(1, 20):
            assert filled._estimate_ms(times(n)) == pytest.approx(scale * n + offset, rel=1e-3)

    def test_the_line_is_of_least_relative_error(self) -> None:
        # The small networks are met exactly. At 10 rows the line is at the y where
        # (y / 10 - 1)^2 + (y / 30 - 1)^2 is least: y (1/100 + 1/900) = 1/10 + 1/30, so 12; plain least
        # squares would say 20.
        filled = LatencyTable({})
        filled.add_row(*CLASSIFIER, 1.0)
        for ms in (10.0, 10.0, 30.0, 30.0):
            filled.add_network(times(1), 1.0, held_out=False)
            filled.add_network(times(10), ms, held_out=False)
        assert filled._estimate_ms(times(1)) == pytest.approx(1, rel=1e-2)
        assert filled._estimate_ms(times(10)) == pytest.approx(12, rel=1e-2)

    def test_rows_that_cost_more_inside_a_network_are_told_apart(self) -> None:
        """One shape takes 1.3 times what it takes alone, the other as long as alone."""
        other = (POOL, (64,))
        filled = LatencyTable({})
        filled.add_row(*CLASSIFIER, 1.0)
        filled.add_row(*other, 1.0)
        rng = np.random.default_rng(0)
        for a, b in rng.integers(1, 9, (24, 2)):
            filled.add_network(times(a) + (other,) * int(b), 1.3 * a + b, held_out=False)
        ratio = filled.row_ms(*CLASSIFIER) / filled.row_ms(*other)
        assert ratio == pytest.approx(1.3, abs=0.02)

    def test_a_network_measured_later_draws_estimates_of_its_like_to_what_it_took(self) -> None:
        filled = filled_for(SMALL)
        before = filled.estimate_ms(SMALL)
        filled.learn(SMALL, 1.1 * before)
        filled.learn(V3_SMALL, 1.0)  # of other shapes: it says nothing here
        assert 1.05 * before < filled.estimate_ms(SMALL) < 1.1 * before

    def test_fewer_than_8_networks_calibrate_nothing(self) -> None:
        filled = filled_for(SMALL)
        filled.networks = [(keys, ms, len(keys) > 7) for keys, ms, _ in filled.networks]
        with pytest.raises(
            TableError, match="is calibrated on 7 networks; it needs 8 or more, fill it again"
        ):
            filled.estimate_ms(SMALL)

    def test_the_error_is_of_the_networks_held_out(self) -> None:
        filled = filled_for(SMALL)
        with pytest.raises(TableError, match="no held-out networks; fill it again"):
            filled.error()
        # Measured so that one is estimated 10 % too low and one 30 % too high.
        for n, off in ((2, 0.9), (4, 1.3)):
            ms = filled._estimate_ms(times(n)) / off
            filled.add_network(times(n), ms, held_out=True)
        error = filled.error()
        assert error.networks == 2
        assert error.median == pytest.approx(0.2)
        assert error.bias == pytest.approx(0.1)
        assert error.p95 == pytest.approx(0.1 + 0.95 * 0.2)
        assert (
            str(error)
            == "error on 2 held-out networks: median 20.0%, 95th percentile 29.0%, mean +10.0%"
        )

    def test_a_table_covers_what_it_can_answer(self) -> None:
        filled = filled_for(SMALL)
        assert filled.covers(SMALL)
        assert filled.covers(rename(SMALL, "another"))
        assert not filled.covers(scale_width(SMALL, 0.5))
        assert not filled.covers(V3_SMALL)


def write(path: Path) -> LatencyTable:
    """A table of SMALL's rows and 8 networks, line by line as filling writes it."""
    filled, file = filled_for(SMALL), Ledger(path)
    filled.header = {"processor": "by hand", "threads": 1}
    file.append(header_line(filled.header))
    for shape, entries in filled.rows.items():
        file.append(*(row_line(shape, widths, ms) for widths, ms in entries.items()))
    file.append(*(network_line(*network) for network in filled.networks))
    return filled


class TestFile:
    def test_what_is_written_reads_back(self, tmp_path: Path) -> None:
        written, read = write(tmp_path / "t.jsonl"), read_table(tmp_path / "t.jsonl")
        assert (read.header, read.rows, read.networks) == (
            written.header,
            written.rows,
            written.networks,
        )
        assert read.estimate_ms(SMALL) == written.estimate_ms(SMALL)

    def test_a_torn_last_line_is_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        written = write(path)
        whole = path.read_bytes()
        last = whole[:-1].rfind(b"\n") + 1
        for cut in (last + 1, (last + len(whole)) // 2, len(whole) - 1):
            path.write_bytes(whole[:cut])
            assert read_table(path).networks == written.networks[:-1]
            assert path.read_bytes() == whole[:cut]  # reading changes nothing

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b'{"table": 2, "threads": 1}\n',
            b'{"threads": 1}\n',
            b'{"table": 3',
            b"not a table\n",
            b"\x89PNG\r\n\x1a\n\x00\x00",
            b'[1, 2]\n"text"\n3\n',
            b'{"table": 3}\n{"row": ["conv"], "widths": [8]}\n',
            b'{"table": 3}\n{"row": 5, "widths": [8], "ms": 1}\n',
            b'{"table": 3}\n{"network": [1, 2]}\n',
            b'{"table": 3}\n{"network": [5, 2, true]}\n',
            b'{"table": 3}\n{"event": "trial"}\n',
        ],
    )
    def test_what_is_no_table_of_this_version_is_refused(
        self, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "t.jsonl").write_bytes(content)
        with pytest.raises(
            TableError, match=r"t\.jsonl is not a latency table of this version; fill it again"
        ):
            read_table(tmp_path / "t.jsonl")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TableError, match=r"absent\.jsonl is not a latency table"):
            read_table(tmp_path / "absent.jsonl")
        with pytest.raises(TableError, match="is not a latency table"):
            read_table(tmp_path)
