"""Filling a latency table: what it holds, what it answers, and how it survives."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bneck.costs.table import LatencyTable, RowShape, TableError, row_keys
from bneck.costs.table_file import read_table
from bneck.devices.fill import FLOOR, Effort, fill_table, grid, plan_for_all
from bneck.devices.protocol import Protocol
from bneck.nas.netadapt import narrowest
from bneck.runs.search.latency import seed_plan
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import from_text, to_text
from bneck.specs.transforms import (
    random_widths,
    scale_width,
    with_classes,
    with_out,
    with_resolution,
)
from bneck.specs.zoo import network
from forked import Forked
from simulated_device import SimulatedDevice
from test_shrink import UNIVERSAL

V3_SMALL, V3_LARGE = network("v3-small"), network("v3-large@96")


def narrower(seed: NetSpec, count: int = 10) -> list[NetSpec]:
    """The widest, NetAdapt's narrowest, and others between."""
    rng = random.Random(1)
    return [seed, narrowest(seed), *(random_widths(seed, rng) for _ in range(count))]


class TestGrid:
    # 16, 24, 96 and 576 classes are widths of V3-Small's rows as well.
    @pytest.mark.parametrize("classes", [2, 16, 24, 96, 576, 1000])
    @pytest.mark.parametrize(
        "seed", [V3_SMALL, V3_LARGE, network("v4-conv-small")], ids=lambda seed: seed.name
    )
    def test_it_covers_every_narrower_network(self, seed: NetSpec, classes: int) -> None:
        seed = with_classes(seed, classes)
        table = LatencyTable({})
        for entry in grid(seed):
            table.add_row(*entry, 1.0)
        assert [spec for spec in narrower(seed, 30) if not table.covers(spec)] == []

    def test_it_covers_a_network_whose_head_is_as_wide_as_a_row(self) -> None:
        rows = (Conv(3, 32, "relu", 2), Bneck(3, 64, 32, 0, "relu"), Pool(), Conv(1, 32, "relu"))
        seed = NetSpec(name="same", rows=rows, resolution=32, classes=32)
        table = LatencyTable({})
        for entry in grid(seed):
            table.add_row(*entry, 1.0)
        assert [spec for spec in narrower(seed, 30) if not table.covers(spec)] == []

    @pytest.mark.parametrize("width", [0.25, 0.35, 0.5, 0.75, 0.9])
    def test_it_covers_uniform_widths_that_keep_every_row(self, width: float) -> None:
        table = LatencyTable({})
        for entry in grid(V3_SMALL):
            table.add_row(*entry, 1.0)
        uniform = scale_width(V3_SMALL, width)
        kept = {shape for shape, _ in row_keys(V3_SMALL)} == {s for s, _ in row_keys(uniform)}
        assert table.covers(uniform) or not kept

    @pytest.mark.parametrize("seed", [V3_SMALL, V3_LARGE], ids=lambda seed: seed.name)
    def test_a_shape_has_few_entries_and_none_twice(self, seed: NetSpec) -> None:
        entries = grid(seed)
        assert len(entries) == len(set(entries))
        counts = Counter(shape for shape, _ in entries if shape.kind != "context")
        assert max(counts.values()) <= 24
        # 11 layers of widths in V3-Small's rows, a third that of a full grid
        assert len(entries) < 25 * len(counts)

    def test_an_axis_goes_from_8_channels_to_the_widest_by_ratios(self) -> None:
        # Rows 4 to 8 of Table 2 at 14 x 14: (40, 240, 40) twice, (40, 120, 48), (48, 144, 48).
        shape = RowShape("bneck", 14, 14, 5, 1, 1, "hswish", "quarter", "hsigmoid", expands=True)
        widths = [w for s, w in grid(V3_SMALL) if s == shape]
        for axis, most in zip(zip(*widths, strict=True), (48, 240, 48), strict=True):
            points = sorted(set(axis))
            assert (points[0], points[-1]) == (FLOOR, most)
            assert all(b <= 2 * a for a, b in pairwise(points))
            assert all(point % 16 == 0 for point in points[1:])

    def test_rows_with_a_residual_are_measured_with_one_width_in_and_out(self) -> None:
        # Rows 10 and 11 of Table 2: the only ones of stride 1 at 7 x 7.
        shape = RowShape("bneck", 7, 7, 5, 1, 1, "hswish", "quarter", "hsigmoid", expands=True)
        widths = [w for s, w in grid(V3_SMALL) if s == shape]
        assert {w[0] == w[2] for w in widths} == {True}
        assert {w[0] for w in widths} == {8, 16, 32, 64, 96}

    def test_contexts_of_all_borders_come_before_all_rows(self, tiny: NetSpec) -> None:
        entries = grid(tiny)
        kinds = [shape.kind for shape, _ in entries]
        contexts = kinds.count("context")
        assert set(kinds[:contexts]) == {"context"}
        known = set(entries[:contexts])
        for shape, widths in entries[contexts:]:
            behind = -(-shape.height // shape.stride) if shape.kind != "pool" else 1
            assert (RowShape("context", behind, behind), widths[-1:]) in known
            if widths[0] != tiny.channels:
                assert (RowShape("context", shape.height, shape.width), widths[:1]) in known

    def test_channels_of_the_image_and_classes_are_not_varied(self, tiny: NetSpec) -> None:
        stem = [w for s, w in grid(tiny) if s.kind == "conv" and s.height == 32]
        classifier = [w for s, w in grid(tiny) if s.kind == "conv" and s.act == "linear"]
        assert {into for into, _ in stem} == {3}
        assert {out for _, out in classifier} == {3}


FEW = {"count": 16}  # fewer make no line
HURRIED = Protocol(
    rounds=5, burst_ms=0.5, least_runs=3, warmup=1, first_warmup=1, max_repeats=1, max_spread=1e9
)
QUICK = Effort(rows=HURRIED, networks=HURRIED, batch=16)


def filled(
    seed: NetSpec, path: Path, device: SimulatedDevice | None = None, **more: Any
) -> LatencyTable:
    """A small table, by default of a device without noise."""
    device = device or SimulatedDevice("simulated:fill")
    plan = seed_plan(seed, **FEW)
    return fill_table(seed, path, plan=plan, place=device.place(), effort=QUICK, **more)


@pytest.fixture(scope="module")
def tiny_table(tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table for the tiny network. Copy it before changing it."""
    path = tmp_path_factory.mktemp("tables") / "tiny.jsonl"
    filled(tiny, path)
    return path


class TestFill:
    def test_it_answers_for_every_narrower_network(self, tiny: NetSpec, tiny_table: Path) -> None:
        table = read_table(tiny_table)
        estimates = [table.estimate_ms(spec) for spec in narrower(tiny)]
        assert min(estimates) > 0
        assert set(grid(tiny)) == {
            (shape, widths) for shape, known in table.rows.items() for widths in known
        }

    def test_it_holds_its_error_on_networks_that_did_not_calibrate_it(
        self, tiny_table: Path
    ) -> None:
        table = read_table(tiny_table)
        assert [held_out for *_, held_out in table.networks] == [False, True] * 8
        error = table.error()
        assert error.networks == 8
        assert 0 <= error.median <= error.p95
        assert str(error).startswith("error on 8 held-out networks: median ")

    def test_its_head_says_where_and_how_it_was_measured(
        self, tiny: NetSpec, tiny_table: Path
    ) -> None:
        header = read_table(tiny_table).header
        assert header["digest"] == tiny.digest()
        assert header["resolution"] == 32
        assert (header["runtime"], header["threads"], header["place"], header["processor"]) == (
            "onnxruntime",
            1,
            "simulated:fill",
            "simulated",
        )
        assert header["reference_ms"] == pytest.approx(SimulatedDevice().network_ms(tiny))

    def test_a_second_fill_measures_nothing(
        self, tiny: NetSpec, tiny_table: Path, tmp_path: Path
    ) -> None:
        path = Path(shutil.copy(tiny_table, tmp_path / "table.jsonl"))
        told: list[tuple[Any, ...]] = []
        again = filled(tiny, path, progress=lambda *at: told.append(at))
        assert told == []
        assert path.read_bytes() == tiny_table.read_bytes()
        assert again.estimate_ms(tiny) == read_table(tiny_table).estimate_ms(tiny)

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
    def test_a_file_cut_off_is_completed_and_keeps_what_it_had(
        self, tiny: NetSpec, tiny_table: Path, tmp_path: Path, share: float
    ) -> None:
        whole = tiny_table.read_bytes()
        torn = whole[: int(len(whole) * share)]
        path = tmp_path / "table.jsonl"
        path.write_bytes(torn)
        filled(tiny, path)
        kept = torn[: torn.rfind(b"\n") + 1]
        assert path.read_bytes()[: len(kept)] == kept
        assert_complete(tiny, path)

    def test_only_what_is_missing_is_measured(
        self, tiny: NetSpec, tiny_table: Path, tmp_path: Path
    ) -> None:
        lines = tiny_table.read_text().splitlines(keepends=True)
        path = tmp_path / "table.jsonl"
        missing = [i for i, line in enumerate(lines) if '"bneck"' in line][:3]
        path.write_text("".join(line for i, line in enumerate(lines) if i not in missing))
        told: list[tuple[str, int, int]] = []
        filled(tiny, path, progress=lambda *at: told.append(at))
        assert told == [("rows", 3, 3)]
        assert_complete(tiny, path)

    def test_kill_9_at_any_moment_loses_nothing_finished(
        self, tiny: NetSpec, tmp_path: Path
    ) -> None:
        path, rng = tmp_path / "table.jsonl", random.Random(os.getpid())
        for _ in range(2):
            before = path.stat().st_size if path.exists() else 0
            child = Forked(fill, to_text(tiny), path, folder=tmp_path)
            wait_for(lambda: path.exists() and path.stat().st_size > before, child)  # noqa: B023
            time.sleep(rng.uniform(0, 0.3))
            child.kill()
            child.wait()
            data = path.read_bytes()
            kept = data[: data.rfind(b"\n") + 1]
        filled(tiny, path)
        assert path.read_bytes()[: len(kept)] == kept
        assert_complete(tiny, path)

    def test_a_row_is_its_time_without_half_of_the_convolutions_around_it(
        self, tiny: NetSpec, tmp_path: Path
    ) -> None:
        device = SimulatedDevice(work=lambda model: 1.0)
        table = filled(tiny, tmp_path / "table.jsonl", device)
        for shape, known in table.rows.items():
            # A context is timed as it is; only the stem has no convolution before it.
            expected = {"context": 1.0}.get(shape.kind, 0.5 if shape.height == 32 else 0.0)
            assert list(known.values()) == pytest.approx([expected] * len(known)), shape


class TestAgainstTheTruth:
    """A simulated device's true times are known, so a table can be wrong."""

    @staticmethod
    def errors(seed: NetSpec, table: LatencyTable, device: SimulatedDevice) -> list[float]:
        """Of estimates of networks that the table never measured, at the pace of the table."""
        pace = float(table.header["reference_ms"]) / device.network_ms(seed)
        rng = random.Random(5)
        specs = [random_widths(seed, rng) for _ in range(10)]
        return [abs(table.estimate_ms(s) / device.network_ms(s) / pace - 1) for s in specs]

    def test_a_table_of_a_steady_device_is_right(self, tiny: NetSpec, tmp_path: Path) -> None:
        device = SimulatedDevice()
        table = filled(tiny, tmp_path / "t.jsonl", device)
        assert max(self.errors(tiny, table, device)) < 0.005
        assert table.error().p95 < 0.005

    def test_a_device_that_slows_to_a_third_gives_the_same_table(
        self, tiny: NetSpec, tmp_path: Path
    ) -> None:
        steady = SimulatedDevice()
        filled(tiny, tmp_path / "steady.jsonl", steady)
        slow = SimulatedDevice(slowdown=lambda seconds: 1 + 2 * seconds / steady.seconds)
        table = filled(tiny, tmp_path / "slow.jsonl", slow)
        assert slow.slowdown(slow.seconds) > 3
        assert max(self.errors(tiny, table, slow)) < 0.01

    def test_delays_of_five_per_cent_a_run_do_not_show(self, tiny: NetSpec, tmp_path: Path) -> None:
        device = SimulatedDevice(noise=0.05, seed=3)
        table = filled(tiny, tmp_path / "t.jsonl", device)
        assert max(self.errors(tiny, table, device)) < 0.03

    def test_no_row_takes_less_than_no_time(self, tiny: NetSpec, tmp_path: Path) -> None:
        """A row that hardly takes any comes out below the convolutions around it by noise alone."""
        device = SimulatedDevice(noise=0.3, seed=1, work=lambda model: 1.0)
        table = filled(tiny, tmp_path / "t.jsonl", device)
        times = [
            ms for shape, known in table.rows.items() for ms in known.values()
            if shape.kind != "context" and shape.height != 32
        ]  # fmt: skip
        assert min(times) == 0.0
        assert max(times) > 0.0, "noise goes both ways"
        assert read_table(tmp_path / "t.jsonl").rows == table.rows

    def test_bursts_that_others_disturb_are_not_what_a_table_holds(
        self, tiny: NetSpec, tmp_path: Path
    ) -> None:
        device = SimulatedDevice(disturbed=lambda burst: 2.0 if burst % 5 == 0 else 0.0)
        table = filled(tiny, tmp_path / "t.jsonl", device)
        assert max(self.errors(tiny, table, device)) < 0.005


def fill(seed: str, path: Path) -> None:
    filled(from_text(seed), path)


def wait_for(happened: Any, child: Forked) -> None:
    """Until something happened, or its process has ended without it."""
    while not happened() and child.poll() is None:
        time.sleep(0.01)


def assert_complete(seed: NetSpec, path: Path) -> None:
    lines = path.read_text().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    table = read_table(path)
    entries = [(shape, w) for shape, known in table.rows.items() for w in known]
    assert set(entries) == set(grid(seed))
    assert len(table.networks) == 16
    assert len(lines) == 1 + len(entries) + 16, "something was measured twice"
    assert table.error().networks == 8


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("onnxruntime", "fp32"),
        ("litert", "fp32"),
        ("litert", "int8"),
        pytest.param("openvino", "fp32", marks=pytest.mark.slow),
        pytest.param("openvino", "int8", marks=pytest.mark.slow),
    ],
)
def test_a_table_of_this_machine(tiny: NetSpec, tmp_path: Path, name: str, precision: str) -> None:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(name, name))
    path, plan = tmp_path / "t.jsonl", seed_plan(tiny, **FEW)
    table = fill_table(tiny, path, plan=plan, runtime_name=name, precision=precision, effort=QUICK)
    assert_complete(tiny, path)
    assert (table.header["runtime"], table.header["precision"]) == (name, precision)
    assert table.header["place"] == "local"
    assert table.estimate_ms(tiny) > 0
    other = "int8" if precision == "fp32" else "fp32"
    with pytest.raises(InputError, match=rf"{name} in {precision} on 1 thread; this is for {name}"):
        fill_table(tiny, path, plan=plan, runtime_name=name, precision=other)


