"""Latency tables: interpolation, calibration and error by hand; files that a kill cannot spoil."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.costs.table import LatencyTable, Line, RowShape, TableError, Widths, row_keys
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
LINE = {(8,): 1.0, (16,): 2.0, (32,): 6.0}


class TestBetween:
    """The first of a row's two sums: between its measured neighbours."""

    def test_a_measured_width_is_answered_exactly(self) -> None:
        filled = table(CONV, SQUARE)
        assert [filled.row_ms(CONV, widths)[0] for widths in SQUARE] == [1.0, 3.0, 5.0, 11.0]

    @pytest.mark.parametrize(
        ("width", "ms"), [(8, 1.0), (12, 1.5), (16, 2.0), (24, 4.0), (32, 6.0)]
    )
    def test_one_width_lies_on_the_line_between_its_neighbours(self, width: int, ms: float) -> None:
        assert table(POOL, LINE).row_ms(POOL, (width,))[0] == pytest.approx(ms)

    @pytest.mark.parametrize(
        ("widths", "ms"),
        [
            ((16, 24), (1 + 3 + 5 + 11) / 4),  # the middle of the cell
            ((16, 16), (1 + 5) / 2),  # the middle of an edge
            ((24, 24), (5 + 11) / 2),  # the middle of the last edge
            ((12, 20), 9 / 16 * 1 + 3 / 16 * 3 + 3 / 16 * 5 + 1 / 16 * 11),  # a quarter along both
        ],
    )
    def test_two_widths_weigh_the_corners_of_their_cell(self, widths: Widths, ms: float) -> None:
        assert table(CONV, SQUARE).row_ms(CONV, widths)[0] == pytest.approx(ms)

    def test_a_width_that_never_varied_needs_no_neighbour(self) -> None:
        assert table(CONV, {(3, 8): 1.0, (3, 16): 2.0}).row_ms(CONV, (3, 12))[0] == pytest.approx(
            1.5
        )

    @settings(deadline=None)
    @given(st.tuples(st.integers(8, 40), st.integers(8, 40), st.integers(8, 40)))
    def test_a_multilinear_law_is_recovered(self, widths: Widths) -> None:
        def law(a: int, b: int, c: int) -> float:
            return 0.5 + 0.1 * a + 0.02 * b + 0.03 * c + 0.004 * a * b + 0.0001 * a * b * c

        grid = [(a, b, c) for a in (8, 16, 40) for b in (8, 24, 32, 40) for c in (8, 40)]
        shape = RowShape("bneck", 8, 8, expands=True)
        filled = table(shape, {w: law(*w) for w in grid})
        assert filled.row_ms(shape, widths)[0] == pytest.approx(law(*widths))


class TestRoundedUp:
    """The second: at the next multiple of 16, where a width itself was not measured."""

    @pytest.mark.parametrize(
        ("width", "ms"), [(8, 1.0), (9, 2.0), (16, 2.0), (17, 6.0), (24, 6.0), (32, 6.0)]
    )
    def test_a_width_costs_what_the_next_block_costs(self, width: int, ms: float) -> None:
        assert table(POOL, LINE).row_ms(POOL, (width,))[1] == pytest.approx(ms)

    def test_two_widths_are_rounded_each(self) -> None:
        # (12, 24) becomes (16, 32): halfway between (8, 32) and (24, 32).
        assert table(CONV, SQUARE).row_ms(CONV, (12, 24))[1] == pytest.approx((3 + 11) / 2)

    def test_the_widest_measured_is_never_exceeded(self) -> None:
        filled = table(POOL, {(8,): 1.0, (20,): 4.0})
        assert filled.row_ms(POOL, (14,)) == pytest.approx((2.5, 3.0))  # 16 lies two thirds along
        assert filled.row_ms(POOL, (17,)) == pytest.approx(
            (3.25, 4.0)
        )  # 32 was not measured, 20 was


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

    def test_a_hole_in_the_grid_is_noticed(self) -> None:
        holed = table(CONV, {k: v for k, v in SQUARE.items() if k != (24, 32)})
        assert holed.row_ms(CONV, (8, 24)) == pytest.approx(
            (2.0, 3.0)
        )  # needs only two that are there
        with pytest.raises(TableError, match="only partly filled; fill it again"):
            holed.row_ms(CONV, (16, 24))

    def test_many_widths_at_once_are_answered_as_one_by_one(self) -> None:
        holed = table(CONV, {k: v for k, v in SQUARE.items() if k != (24, 32)})
        for ms in range(1, 9):
            holed.add_network((ms, ms + 0.5 * ms**0.5), 2 * ms + ms**0.5, held_out=False)
        line, axes = holed.line(), (range(4, 30, 2), range(12, 36, 4))
        assert line.rounding == 1
        for (i, into), (j, out) in product(*map(enumerate, axes)):
            try:
                wanted = line(holed.row_ms(CONV, (into, out))) - line.offset_ms
            except TableError:
                wanted = math.inf
            assert holed.rows_ms(CONV, axes)[i, j] == pytest.approx(wanted)
        assert np.isinf(holed.rows_ms(POOL, [[8, 16]])).all()

    def test_a_row_measured_later_is_seen(self) -> None:
        filled = table(POOL, LINE)
        assert filled.row_ms(POOL, (12,)) == pytest.approx((1.5, 2.0))
        filled.add_row(POOL, (12,), 9.0)
        assert filled.row_ms(POOL, (12,)) == (9.0, 9.0)


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


