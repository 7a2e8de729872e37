"""onnxruntime-web in headless Chromium, and what the page's server gives to whom."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from bneck.devices.measure import Candidate, measure
from bneck.devices.places import DeviceError, browser, describe, place
from bneck.devices.places.browser import Browser, chromium
from bneck.devices.places.browser_page import BrowserPage
from bneck.devices.places.scheduled import processes_of, running_share, times_of
from bneck.devices.places.steady import Steady
from bneck.devices.protocol import Protocol
from bneck.devices.runtimes import runtime
from bneck.graphs.onnx_graph import network_graph
from bneck.graphs.weights import random_weights
from bneck.specs.network import NetSpec, layers
from bneck.specs.normalisation import IMAGENET

QUICK = Protocol(rounds=3, burst_ms=1.0, first_warmup=1, max_repeats=1, max_spread=1e9)


def web_is_there() -> str | None:
    """Why there is no browser to measure in, or None."""
    try:
        browser.web_folder()
        chromium()
    except DeviceError as error:
        return str(error)
    return None


needs_browser = pytest.mark.skipif(web_is_there() is not None, reason=str(web_is_there()))


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with Browser("browser") as made:
        yield made


@needs_browser
class TestPage:
    def test_its_clock_is_a_fine_one(self, page: Browser) -> None:
        assert page._hello["isolated"] is True

    def test_it_is_described_with_the_browser(self, page: Browser) -> None:
        found = page.describe()
        assert found.place == "browser"
        assert found.processor.startswith(describe("local").processor)
        assert ", Chromium " in found.processor
        assert not found.pinned
        assert page.version("onnxruntime").startswith("web 1.")

    def test_networks_are_measured(self, page: Browser, tiny: NetSpec) -> None:
        (one,) = measure([Candidate(tiny)], place=page, protocol=QUICK)
        if Path("/proc/self/schedstat").exists():
            assert one.cpu_ms is not None
            assert 0 < one.cpu_ms <= max(one.latency_ms.p90, one.latency_ms.median * 2)
            assert len(one.rounds_cpu_ms) == 3
        else:
            assert one.cpu_ms is None
        assert 0 < one.latency_ms.median < 1e3
        assert one.runtime_version == page.version("onnxruntime")

    def test_eight_bits_and_pixels_run_too(self, page: Browser, tiny: NetSpec) -> None:
        weights = random_weights(layers(tiny), np.random.default_rng(0))
        model = network_graph(
            tiny, weights, pixels=IMAGENET, metadata={"input": "pixels"}
        ).SerializeToString()
        found = measure(
            [Candidate(tiny, model), Candidate(tiny, precision="int8")], place=page, protocol=QUICK
        )
        assert all(one.latency_ms.median > 0 for one in found)

    def test_what_is_no_model_is_refused_and_the_page_goes_on(self, page: Browser) -> None:
        with pytest.raises(DeviceError, match=r"^browser: "):
            page.load(b"no model", runtime="onnxruntime", threads=1, size=(3, 32, 32))
        assert page.describe().cores >= 1

    def test_it_has_one_thread(self, page: Browser) -> None:
        with pytest.raises(
            DeviceError, match="browser runs on one thread, not 2; leave --threads out"
        ):
            page.load(b"", runtime="onnxruntime", threads=2, size=(3, 32, 32))

    def test_a_killed_browser_is_started_again(self, tiny: NetSpec) -> None:
        made: list[Browser] = []

        def connect() -> Browser:
            made.append(Browser("browser"))
            return made[-1]

        with Steady("browser", Browser.runtimes, connect, pauses_s=(0.0, 0.0, 0.0)) as whole:
            timer = Candidate(tiny).timer(whole, runtime("onnxruntime"), 1)
            os.killpg(made[0].pid, signal.SIGKILL)
            assert len(timer.burst(3, 0).wall_ms) == 3
        assert len(made) == 2


class TestScheduled:
    def test_the_share_is_that_of_the_thread_that_ran_most(self) -> None:
        before = {1: (100, 0), 2: (0, 50), 3: (7, 7)}
        after = {1: (110, 500), 2: (300, 150), 4: (9999, 0)}  # 3 has ended, 4 is new
        assert running_share(before, after) == 300 / 400
        assert running_share(before, before) is None
        assert running_share({}, {}) is None

    @pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="no scheduler statistics")
    def test_a_thread_that_computes_has_run(self) -> None:
        before = times_of([os.getpid()])
        cpu = time.thread_time_ns()
        while time.thread_time_ns() - cpu < 30_000_000:
            pass
        after = times_of([os.getpid(), 2**30])
        assert set(after) == {os.getpid()}
        assert after[os.getpid()][0] - before[os.getpid()][0] >= 25_000_000
        share = running_share(before, after)
        assert share is not None
        assert 0 < share <= 1

    def test_processes_are_found_by_session_and_word(self) -> None:
        command = ["sleep", "61.5"]
        child = subprocess.Popen(command, start_new_session=True)
        try:
            # The kernel shows a new program's words a little after the old one's files are closed.
            until = time.monotonic() + 10
            while not processes_of(child.pid, "61.5") and time.monotonic() < until:
                time.sleep(0.01)
            assert processes_of(child.pid, "61.5") == [child.pid]
            assert processes_of(child.pid, "other") == []
            assert child.pid not in processes_of(os.getsid(0), "61.5")
        finally:
            child.kill()
            child.wait()


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What looks like onnxruntime-web's folder."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "package.json").write_text('{"version": "1.2.3"}')
    (tmp_path / "dist/ort.wasm.min.mjs").write_text("export const one = 1;")
    (tmp_path / "secret.mjs").write_text("secret")
    monkeypatch.setenv("BNECK_ONNXRUNTIME_WEB", str(tmp_path))
    return tmp_path


class TestServer:
    @pytest.fixture
    def server(self, scripts: Path) -> Iterator[BrowserPage]:
        made = BrowserPage("browser", 0, scripts / "dist")
        yield made
        made.stop()

    @staticmethod
    def get(server: BrowserPage, path: str) -> tuple[int, bytes, dict[str, str]]:
        address = urlsplit(server.url)
        line = http.client.HTTPConnection(str(address.hostname), address.port or 0, timeout=10)
        line.request("GET", path)
        answer = line.getresponse()
        found = (answer.status, answer.read(), dict(answer.getheaders()))
        line.close()
        return found

    def test_it_listens_on_loopback_alone_and_isolates_the_page(self, server: BrowserPage) -> None:
        address = urlsplit(server.url)
        assert address.hostname == "127.0.0.1"
        status, body, headers = self.get(server, address.path)
        assert (status, body[:15]) == (200, b"<!doctype html>")
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"

    def test_scripts_and_models_are_served(self, server: BrowserPage) -> None:
        start = urlsplit(server.url).path
        server.models[3] = b"model"
        assert self.get(server, start + "ort/ort.wasm.min.mjs")[1] == b"export const one = 1;"
        assert self.get(server, start + "model/3")[1] == b"model"

    @pytest.mark.parametrize(
        "path", ["ort/../secret.mjs", "ort/..%2fsecret.mjs", "ort/x.mjs", "model/9", "model/x", "x"]
    )
    def test_nothing_else_is(self, server: BrowserPage, path: str) -> None:
        assert self.get(server, urlsplit(server.url).path + path)[0] == 404

    def test_without_the_secret_there_is_nothing(self, server: BrowserPage) -> None:
        server.models[3] = b"model"
        for path in ("/", "/model/3", "/next", "/0123/model/3"):
            assert self.get(server, path)[0] == 404

    def test_another_name_for_this_machine_is_refused(self, server: BrowserPage) -> None:
        address = urlsplit(server.url)
        line = http.client.HTTPConnection(str(address.hostname), address.port or 0, timeout=10)
        line.request("GET", address.path, headers={"Host": "evil.example:80"})
        assert line.getresponse().status == 403
        line.close()

    def test_jobs_come_out_one_by_one(self, server: BrowserPage) -> None:
        server.jobs.put({"id": 1, "do": "x"})
        found = self.get(server, urlsplit(server.url).path + "next")
        assert json.loads(found[1]) == {"id": 1, "do": "x"}

    def test_a_port_in_use_is_named(self, scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(browser, "chromium", lambda: "/bin/true")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(DeviceError) as caught:
                describe(f"browser:{port}")
        assert str(caught.value) == (
            f"the port {port} of browser:{port} is in use; name another one, or browser alone for any free "
            "port"
        )


class TestRefused:
    def test_no_onnxruntime_web(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("BNECK_ONNXRUNTIME_WEB", raising=False)
        with pytest.raises(
            DeviceError, match=r"^the device browser needs onnxruntime-web; give the fold"
        ):
            describe("browser")
        monkeypatch.setenv("BNECK_ONNXRUNTIME_WEB", str(tmp_path))
        with pytest.raises(
            DeviceError, match=r"is not onnxruntime-web, it lacks dist/ort\.wasm\.min"
        ):
            describe("browser")

    def test_no_chromium(self, scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BNECK_CHROMIUM", "no-such-browser")
        with pytest.raises(
            DeviceError, match="needs Chromium and there is no no-such-browser here"
        ):
            describe("browser")

    def test_a_browser_that_ends_at_once(
        self, scripts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        false = scripts / "false"
        false.write_text("#!/bin/sh\necho cannot open display >&2\nexit 1\n")
        false.chmod(0o755)
        monkeypatch.setenv("BNECK_CHROMIUM", str(false))
        with pytest.raises(
            DeviceError, match=r"^browser cannot be used: it disconnected: cannot open disp"
        ):
            describe("browser")

    def test_another_runtime(self, tiny: NetSpec) -> None:
        with pytest.raises(DeviceError, match="browser does not run openvino; it runs onnxruntime"):
            place("browser").check("openvino")
