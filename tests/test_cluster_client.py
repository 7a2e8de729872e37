"""A Ray cluster by its client server, `ray://HOST:PORT`: a search through it, and what is lost or not there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
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
from test_cluster import die, refuse

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

PATIENCE_S = 120


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Head:
    """The head of a cluster of two processors on this machine, with a client server."""

    def __init__(self) -> None:
        self.port, self.folder = free_port(), subprocess.check_output(["mktemp", "-d"], text=True)
        # Nodes import what these tests hand them.
        paths = [str(Path(__file__).parent), str(Path(bneck.__file__).parents[1])]
        self.process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
                "--node-ip-address=127.0.0.1", f"--port={free_port()}", "--num-cpus=2",
                f"--ray-client-server-port={self.port}", "--include-dashboard=false",
                "--object-store-memory=100000000", f"--temp-dir={self.folder.strip()}",
            ],
            env={
                **os.environ, "PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "3",
            },
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.poll() is None
            assert time.monotonic() < end
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)

    @property
    def address(self) -> str:
        return f"ray://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.terminate()  # and with it all that it started
        self.process.wait(PATIENCE_S)


@pytest.fixture
def head() -> Iterator[Head]:
    ray = pytest.importorskip("ray", reason="needs the extra bneck[cluster]")
    begun = Head()
    try:
        yield begun
    finally:
        ray.shutdown()
        begun.stop()
        shutil.rmtree(begun.folder.strip(), ignore_errors=True)


@pytest.mark.slow
def test_a_search_by_the_client_is_the_search_here(
    head: Head, simulated: SimulatedDevice, pictures: Path, tiny_file: Path, tmp_path: Path
) -> None:
    from test_block_search import SMALL, SPACE

    (tmp_path / "toy.yaml").write_text(SPACE, encoding="utf-8")
    given: dict[str, Any] = {
        **SMALL, "device": simulated.name, "data": pictures, "target": "40%",
        "seed_network": str(tiny_file),
        "space": str(tmp_path / "toy.yaml"), "slack": 0.0, "top": 1,
    }  # fmt: skip
    search(**given, out=tmp_path / "cluster", cluster=head.address)
    search(**given, out=tmp_path / "here")
    on, off = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("cluster", "here")
    )
    assert on["state"] == off["state"] == "finished"
    same = [[(t["number"], t["accuracy"]) for t in r["blocks"]["trials"]] for r in (on, off)]
    assert same[0] == [(n, pytest.approx(a, abs=1e-6)) for n, a in same[1]]


def wait_long(folder: Path) -> None:
    (folder / "began").touch()
    time.sleep(PATIENCE_S)


@pytest.mark.slow
def test_errors_keep_their_kind_and_a_lost_cluster_is_one_sentence(
    head: Head, tmp_path: Path
) -> None:
    with RayWorkers(head.address) as pool:
        assert pool.workers == 2
        with pytest.raises(InputError, match=r"^the worker does not like this$"):
            pool.run(refuse, [()], lambda *at: None)
        with pytest.raises(InputError, match="lost the same work 3 times"):
            pool.run(die, [()], lambda *at: None)

        def stop() -> None:
            while not (tmp_path / "began").exists():
                time.sleep(0.1)
            head.stop()

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(InputError, match=r"was lost; what was finished is kept.*--resume"):
            pool.run(wait_long, [(tmp_path,)], lambda *at: None)
        stopper.join()


class TestWrongInput:
    def test_nobody_there_is_said_at_once_with_exit_code_2(
        self, pictures: Path, tmp_path: Path
    ) -> None:
        pytest.importorskip("ray", reason="needs the extra bneck[cluster]")
        address = f"ray://127.0.0.1:{free_port()}"
        done = subprocess.run(
            [
                sys.executable, "-m", "bneck.cli", "search", "--from-scratch", "--data", str(pictures),
                "--cluster", address, "--out", str(tmp_path / "run"),
            ],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert f"the Ray cluster {address} cannot be reached" in line
        assert not (tmp_path / "run").exists()

    @pytest.mark.slow
    def test_what_is_no_cluster_is_given_up(self) -> None:
        pytest.importorskip("ray", reason="needs the extra bneck[cluster]")
        # It takes connections and says nothing.
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            pytest.raises(InputError, match="cannot be reached"),
        ):
            RayWorkers(f"ray://127.0.0.1:{silent.getsockname()[1]}")

    @pytest.mark.parametrize(
        "address", ["ray://", "ray://here", "ray://here:", "ray://here:0", "ray://a:70000", "ray://a:1/b"]
    )  # fmt: skip
    def test_addresses(self, address: str) -> None:
        with pytest.raises(InputError, match="ray://HOST:10001"):
            check_address(address)
