"""Android devices: the real adb client, a stand-in for the daemon, and a benchmark_model of our own.

The stand-in program prints what the real one does, with times that the model's size alone decides.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adb_daemon import Daemon
from bneck.devices.fill import fill_table, plan_for_all
from bneck.devices.places import DeviceError, Place, describe, place, steady
from bneck.devices.places.adb import Adb, big_cores, median_us
from bneck.devices.places.contract import Lost
from bneck.devices.runtimes import runtime
from bneck.devices.timing import Burst
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.transforms import random_widths, scale_width
from commands import Call
from test_fill import QUICK

ADB = shutil.which("adb")
needs_adb = pytest.mark.skipif(ADB is None, reason="no adb client here")

OUTPUT = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [20]
INFO: Graph: [/data/local/tmp/bneck/0.tflite]
INFO: Loaded model /data/local/tmp/bneck/0.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 21.9
INFO: Initialized session in 42.1ms.
INFO: Running benchmark for at least 3 iterations and at least 0 seconds but terminate if exceeding 150 seconds.
INFO: count=3 first=20345 curr=14781 min=14610 max=20345 avg=16578.7 std=2664

INFO: Running benchmark for at least 20 iterations and at least 0 seconds but terminate if exceeding 9 seconds.
INFO: count=20 first=14901 curr=15003 min=14700 max=15900 avg=15100.1 std=180{more}

INFO: Inference timings in us: Init: 42100, First inference: 20345, Warmup (avg): 16578, Inference (avg): 15100
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
INFO: Memory footprint delta from the start of the tool (MB): init=2.5 overall=5.8
"""

# Milliseconds are the file's kilobytes; 10 more without taskset before it.
PROGRAM = """#!/bin/sh
for flag; do case $flag in
--graph=*) graph=${flag#*=};;
--num_runs=*) runs=${flag#*=};;
--enable_op_profiling=true) profiled=yes;;
esac; done
[ -f "$graph" ] || { echo "ERROR: Failed to mmap model $graph"; exit 1; }
us=$(wc -c < "$graph")
[ -n "$PINNED_TO" ] || us=$((us + 10000))
echo "INFO: STARTING!"
echo "INFO: Running benchmark for at least 1 iterations and at least 0 seconds."
echo "INFO: count=1 curr=999999"
echo
echo "INFO: Running benchmark for at least $runs iterations and at least 0 seconds."
echo "INFO: count=$runs curr=$us (all same)"
echo
echo "INFO: Inference timings in us: Init: 42100, First inference: 20345, Warmup (avg): 1, Inference (avg): $us"
if [ "$profiled" ]; then
echo "Operator-wise Profiling Info for Regular Benchmark Runs:"
echo "============================== Run Order =============================="
echo "	Delegate/Convolution (NHWC, F32) IGEMM	0.1	0.2	50.0%	1"
fi
"""


class TestOutput:
    def test_the_median_of_the_runs_counts_where_it_is_printed(self) -> None:
        more = " p5=14710 median=15020 p95=15890"
        assert median_us(OUTPUT.format(more=more)) == 15020

    def test_older_builds_print_the_mean_alone(self) -> None:
        assert median_us(OUTPUT.format(more="")) == 15100.1

    def test_runs_that_are_all_the_same_print_no_mean(self) -> None:
        assert median_us("count=1 curr=999999\n\ncount=3 curr=120(all same)\n") == 120

    def test_large_times_are_printed_with_an_exponent(self) -> None:
        line = (
            "count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798"
        )
        assert median_us(line) == 2_950_340

    @pytest.mark.parametrize("text", ["", "Killed", "count=0", "count=5 first=1 avg=0 std=0"])
    def test_rubbish_is_a_loss(self, text: str) -> None:
        with pytest.raises(Lost, match=r"^returned invalid data"):
            median_us(text)


def test_the_big_cores_are_those_with_the_highest_clock() -> None:
    clocks = {0: 1803000, 1: 1803000, 2: 2348000, 3: 2348000, 4: 2850000, 10: 1700000}
    listing = "\n".join(
        f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq:{khz}"
        for core, khz in clocks.items()
    )
    assert big_cores(listing, 1) == [4]
    assert big_cores(listing, 3) == [4, 3, 2]
    assert big_cores("", 1) == []


