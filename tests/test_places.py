"""Places: their names, the agent behind a pipe, and what becomes of those that break off."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from agents import COMMAND, HELLO, scripted
from bneck.devices.measure import Candidate, measure
from bneck.devices.places import DeviceError, describe, place, usual_runtime
from bneck.devices.places.contract import Lost, Place
from bneck.devices.places.shipped import AGENT, shipment, sources, started_by
from bneck.devices.places.ssh import Agent, ssh_command
from bneck.devices.places.steady import PAUSES_S, Steady
from bneck.devices.protocol import Protocol
from bneck.devices.runtimes import runtime
from bneck.devices.timing import Burst, Timer
from bneck.graphs.onnx_graph import network_graph
from bneck.graphs.weights import random_weights
from bneck.records.measurement import Device
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec, layers
from bneck.specs.normalisation import IMAGENET

QUICK = Protocol(rounds=3, burst_ms=1.0, first_warmup=1, max_repeats=1, max_spread=1e9)


class TestNames:
    @pytest.mark.parametrize("name", ["moon", "", "local:1", "adb:", "adb", "usb:1"])
    def test_an_unknown_kind_lists_the_known_ones(self, name: str) -> None:
        with pytest.raises(DeviceError) as caught:
            place(name)
        assert str(caught.value) == (
            f"there is no device {name!r}; known are local, ssh:[USER@]HOST[:PORT], adb:SERIAL and "
            "browser[:PORT]"
        )

    @pytest.mark.parametrize(
        "name", ["ssh:", "ssh:-oProxyCommand=x", "ssh:a b", "ssh:a:0", "ssh:a:99999", "ssh:@a"]
    )
    def test_an_address_that_cannot_be_says_how_to_write_one(self, name: str) -> None:
        with pytest.raises(DeviceError, match=r"; write it as ssh:HOST, ssh:USER@HOST or ssh:U"):
            place(name)

    @pytest.mark.parametrize("name", ["browser:", "browser:x", "browser:0", "browser:70000"])
    def test_a_port_that_cannot_be(self, name: str) -> None:
        with pytest.raises(DeviceError, match=r"browser:PORT with a port from 1 to 65535$"):
            place(name)

    def test_the_parts_of_an_address_are_arguments_of_ssh(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BNECK_SSH", "ssh -F 'my config'")
        monkeypatch.setenv("BNECK_REMOTE_PYTHON", "venv/bin/python")
        command = ssh_command("pi@raspberry.local:2222")
        assert command[:3] == ["ssh", "-F", "my config"]
        assert "BatchMode=yes" in command
        assert command[command.index("-p") + 1] == "2222"
        assert command[command.index("-l") + 1] == "pi"
        assert command[-3:-1] == ["--", "raspberry.local"]
        assert command[-1].startswith('exec venv/bin/python -c "import base64;')
        assert ssh_command("[fe80::1]:22")[-2] == "fe80::1"

    def test_every_place_has_a_usual_runtime(self) -> None:
        names = ["local", "ssh:a", "adb:b", "browser"]
        assert [usual_runtime(name) for name in names] == [
            "onnxruntime", "onnxruntime", "litert", "onnxruntime",
        ]  # fmt: skip

    def test_a_runtime_that_a_place_never_has(self, tiny: NetSpec) -> None:
        with pytest.raises(
            DeviceError, match=r"^adb:1 does not run onnxruntime; it runs litert, n"
        ):
            measure([Candidate(tiny)], place="adb:1")


class TestShipped:
    def test_neither_torch_nor_other_packages_are_imported_at_the_start(self) -> None:
        """Numpy alone; what an engine needs, it imports when it is asked for."""
        allowed = {*sys.stdlib_module_names, "numpy", "bneck"}
        shipped = sources(AGENT)
        waiting, seen = [AGENT], set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen or name not in shipped:
                continue
            seen.add(name)
            for node in ast.parse(shipped[name][1]).body:
                found = []
                if isinstance(node, ast.ImportFrom):
                    assert node.module
                    found = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
                elif isinstance(node, ast.Import):
                    found = [alias.name for alias in node.names]
                assert {one.partition(".")[0] for one in found} <= allowed, name
                waiting += found
        assert "bneck.devices.runtimes.onnx" in seen

    def test_it_is_small(self) -> None:
        assert len(shipment()) < 100_000

    def test_facades_stay_at_home(self) -> None:
        shipped = sources(AGENT)
        assert shipped["bneck"] == shipped["bneck.devices.places"] == (True, "")
        assert not [
            name for name in shipped if name.startswith(("bneck.runs", "bneck.tasks", "bneck.cli"))
        ]

    def test_an_interpreter_without_numpy_is_told_what_to_install(self) -> None:
        # -S: no site-packages.
        with pytest.raises(DeviceError) as caught:
            Agent("ssh:bare", ["sh", "-c", started_by(f"{sys.executable} -S -E")])
        assert str(caught.value) == (
            "ssh:bare cannot be used: it lacks numpy; install it there with: pip install numpy, or set "
            "BNECK_REMOTE_PYTHON to a Python there that has it"
        )

    def test_an_old_interpreter_says_so(self) -> None:
        old = "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2 (old)'; "
        command = started_by("python").partition(" -c ")[2].strip('"')
        with pytest.raises(DeviceError, match=r"its python3 is 3\.9\.2, at least 3\.11 is needed$"):
            Agent("ssh:old", [sys.executable, "-S", "-c", old + command])


@pytest.fixture(scope="module")
def agent() -> Agent:
    with Agent("ssh:here", COMMAND) as made:
        yield made


class TestAgent:
    def test_it_describes_its_machine_under_our_name(self, agent: Agent) -> None:
        assert agent.describe() == replace(describe("local"), place="ssh:here")
        assert agent.version("onnxruntime") == runtime("onnxruntime").version

    @pytest.mark.parametrize(
        ("name", "module"),
        [
            ("onnxruntime", "onnxruntime"),
            ("litert", "ai_edge_litert"),
            pytest.param("openvino", "openvino", marks=pytest.mark.slow),
            pytest.param("torch", "torch", marks=pytest.mark.slow),
            pytest.param("executorch", "executorch", marks=pytest.mark.slow),
        ],
    )
    def test_it_measures_like_this_process(
        self, agent: Agent, tiny: NetSpec, name: str, module: str
    ) -> None:
        pytest.importorskip(module)
        (one,) = measure([Candidate(tiny)], runtime_name=name, place=agent, protocol=QUICK)
        assert one.runtime_version == runtime(name).version
        assert one.device.place == "ssh:here"
        assert one.n >= 3 * QUICK.least_runs
        assert one.cpu_ms is not None
        assert 0 < one.cpu_ms < 1e3
        assert 0 < one.latency_ms.median < 1e3

    def test_pixels_are_fed_to_files_that_take_them(self, agent: Agent, tiny: NetSpec) -> None:
        weights = random_weights(layers(tiny), np.random.default_rng(0))
        model = network_graph(
            tiny, weights, pixels=IMAGENET, metadata={"input": "pixels"}
        ).SerializeToString()
        (one,) = measure([Candidate(tiny, model)], place=agent, protocol=QUICK)
        assert one.latency_ms.median > 0

    def test_what_is_no_model_is_refused_there_and_the_line_holds(
        self, agent: Agent, tiny: NetSpec
    ) -> None:
        with pytest.raises(InputError, match=r"^ssh:here: onnxruntime cannot load this file: "):
            agent.load(b"no model\n\n" * 9000, runtime="onnxruntime", threads=1, size=(3, 32, 32))
        with pytest.raises(InputError, match=r"^ssh:here: there is no runtime 'abacus'; known"):
            agent.version("abacus")
        assert agent.describe().cores >= 1

    @pytest.mark.parametrize(
        ("name", "module", "package"),
        [
            ("onnxruntime", "onnxruntime", "onnxruntime"),
            ("litert", "ai_edge_litert.interpreter", "ai-edge-litert"),
            ("openvino", "openvino", "openvino"),
        ],
    )
    def test_a_runtime_that_is_not_there_is_named_with_its_package(
        self, name: str, module: str, package: str
    ) -> None:
        without = f"import sys; sys.modules[{module!r}] = None; "
        command = started_by("python").partition(" -c ")[2].strip('"')
        with (
            Agent("ssh:pi", [sys.executable, "-c", without + command]) as made,
            pytest.raises(DeviceError) as caught,
        ):
            made.version(name)
        assert str(caught.value) == (
            f"ssh:pi lacks the runtime {name}; install it there with: pip install {package}, or set "
            "BNECK_REMOTE_PYTHON to a Python there that has it"
        )

    def test_a_login_that_prints_first_is_heard_out(self) -> None:
        chatter = "print('Welcome!'); print('12'); print('{}'); print('[' * 99)\n"
        answer = "say(id=ask()['id'], version='2')\n"
        with scripted("ssh:pi", chatter + HELLO + answer) as made:
            assert made.version("litert") == "2"

    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ("print('what?', flush=True)", r"returned invalid data \('what\?'\)"),
            ("say(id=77)", r"returned invalid data \(\"\{'id': 77\}\"\)"),
            ("say(id=n, wall_ms='soon', cpu_ms=[1])", "returned invalid data"),
            ("say(id=n, wall_ms=[1, 2, 3], cpu_ms=[1, 1])", "returned invalid data"),
            ("say(id=n, wall_ms=[1, -1], cpu_ms=[1, 1])", "returned invalid data"),
            ('print(\'{"id": %d, "wall_ms": [NaN, 1]}\' % n, flush=True)', "returned invalid data"),
            ("sys.exit('core dumped')", "disconnected: core dumped"),
            ("time.sleep(60)", "did not answer within 0 s"),
        ],
    )
    def test_rubbish_silence_and_death_are_losses(self, script: str, reason: str) -> None:
        limit_s = 0.3 if "sleep" in script else 10.0
        with (
            scripted("ssh:pi", HELLO + "n = ask()['id']\n" + script, burst_s=limit_s) as made,
            pytest.raises(Lost, match=reason),
        ):
            made.burst(1, 2, 0)

    def test_one_that_never_says_hello(self) -> None:
        with pytest.raises(Lost, match="no agent answers"):
            scripted("ssh:pi", "print('spam\\n' * 300, flush=True); time.sleep(9)")

    def test_closing_leaves_no_process(self) -> None:
        made = scripted("ssh:pi", HELLO + "time.sleep(60)")
        process = made._channel.pid
        made.close()
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)

    def test_an_agent_ends_with_its_line(self) -> None:
        child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.communicate(shipment(), timeout=30)
        assert child.returncode == 0


class Flaky(Place):
    """Breaks off when told to."""

    name = "flaky"
    runtimes = ("onnxruntime",)

    def __init__(self, losses: list[bool]) -> None:
        self.losses = losses
        self.loaded: list[bytes] = []
        self.closed = False

    def meet(self) -> None:
        if self.losses and self.losses.pop(0):
            raise Lost("broke off: pulled")

    def describe(self) -> Device:
        self.meet()
        return Device(place="flaky", processor="p", cores=1, system="s", pinned=False)

    def version(self, runtime: str) -> str:
        return "1"

    def load(
        self, model: bytes, *, runtime: str, threads: int, size: tuple[int, int, int]
    ) -> Timer:
        self.meet()
        self.loaded.append(model)
        return FlakyTimer(self)

    def close(self) -> None:
        self.closed = True


class FlakyTimer(Timer):
    def __init__(self, place: Flaky) -> None:
        self.place = place

    def burst(self, runs: int, warmup: int) -> Burst:
        self.place.meet()
        return Burst(runs, (1.0,))


@pytest.fixture
def pauses() -> list[float]:
    """Seconds that were waited between tries."""
    return []


def steady(losses: list[bool], pauses: list[float]) -> tuple[Steady, list[Flaky]]:
    """A steady place on connections that share a list of when they are lost."""
    made: list[Flaky] = []

    def connect() -> Flaky:
        made.append(Flaky(losses))
        return made[-1]

    return Steady("flaky", ("onnxruntime",), connect, wait=pauses.append), made


class TestSteady:
    def test_a_burst_that_broke_off_starts_anew_on_a_new_connection(
        self, pauses: list[float]
    ) -> None:
        losses: list[bool] = []
        whole, made = steady(losses, pauses)
        timer = whole.load(b"model", runtime="onnxruntime", threads=1, size=(3, 8, 8))
        losses += [True]
        assert timer.burst(5, 1) == Burst(5, (1.0,))
        assert [place.loaded for place in made] == [[b"model"], [b"model"]]
        assert [place.closed for place in made] == [True, False]
        assert len(pauses) == 1
        timer.burst(5, 1)
        assert len(made) == 2, "a connection that holds is kept"

    def test_three_further_tries_then_the_device_is_named(self, pauses: list[float]) -> None:
        losses: list[bool] = []
        whole, _ = steady(losses, pauses)
        timer = whole.load(b"model", runtime="onnxruntime", threads=1, size=(3, 8, 8))
        losses += [True] * 4
        with pytest.raises(DeviceError) as caught:
            timer.burst(5, 1)
        assert str(caught.value) == (
            "flaky broke off: pulled, 4 times in a row; what was finished is kept, so see to the device and "
            "run the same command again"
        )
        assert pauses == list(PAUSES_S)
        assert timer.burst(5, 1).runs == 5, "and it may come back later"

    def test_losses_in_a_row_are_counted_anew_after_a_success(self, pauses: list[float]) -> None:
        losses: list[bool] = []
        whole, _ = steady(losses, pauses)
        timer = whole.load(b"model", runtime="onnxruntime", threads=1, size=(3, 8, 8))
        for _ in range(5):
            losses += [True, True, True]
            assert timer.burst(1, 0).runs == 1

    def test_one_that_was_never_reached_is_named_at_once(self, pauses: list[float]) -> None:
        def nobody() -> Place:
            raise Lost("is not reached by adb")

        whole = Steady("adb:1", ("litert",), nobody, wait=pauses.append)
        with pytest.raises(DeviceError, match=r"^adb:1 cannot be used: it is not reached by adb$"):
            whole.describe()
        assert pauses == []

    def test_closing_a_lost_network_is_no_error(self, pauses: list[float]) -> None:
        losses: list[bool] = []
        whole, made = steady(losses, pauses)
        timer = whole.load(b"model", runtime="onnxruntime", threads=1, size=(3, 8, 8))
        whole.close()
        timer.close()
        assert [place.closed for place in made] == [True]


def test_a_killed_agent_is_started_again(tiny: NetSpec, pauses: list[float]) -> None:
    made: list[Agent] = []

    def connect() -> Agent:
        made.append(Agent("ssh:here", COMMAND))
        return made[-1]

    with Steady("ssh:here", Agent.runtimes, connect, wait=pauses.append) as whole:
        candidate = Candidate(tiny)
        timer = candidate.timer(whole, runtime("onnxruntime"), 1)
        os.killpg(made[0]._channel.pid, signal.SIGKILL)
        assert len(timer.burst(4, 1).wall_ms) == 4
    assert len(made) == 2