def filled_for(spec: NetSpec) -> LatencyTable:
    """Rows of 1, 2, 4, 8 ... ms; a whole network takes 1.5 times the sum of its rows and 0.25 ms."""
    filled = LatencyTable({})
    for n, (shape, widths) in enumerate(row_keys(spec)):
        filled.add_row(shape, widths, 2.0**n)
    for ms in range(1, 9):
        filled.add_network((float(ms), float(ms)), 1.5 * ms + 0.25, held_out=False)
    return filled


# Sums of rows, between and rounded up, of networks that rounding meets in different degrees.
SUMS = [
    (1.0, 1.2),
    (1.5, 2.0),
    (2.0, 2.1),
    (4.0, 5.0),
    (4.5, 4.6),
    (8.0, 10.0),
    (16.0, 17.0),
    (40.0, 41.0),
]


class TestNetworks:
    def test_an_estimate_is_the_line_through_the_sum_of_the_rows(self) -> None:
        filled = filled_for(SMALL)
        assert filled.sum_rows(SMALL) == (127.0, 127.0)  # 1 + 2 + 4 + 8 + 16 + 32 + 64
        assert (filled.line().scale, filled.line().offset_ms) == pytest.approx((1.5, 0.25))
        assert filled.estimate_ms(SMALL) == pytest.approx(1.5 * 127 + 0.25)

    def test_a_line_by_hand(self) -> None:
        # Halfway from 10 to 14 is 12.
        assert Line(rounding=0.5, scale=1.5, offset_ms=0.25)((10.0, 14.0)) == pytest.approx(
            1.5 * 12 + 0.25
        )

    @settings(deadline=None)
    @given(
        st.sampled_from([0, 0.25, 0.5, 0.75, 1, 1.25]), st.floats(0.5, 2.0), st.floats(-0.4, 3.0)
    )
    def test_the_line_is_recovered(self, rounding: float, scale: float, offset: float) -> None:
        filled = LatencyTable({})
        for between, up in SUMS:
            ms = scale * (between + rounding * (up - between)) + offset
            filled.add_network((between, up), ms, held_out=False)
            filled.add_network((between, up), 1000 * ms, held_out=True)  # calibrates nothing
        line = filled.line()
        assert line.rounding == rounding
        assert (line.scale, line.offset_ms) == pytest.approx((scale, offset), abs=1e-8)

    def test_the_line_is_of_least_relative_error(self) -> None:
        # The small networks are met exactly. At 10 ms of rows the line is at the y where
        # (y / 10 - 1)^2 + (y / 30 - 1)^2 is least: y (1/100 + 1/900) = 1/10 + 1/30, so 12; plain least
        # squares would say 20.
        filled = LatencyTable({})
        for ms in (10.0, 10.0, 30.0, 30.0):
            filled.add_network((1.0, 1.0), 1.0, held_out=False)
            filled.add_network((10.0, 10.0), ms, held_out=False)
        assert filled.line()((1.0, 1.0)) == pytest.approx(1)
        assert filled.line()((10.0, 10.0)) == pytest.approx(12)

    def test_a_network_measured_later_moves_the_line(self) -> None:
        filled = filled_for(SMALL)
        before = filled.line()
        filled.add_network((8.0, 8.0), 99.0, held_out=False)
        assert filled.line() != before

    def test_fewer_than_8_networks_calibrate_nothing(self) -> None:
        filled = filled_for(SMALL)
        filled.networks = [(sums, ms, sums[0] > 7) for sums, ms, _ in filled.networks]
        with pytest.raises(
            TableError, match="is calibrated on 7 networks; it needs 8 or more, fill it again"
        ):
            filled.estimate_ms(SMALL)

    def test_the_error_is_of_the_networks_held_out(self) -> None:
        filled = filled_for(SMALL)
        with pytest.raises(TableError, match="no held-out networks; fill it again"):
            filled.error()
        # Estimated 3.25 ms and 6.25 ms; measured so that one is 10 % too low and one 30 % too high.
        filled.add_network((2.0, 2.0), 3.25 / 0.9, held_out=True)
        filled.add_network((4.0, 4.0), 6.25 / 1.3, held_out=True)
        error = filled.error()
        assert error.networks == 2
        assert error.median == pytest.approx(0.2)
        assert error.p95 == pytest.approx(0.1 + 0.95 * 0.2)
        assert str(error) == "error on 2 held-out networks: median 20.0%, 95th percentile 29.0%"

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
            b'{"table": 1, "threads": 1}\n',
            b'{"threads": 1}\n',
            b'{"table": 2',
            b"not a table\n",
            b"\x89PNG\r\n\x1a\n\x00\x00",
            b'[1, 2]\n"text"\n3\n',
            b'{"table": 2}\n{"row": ["conv"], "widths": [8]}\n',
            b'{"table": 2}\n{"row": 5, "widths": [8], "ms": 1}\n',
            b'{"table": 2}\n{"network": [1, 2]}\n',
            b'{"table": 2}\n{"network": [5, 2, true]}\n',
            b'{"table": 2}\n{"event": "trial"}\n',
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
