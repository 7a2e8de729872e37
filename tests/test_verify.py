"""What a search measures to decide is measured once a device and table."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bneck.costs.table import LatencyTable
from bneck.costs.table_file import read_table
from bneck.devices.deployment import Deployment
from bneck.devices.fill import fill_table
from bneck.nas.fitting import fit_widths
from bneck.records.ledger import Ledger
from bneck.records.progress import Silent
from bneck.runs.search.fitting import LOW, TRIES, fit_by_clock
from bneck.runs.search.latency import CAREFUL, PAUSES_S, Latencies, glanced_ms, seed_plan
from bneck.specs.network import NetSpec
from bneck.specs.transforms import scale_width
from bneck.specs.wrapper import PLAIN
from simulated_device import SimulatedDevice, plugged_in, work_ms


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimulatedDevice]:
    """A device in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with plugged_in() as made:
        yield made


def races(device: SimulatedDevice) -> float:
    """How many networks were measured: each is loaded with the reference in every one of the loads."""
    return len(device.loaded) / (2 * CAREFUL.loads)


def run(folder: Path, device: SimulatedDevice) -> Any:
    folder.mkdir(exist_ok=True)
    settings = SimpleNamespace(deployment=Deployment(device=device.name))
    ledger = Ledger(folder / "ledger.jsonl")
    return SimpleNamespace(ledger=ledger, settings=settings, wrapper=PLAIN, progress=Silent())


@pytest.fixture
def table(made_up_table: Path, device: SimulatedDevice, tiny: NetSpec) -> LatencyTable:
    """One that knows the device's pace, and nothing else of it."""
    table = read_table(made_up_table)
    table.header["reference_ms"] = device.network_ms(tiny)
    return table


def test_a_run_another_run_and_a_resumed_one_decide_by_one_measurement(
    device: SimulatedDevice, tiny: NetSpec, table: LatencyTable, tmp_path: Path
) -> None:
    narrower, first, second = scale_width(tiny, 0.75), tmp_path / "first", tmp_path / "second"
    true_ms = pytest.approx(device.network_ms(narrower))
    for folder in (first, second, first):
        own = deepcopy(table)
        assert Latencies(run(folder, device), tiny, own).verified_ms(narrower) == true_ms
    assert races(device) == 1
    (entry,) = run(second, device).ledger.all(event="verified")
    assert entry["measured_ms"] == true_ms
    assert entry["estimated_ms"] == table.estimate_ms(narrower), "before the table learned"


def test_the_table_learns_from_what_is_verified_and_a_resumed_run_learns_the_same(
    device: SimulatedDevice, tiny: NetSpec, tmp_path: Path
) -> None:
    filled = fill_table(tiny, tmp_path / "t.jsonl", plan=seed_plan(tiny), place=device.place())
    device.work = lambda model: work_ms(model) ** 1.3
    pace = device.network_ms(tiny) / float(filled.header["reference_ms"])
    *verified, another = (scale_width(tiny, width) for width in (0.5, 0.55, 0.6, 0.65))

    def estimate_ms(folder: Path) -> float:
        table = deepcopy(filled)
        latencies = Latencies(run(folder, device), tiny, table)
        for spec in (*verified, *verified):
            latencies.verified_ms(spec)
        assert len(table.learned) == len(verified)
        return table.estimate_ms(another)

    true_ms = device.network_ms(another) / pace
    found_ms = estimate_ms(tmp_path / "a")
    assert abs(found_ms - true_ms) < 0.5 * abs(filled.estimate_ms(another) - true_ms)
    device.loaded.clear()
    assert estimate_ms(tmp_path / "a") == found_ms
    assert races(device) == 0


def test_another_network_or_a_table_filled_anew_is_measured(
    device: SimulatedDevice, tiny: NetSpec, table: LatencyTable, tmp_path: Path
) -> None:
    narrower, ms = scale_width(tiny, 0.75), device.network_ms(tiny)
    assert Latencies(run(tmp_path / "a", device), tiny, table).verified_ms(tiny) == pytest.approx(
        ms
    )
    Latencies(run(tmp_path / "a", device), tiny, table).verified_ms(narrower)
    assert races(device) == 2
    table.header["reference_ms"] *= 1.01
    # The run's own comes back; another run measures at the pace of the new table.
    assert Latencies(run(tmp_path / "a", device), tiny, table).verified_ms(tiny) == pytest.approx(
        ms
    )
    assert races(device) == 2
    assert Latencies(run(tmp_path / "b", device), tiny, table).verified_ms(tiny) == pytest.approx(
        1.01 * ms
    )
    assert races(device) == 3


