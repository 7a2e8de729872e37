"""What a search measures to decide is measured once a device and table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bneck.costs.table import LatencyTable
from bneck.costs.table_file import read_table
from bneck.devices.deployment import Deployment
from bneck.runs.search import latency
from bneck.records.ledger import Ledger
from bneck.specs.network import NetSpec
from bneck.specs.transforms import scale_width
from bneck.specs.wrapper import PLAIN


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the networks that were measured; the n-th takes n milliseconds."""
    names: list[str] = []

    def measure(
        seed: NetSpec, specs: list[NetSpec], table: LatencyTable, *on: object
    ) -> list[float]:
        names.extend(spec.name for spec in specs)
        return [float(len(names))]

    monkeypatch.setattr(latency, "measured_ms", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return names


def run(folder: Path, device: str = "local") -> Any:
    folder.mkdir(exist_ok=True)
    settings = SimpleNamespace(deployment=Deployment(device=device))
    ledger = Ledger(folder / "ledger.jsonl")
    return SimpleNamespace(ledger=ledger, settings=settings, wrapper=PLAIN)


@pytest.fixture
def table(made_up_table: Path) -> LatencyTable:
    return read_table(made_up_table)


def test_a_run_another_run_and_a_resumed_one_decide_by_one_measurement(
    measured: list[str], tiny: NetSpec, table: LatencyTable, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second, first):
        assert latency.verified_ms(run(folder), tiny, tiny, table) == 1.0
    assert measured == ["tiny"]
    assert [entry["measured_ms"] for entry in run(second).ledger.all(event="verified")] == [1.0]


def test_another_network_or_a_table_filled_anew_is_measured(
    measured: list[str], tiny: NetSpec, table: LatencyTable, tmp_path: Path
) -> None:
    narrower = scale_width(tiny, 0.75)
    latency.verified_ms(run(tmp_path / "a"), tiny, tiny, table)
    assert latency.verified_ms(run(tmp_path / "a"), tiny, narrower, table) == 2.0
    table.header["reference_ms"] *= 1.01
    assert latency.verified_ms(run(tmp_path / "a"), tiny, tiny, table) == 1.0  # the run's own
    assert latency.verified_ms(run(tmp_path / "b"), tiny, tiny, table) == 3.0
    assert len(measured) == 3


def test_another_device_is_measured_by_itself(
    measured: list[str],
    tiny: NetSpec,
    table: LatencyTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The same processor and runtime at both ends of the line.
    monkeypatch.setattr(latency, "identity", lambda device, runtime: ("processor", "1.0"))
    assert latency.verified_ms(run(tmp_path / "a"), tiny, tiny, table) == 1.0
    assert latency.verified_ms(run(tmp_path / "b", "ssh:pi"), tiny, tiny, table) == 2.0
    assert latency.verified_ms(run(tmp_path / "c", "ssh:pi"), tiny, tiny, table) == 2.0
    assert len(measured) == 2
