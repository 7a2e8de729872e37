"""The pool on a Ray cluster of two nodes on this machine, one of which is lost in the middle."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bneck
from bneck.runs.search.cluster import RayWorkers, check_address
from bneck.runs.search.main import search
from bneck.specs.errors import InputError
from simulated_device import SimulatedDevice

ray = pytest.importorskip("ray", reason="needs the extra bneck[cluster]")

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


def work(folder: Path, index: int) -> tuple[int, str]:
    """Leave a file for every time this is done; a slow one waits until the test lets it go."""
    node = ray.get_runtime_context().get_node_id()
    (folder / f"began-{index}-{node}").touch()
    if index == 0:
        end = time.monotonic() + 60
        while not (folder / "go").exists() and time.monotonic() < end:
            time.sleep(0.05)
    (folder / f"did-{index}-{node}").touch()
    return index, node


def refuse() -> None:
    raise InputError("the worker does not like this")


def die() -> None:
    os._exit(1)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Nodes import what these tests hand them.
    paths = [str(Path(__file__).parent), str(Path(bneck.__file__).parents[1])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8},
    )
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def second(cluster: Any) -> Any:
    node = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    return node


@pytest.mark.slow
def test_work_of_a_removed_node_is_done_elsewhere_and_nothing_finished_twice(
    cluster: Any, tmp_path: Path
) -> None:
    node, heard = second(cluster), list[tuple[int, str]]()

    def remove() -> None:
        while not list(tmp_path.glob(f"began-0-{node.node_id}")):
            if list(tmp_path.glob("began-0-*")):  # the slow one runs on the head: let it go
                break
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        (tmp_path / "go").touch()

    with RayWorkers("auto") as pool:
        assert pool.workers == 2
        killer = threading.Thread(target=remove)
        killer.start()
        pool.run(work, [(tmp_path, i) for i in range(8)], lambda n, value: heard.append(value))
        killer.join()
    assert sorted(index for index, _ in heard) == list(range(8))
    assert {n for _, n in heard} - {node.node_id}, "the head goes on"


@pytest.mark.slow
def test_errors_keep_their_kind_and_what_dies_always_is_given_up(cluster: Any) -> None:
    with RayWorkers("auto") as pool:
        with pytest.raises(InputError, match=r"^the worker does not like this$"):
            pool.run(refuse, [()], lambda *at: None)
        with pytest.raises(InputError, match="lost the same work 3 times"):
            pool.run(die, [()], lambda *at: None)


@pytest.mark.slow
def test_the_same_search_with_one_node_removed_in_the_middle(
    cluster: Any, simulated: SimulatedDevice, pictures: Path, tiny_file: Path, tmp_path: Path
) -> None:
    from test_block_search import SMALL, SPACE

    (tmp_path / "toy.yaml").write_text(SPACE, encoding="utf-8")
    given = {
        **SMALL, "device": simulated.name, "data": pictures, "target": "40%",
        "seed_network": str(tiny_file),
        "space": str(tmp_path / "toy.yaml"), "slack": 0.0, "top": 1,
    }  # fmt: skip
    node = second(cluster)

    def remove() -> None:
        log = tmp_path / "cluster" / "blocks.log"
        while not log.is_file() or log.read_text().count("accuracy@1") < 2:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=remove)
    killer.start()
    search(**given, out=tmp_path / "cluster", cluster="auto")
    killer.join()
    search(**given, out=tmp_path / "here")
    on, off = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("cluster", "here")
    )
    assert on["state"] == off["state"] == "finished"
    same = [[(t["number"], t["accuracy"]) for t in r["blocks"]["trials"]] for r in (on, off)]
    assert same[0] == [(n, pytest.approx(a, abs=1e-6)) for n, a in same[1]]


class TestWrongInput:
    @pytest.mark.parametrize("address", ["", "10.0.0.1", "http://here", "Auto"])
    def test_addresses(self, address: str) -> None:
        with pytest.raises(InputError, match="write auto for the Ray cluster of this machine"):
            check_address(address)

    @pytest.mark.slow
    def test_no_cluster_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with pytest.raises(InputError, match="the Ray cluster auto cannot be reached"):
            RayWorkers("auto")
