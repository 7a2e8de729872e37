"""A deep cut in steps: cuts and channels of several steps are told by the first network's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import bneck
from bneck.nas.allocation.allocator import Cut
from bneck.nets.ops import BneckRow, ConvBnAct
from bneck.nets.shrink import kept_channels, shrink
from bneck.records.ledger import Ledger
from bneck.records.progress import Silent
from bneck.runs.search.jobs import Parent
from bneck.runs.search.main import resume_search, search
from bneck.runs.search.widths.steps import Way, joined, on_the_way
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.transforms import fix_skips, with_expanded, with_out
from bneck.specs.wrapper import PLAIN
from simulated_device import SimulatedDevice
from test_shrink import WIDE, trained, without

QUICK: dict[str, Any] = {"epochs": 1.0, "repeats": 1, "workers": 1}


def test_cuts_of_steps_are_those_of_the_first_network() -> None:
    first = [
        Cut("rows.1.out", 24, 16, 1.0),
        Cut("rows.2.expanded", 64, 48, 0.5),
        Cut("rows.2.branch", 1, 0, 2.0),
    ]
    second = [
        Cut("rows.1.out", 16, 8, 3.0),
        Cut("rows.2.expanded", 96, 64, 4.0),
    ]  # its row 2 was row 3
    third = [Cut("rows.2.branch", 1, 0, 5.0)]
    assert joined([first, second], 5) == [
        Cut("rows.1.out", 24, 8, 4.0), Cut("rows.2.branch", 1, 0, 2.0), Cut("rows.3.expanded", 96, 64, 4.0),
    ]  # fmt: skip
    assert [str(cut) for cut in joined([first, second, third], 5)] == [
        "rows.1.out: 24 -> 8", "row 2 is left out", "row 3 is left out",
    ]  # fmt: skip
    assert joined([], 5) == []


def test_channels_kept_in_two_steps_are_the_wide_networks() -> None:
    wide = trained(fix_skips(WIDE))
    step = without(with_out(with_expanded(wide.spec, 3, 48), (2, 3, 4), 20), 3)
    middle = shrink(wide, step)
    last = shrink(middle, with_out(with_expanded(middle.spec, 1, 16), (2, 3), 12))
    before = kept_channels(wide, PLAIN.around(step), None)
    kept = kept_channels(middle, PLAIN.around(last.spec), None).within(before)
    assert len(kept.rows) == len(last.rows) == len(wide.rows) - 1
    for index, row in enumerate(last.rows):
        source = wide.rows[kept.rows[index]]
        if isinstance(row, BneckRow):
            mine, its = (one.get_submodule("project") for one in (row, source))
            assert isinstance(mine, ConvBnAct)
            assert isinstance(its, ConvBnAct)
            chosen = its.conv.weight[kept.out[index]][:, kept.expanded[index]]
            assert torch.equal(mine.conv.weight, chosen)
    assert kept.se.keys() == {i for i, row in enumerate(last.spec.rows) if getattr(row, "se", 0)}


@pytest.fixture(scope="module")
def start(tiny_file: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("start") / "run"
    bneck.train(str(tiny_file), pictures, epochs=2.0, batch=8, out=run)
    return run


class Killed(BaseException):
    pass


class UntilStep(Silent):
    """Ends a search where the importance is measured for the second time, as a kill does."""

    def __init__(self) -> None:
        self.measured = 0

    def stage(self, name: str, total: int) -> None:
        self.measured += name.startswith("measuring the importance")
        if self.measured == 2:
            raise Killed


def test_a_search_goes_by_steps_and_takes_them_once(
    simulated: SimulatedDevice, start: Path, pictures: Path, tmp_path: Path
) -> None:
    given = {**QUICK, "start": str(start), "device": simulated.name}
    whole = search(pictures, "50%", out=tmp_path / "whole", **given)
    assert [one["share"] for one in steps(tmp_path / "whole")] == [0.7]
    with pytest.raises(Killed):
        search(pictures, "50%", out=tmp_path / "killed", progress=UntilStep(), **given)
    assert [one["share"] for one in steps(tmp_path / "killed")] == [0.7]
    assert not (tmp_path / "killed" / "scratch" / "step-70.importance.safetensors").exists()
    killed = resume_search(tmp_path / "killed")
    assert steps(tmp_path / "killed") == steps(tmp_path / "whole")
    assert killed["found"]["digest"] == whole["found"]["digest"]
    assert killed["allocation"] == whole["allocation"]
    assert killed["found"]["scores"] == whole["found"]["scores"]
    scores = whole["allocation"]["steps"]
    assert scores.keys() == {"0", "1"}
    assert all(0 <= score <= 1 for score in scores.values())


@pytest.mark.parametrize(("start", "limit_ms"), [(None, 1.0), ("weights", 1.6)])
def test_without_a_start_or_near_the_target_there_are_none(
    tiny: NetSpec, start: str | None, limit_ms: float
) -> None:
    run: Any = SimpleNamespace(settings=SimpleNamespace(start=start))
    latencies: Any = SimpleNamespace(verified_ms=lambda spec: 2.0)
    seed = Parent(tiny, Path("seed"), None)
    assert on_the_way(run, seed, latencies, limit_ms) == Way(seed)


@pytest.mark.parametrize(("scores", "steps"), [((0.6, 0.7, 0.5), 1), ((0.6, 0.6, 0.6), 0)])
def test_the_way_that_keeps_most_goes_on_and_of_equals_the_shortest(
    tmp_path: Path, tiny: NetSpec, scores: tuple[float, ...], steps: int
) -> None:
    # All that a resumed run finds of what was done.
    ledger = Ledger(tmp_path / "ledger.jsonl")
    cuts = {0.7: ["rows.1.out", 16, 8, 1.0], 0.5: ["rows.2.out", 24, 16, 2.0]}
    for share, cut in cuts.items():
        ledger.append({"event": "step", "share": share, "spec": to_text(tiny), "cuts": [cut]})
        for ending in ("", ".importance"):
            (tmp_path / f"step-{100 * share:.0f}{ending}.safetensors").touch()
    for number, score in enumerate(scores):
        ledger.append({"event": "standing", "name": f"{number} steps to 0.400", "score": score})
    run: Any = SimpleNamespace(
        settings=SimpleNamespace(start="weights", training=None), ledger=ledger,
        folder=SimpleNamespace(scratch=tmp_path), experiment=SimpleNamespace(data=None),
    )  # fmt: skip
    latencies: Any = SimpleNamespace(verified_ms=lambda spec: 2.0)
    way = on_the_way(run, Parent(tiny, Path("seed"), None), latencies, 0.8)
    assert way.scores == dict(zip("012", scores, strict=True))
    assert [str(cut) for cut in way.cuts] == ["rows.1.out: 16 -> 8"][:steps]
    assert way.parent.weights == (tmp_path / "step-70.safetensors" if steps else Path("seed"))


def steps(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "ledger.jsonl").read_text().splitlines())
    return [one for one in lines if one["event"] == "step"]