@pytest.fixture(scope="module")
def server_port() -> Iterator[int]:
    """Of an adb server of our own, so that the user's is left alone."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port = int(made.getsockname()[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        yield port
        adb("kill-server")


@pytest.fixture
def phone(server_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A phone of four cores, the last of which is a big one."""
    root = tmp_path / "phone"
    for folder in ("bin", "data/local/tmp"):
        (root / folder).mkdir(parents=True)
    for core, khz in enumerate((1800000, 1800000, 1800000, 2800000)):
        clock = root / f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq"
        clock.parent.mkdir(parents=True)
        clock.write_text(f"{khz}\n")
    write_program(root / "bin/taskset", '#!/bin/sh\nexport PINNED_TO=$1; shift; exec "$@"\n')
    write_program(root / "bin/uname", "#!/bin/sh\necho aarch64\n")
    write_program(
        root / "bin/getprop",
        "#!/bin/sh\ncase $1 in *manufacturer) echo Acme;; *product.model) echo Folder 7;; *soc*) echo AC1;; "
        "*release) echo 14;; esac\n",
    )
    monkeypatch.setenv("BNECK_BENCHMARK_MODEL", str(tmp_path / "benchmark_model"))
    write_program(tmp_path / "benchmark_model", PROGRAM)
    daemon = Daemon(root)
    yield daemon
    adb("disconnect", f"127.0.0.1:{daemon.port}")
    daemon.drop()


def adb(*arguments: str) -> None:
    subprocess.run([str(ADB), *arguments], capture_output=True, check=False, timeout=20)


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def device(phone: Daemon) -> Iterator[Place]:
    with place(f"adb:127.0.0.1:{phone.port}") as made:
        yield made


def load(device: Place, size: int) -> object:
    return device.load(b"x" * size, runtime="litert", threads=1, size=(3, 8, 8))


@needs_adb
class TestPhone:
    def test_it_is_described_with_the_core_that_is_measured_on(
        self, device: Place, phone: Daemon
    ) -> None:
        found = device.describe()
        assert found.place == f"adb:127.0.0.1:{phone.port}"
        assert found.processor == "Acme Folder 7 (AC1), core 3 of 2.80 GHz"
        assert (found.cores, found.system, found.pinned) == (4, "Android 14 aarch64", True)
        digest = hashlib.sha256(PROGRAM.encode()).hexdigest()[:12]
        assert device.version("litert") == f"benchmark_model {digest}"

    def test_a_burst_is_one_process_pinned_to_the_big_core(
        self, device: Place, phone: Daemon
    ) -> None:
        timer = load(device, 1234)
        assert timer.burst(7, 2) == Burst(7, (1.234,))
        (command,) = [c for c in phone.commands if "--graph" in c]
        assert command.startswith("taskset 8 /data/local/tmp/bneck/benchmark_model-")
        assert "--num_threads=1 --num_runs=7 --warmup_runs=2 " in command
        timer.close()
        assert [file.suffix for file in (phone.root / "data/local/tmp/bneck").iterdir()] == [""]

    def test_a_phone_that_hides_its_clocks_is_measured_unpinned(
        self, phone: Daemon, device: Place
    ) -> None:
        shutil.rmtree(phone.root / "sys")
        assert not device.describe().pinned
        assert load(device, 1000).burst(3, 0).wall_ms == (11.0,)

    def test_large_files_arrive_whole(self, device: Place, phone: Daemon) -> None:
        model = random.Random(0).randbytes(3_000_000)
        device.load(model, runtime="litert", threads=1, size=(3, 8, 8))
        (file,) = (phone.root / "data/local/tmp/bneck").glob("*.tflite")
        assert file.read_bytes() == model

    def test_measure_prints_ratios_and_the_profile(
        self, phone: Daemon, tiny: NetSpec, tiny_file: Path, call: Call, tmp_path: Path
    ) -> None:
        pytest.importorskip("ai_edge_litert")
        half = tmp_path / "half.yaml"
        from bneck.specs.text import to_text

        half.write_text(to_text(scale_width(tiny, 0.5)))
        answer = call(
            *("measure", tiny_file, half, "--device", f"adb:127.0.0.1:{phone.port}"),
            *("--benchmark-model", os.environ["BNECK_BENCHMARK_MODEL"]),
            *("--rounds", 3, "--profile", "--json"),
        )
        assert answer.code == 0, answer.err
        one, other = json.loads(answer.out)
        assert one["runtime"] == "litert"
        assert one["cpu_ms"] is None
        assert one["rounds_cpu_ms"] == []
        assert one["profile"].splitlines()[-1].startswith("	Delegate/Convolution")
        assert one["latency_ms"]["median"] > other["latency_ms"]["median"] > 0
        assert one["n"] > 3

    def test_the_table_of_times_has_no_cpu_time(
        self, phone: Daemon, tiny_file: Path, call: Call
    ) -> None:
        pytest.importorskip("ai_edge_litert")
        address = f"adb:127.0.0.1:{phone.port}"
        answer = call("measure", tiny_file, "--device", address, "--rounds", 3)
        assert answer.code == 0, answer.err
        assert (
            f"{address}: Acme Folder 7 (AC1), core 3 of 2.80 GHz, 1 thread, batch 1" in answer.out
        )
        assert " - " in answer.out