def test_another_device_is_measured_by_itself(
    device: SimulatedDevice, tiny: NetSpec, table: LatencyTable, tmp_path: Path
) -> None:
    # The same processor and runtime at both ends of the line.
    with plugged_in() as other:
        for folder, where in (("a", device), ("b", other), ("c", other)):
            Latencies(run(tmp_path / folder, where), tiny, table).verified_ms(tiny)
        assert (races(device), races(other)) == (1, 1)


def test_a_device_that_has_slowed_since_the_table_measures_as_it_did_then(
    device: SimulatedDevice, tiny: NetSpec, table: LatencyTable, tmp_path: Path
) -> None:
    narrower = scale_width(tiny, 0.75)
    device.slowdown = lambda seconds: 1.7 + 0.5 * seconds
    found = Latencies(run(tmp_path / "a", device), tiny, table).verified_ms(narrower)
    assert found == pytest.approx(device.network_ms(narrower), rel=0.01)
    assert device.slowdown(device.seconds) > 2


def test_a_device_that_is_too_busy_is_waited_for(
    device: SimulatedDevice, tiny: NetSpec, table: LatencyTable, tmp_path: Path
) -> None:
    narrower, busy = scale_width(tiny, 0.75), CAREFUL.rounds * 100 / 1e3
    # Every other burst is slower by a factor of up to nine, for the first 15 seconds.
    rng = random.Random(0)
    device.slowdown = lambda seconds: rng.choice((1, 9)) if seconds < 15 + busy else 1.0
    found = Latencies(run(tmp_path / "a", device), tiny, table).verified_ms(narrower)
    assert found == pytest.approx(device.network_ms(narrower), rel=0.01)
    waits = len(device.waited_s)
    assert waits > 1
    assert device.waited_s == list(PAUSES_S[:waits])


def test_a_glance_at_a_busy_device_waits_for_nothing(
    device: SimulatedDevice, tiny: NetSpec
) -> None:
    rng = random.Random(0)
    device.slowdown = lambda seconds: rng.choice((1, 9))
    specs = [tiny, scale_width(tiny, 0.5)]
    found = glanced_ms(specs, Deployment(device=device.name), PLAIN)
    assert found == [pytest.approx(device.network_ms(spec)) for spec in specs]
    assert device.waited_s == []
    assert device.seconds < 0.5


def test_a_network_is_fitted_to_a_limit_by_what_the_device_measures(
    device: SimulatedDevice, tiny: NetSpec, tmp_path: Path
) -> None:
    """A device that has changed since its table was filled: measurements put the table right."""
    table = fill_table(tiny, tmp_path / "table.jsonl", plan=seed_plan(tiny), place=device.place())
    device.work = lambda model: work_ms(model) ** 1.3
    pace = device.network_ms(tiny) / float(table.header["reference_ms"])
    limit = 0.75 * float(table.header["reference_ms"])
    wrong = fit_widths(tiny, 0.99 * limit, table.estimate_ms)
    assert not LOW * limit <= device.network_ms(wrong) / pace <= limit, "the table alone misses"
    device.loaded.clear()
    fitted = fit_by_clock(
        tiny, limit, table, Latencies(run(tmp_path / "a", device), tiny, table).verified_ms
    )
    assert fitted.hit
    assert LOW * limit <= device.network_ms(fitted.spec) / pace <= limit
    assert races(device) <= TRIES


def test_a_device_lost_in_the_middle_is_reached_again(
    device: SimulatedDevice, tiny: NetSpec, table: LatencyTable, tmp_path: Path
) -> None:
    narrower = scale_width(tiny, 0.75)
    device.lost = lambda request: request % 40 == 0
    found = Latencies(run(tmp_path / "a", device), tiny, table).verified_ms(narrower)
    assert found == pytest.approx(device.network_ms(narrower))
    assert device.losses > 1