def test_a_table_of_every_bottleneck_of_v4(tmp_path: Path) -> None:
    seed, path = with_resolution(UNIVERSAL, 32), tmp_path / "t.jsonl"
    table = fill_table(seed, path, plan=seed_plan(seed, **FEW), effort=QUICK)
    assert_complete(seed, path)
    shapes = {shape for shape in table.rows if shape.kind == "bneck"}
    assert {(s.start, s.kernel, s.stride) for s in shapes} == {
        (3, 5, 2), (0, 3, 1), (3, 0, 1), (0, 0, 1), (5, 0, 2),
    }  # fmt: skip
    assert all(table.covers(spec) for spec in narrower(seed))


def test_torch_has_no_tables_of_lone_rows(tiny: NetSpec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no latency tables for the runtime torch; take onnxr"):
        fill_table(tiny, tmp_path / "t.jsonl", plan=seed_plan(tiny), runtime_name="torch")


class TestRefused:
    @pytest.mark.parametrize(
        "change", [lambda s: with_classes(s, 5), lambda s: with_resolution(s, 64)]
    )
    def test_a_table_of_another_network_is_left_alone(
        self, tiny: NetSpec, tiny_table: Path, tmp_path: Path, change: Any
    ) -> None:
        path = Path(shutil.copy(tiny_table, tmp_path / "table.jsonl"))
        with pytest.raises(TableError, match=r"is a latency table for tiny; .* name another file$"):
            fill_table(change(tiny), path, plan=seed_plan(change(tiny)))
        assert path.read_bytes() == tiny_table.read_bytes()

    def test_a_ledger_of_something_else_is_no_table(self, tiny: NetSpec, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        path.write_text('{"event": "trial"}\n')
        with pytest.raises(TableError, match="is not a latency table of this version"):
            fill_table(tiny, path, plan=seed_plan(tiny))
        assert path.read_text() == '{"event": "trial"}\n'

    def test_unknown_runtimes_and_places_leave_no_file(self, tiny: NetSpec, tmp_path: Path) -> None:
        path = tmp_path / "table.jsonl"
        with pytest.raises(InputError, match="no runtime 'abacus'; known are onnxruntime"):
            fill_table(tiny, path, plan=seed_plan(tiny), runtime_name="abacus")
        with pytest.raises(InputError, match="no device 'moon'; known are local"):
            fill_table(tiny, path, plan=seed_plan(tiny), place="moon")
        assert not path.exists()


def test_a_plan_for_several_networks_spans_their_widths_in_whole_blocks(tiny: NetSpec) -> None:
    wider = with_out(tiny, (2, 3), 72)  # 48 in tiny
    plan = plan_for_all([tiny, wider], [tiny], name="two", digest="abc")
    widths: dict[tuple[str, int, int], set[tuple[int, ...]]] = {}
    for shape, entry in plan.entries:
        widths.setdefault((shape.kind, shape.height, shape.kernel), set()).add(entry)
    # Row 2: 24 channels in both, 128 expanded, 48 or 72 out; 72 is rounded up to a whole block.
    assert widths["bneck", 8, 3] == {(24, 128, 48), (24, 128, 80)}
    # Row 3: 48 or 72 in and out, 192 expanded.
    assert widths["bneck", 4, 5] == {(i, 192, o) for i in (48, 80) for o in (48, 80)}
    table = LatencyTable({})
    for shape, entry in plan.entries:
        table.add_row(shape, entry, 1.0)
    assert table.covers(tiny)
    assert table.covers(wider)
    assert table.covers(with_out(tiny, (2, 3), 56))
    assert plan.draw(table, plan.count) == [tiny]


def test_contexts_come_before_the_rows_that_need_them(tiny: NetSpec) -> None:
    kinds = [shape.kind for shape, _ in seed_plan(tiny).entries]
    last = max(i for i, kind in enumerate(kinds) if kind == "context")
    assert set(kinds[: last + 1]) == {"context"}