@needs_adb
class TestBroken:
    @pytest.fixture(autouse=True)
    def no_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(steady, "PAUSES_S", (0.05, 0.2, 0.5))

    def test_a_device_that_adb_does_not_know(self, phone: Daemon) -> None:
        with pytest.raises(
            DeviceError, match=r"^adb:emulator-9 cannot be used: it is not reached by"
        ):
            describe("adb:emulator-9")

    def test_a_dropped_phone_that_comes_back_goes_on(self, phone: Daemon, device: Place) -> None:
        timer = load(device, 500)
        phone.drop()
        phone.start()
        assert timer.burst(3, 1).wall_ms == (0.5,)

    def test_a_phone_that_stays_away_is_named(self, phone: Daemon, device: Place) -> None:
        timer = load(device, 500)
        phone.drop()
        with pytest.raises(
            DeviceError, match=r"^adb:127\.0\.0\.1:\d+ is not reached by adb.*4 times"
        ):
            timer.burst(3, 1)

    def test_a_program_that_prints_rubbish_is_quoted(self, phone: Daemon, tmp_path: Path) -> None:
        write_program(tmp_path / "benchmark_model", "#!/bin/sh\necho Hello\n")
        with place(f"adb:127.0.0.1:{phone.port}") as device:
            with pytest.raises(
                DeviceError, match=r"returned invalid data \('Hello'\), 4 times in a row"
            ):
                load(device, 500).burst(3, 1)
            with pytest.raises(
                DeviceError, match="prints no profile of operators; take a build with"
            ):
                device.profile(b"x", runtime="litert", threads=1, size=(3, 8, 8))

    def test_a_program_for_another_processor(self, phone: Daemon, tmp_path: Path) -> None:
        (tmp_path / "benchmark_model").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
        with place(f"adb:127.0.0.1:{phone.port}") as device:
            timer = load(device, 500)
            with pytest.raises(DeviceError, match=r"cannot run .*benchmark_model-\w+: .*, 4 times"):
                timer.burst(3, 1)

    def test_no_adb(self, monkeypatch: pytest.MonkeyPatch, phone: Daemon) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(DeviceError, match=r"^adb:1 needs adb, which is not installed"):
            describe("adb:1")


class TestRefused:
    def test_no_benchmark_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("BNECK_BENCHMARK_MODEL", raising=False)
        with pytest.raises(
            DeviceError, match=r"needs TensorFlow Lite's benchmark_model .*; pass the file"
        ):
            describe("adb:1")
        monkeypatch.setenv("BNECK_BENCHMARK_MODEL", "/nowhere/x")
        with pytest.raises(
            DeviceError, match=r"^there is no file /nowhere/x; --benchmark-model must"
        ):
            describe("adb:1")

    def test_other_places_tell_no_operators(self, tiny_file: Path, call: Call) -> None:
        answer = call("measure", tiny_file, "--profile")
        assert answer.code == 2
        assert "local tells no times of single operators; only adb devices do" in answer.err


@needs_adb
@pytest.mark.slow
def test_twenty_drops_of_the_phone_leave_a_table_that_is_complete_and_equal(
    phone: Daemon, tiny: NetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(steady, "PAUSES_S", (0.05, 0.5, 2.0))
    rng = random.Random(0)
    networks = [random_widths(tiny, rng) for _ in range(16)]
    plan = plan_for_all([tiny, *networks], networks, name="corners", digest="x")
    given: dict[str, Any] = {"plan": plan, "effort": QUICK, "runtime_name": "litert"}
    name, asked = f"adb:127.0.0.1:{phone.port}", [0]
    doomed: set[int] = set()
    shell = Adb._shell

    def watched(self: Adb, command: str, limit_s: float = 30.0) -> str:
        asked[0] += 1
        if asked[0] in doomed:
            doomed.remove(asked[0])
            phone.drop()
            phone.start()
        return shell(self, command, limit_s)

    monkeypatch.setattr(Adb, "_shell", watched)
    fill_table(tiny, tmp_path / "unbroken.jsonl", place=name, **given)
    doomed |= set(random.Random(2).sample(range(12, asked[0]), 20))
    asked[0] = 0
    fill_table(tiny, tmp_path / "dropped.jsonl", place=name, **given)
    assert not doomed
    unbroken = (tmp_path / "unbroken.jsonl").read_bytes()
    assert (tmp_path / "dropped.jsonl").read_bytes() == unbroken


def test_the_engine_that_writes_files_for_phones_is_litert() -> None:
    try:
        assert runtime(Adb.runtimes[0]).suffix == ".tflite"
    except InputError:
        pytest.skip("litert is not installed")
