"""Android devices over adb: TensorFlow Lite's `benchmark_model` on a big core, one process per burst.

The user supplies the program (for the phone's processor); it and the models are pushed to
/data/local/tmp/bneck. The system's adb client is used as it is set up, with its server.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from bneck.devices.machine import THIS
from bneck.devices.places.answers import HeldTimer, last_line, rubbish
from bneck.devices.places.contract import DeviceError, ImageSize, Lost, Place
from bneck.devices.timing import Burst, Timer
from bneck.records.measurement import Device

FOLDER = "/data/local/tmp/bneck"
QUICK_S, PUSH_S, BURST_S = 30.0, 300.0, 120.0  # time limits
PROFILED_RUNS = 50
CLOCKS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
DONE = "bneck-rc="  # adb of old devices does not pass exit codes on
COUNTED = re.compile(r"\bcount=(\d+) (.*)$", re.MULTILINE)
FIGURE = re.compile(r"\b(curr|avg|median)=([\d.]+(?:e[+-]?\d+)?)")
PROFILE = "Operator-wise Profiling Info"


def benchmark_program() -> Path:
    """The user's `benchmark_model`: the file that BNECK_BENCHMARK_MODEL names.

    Raises:
        DeviceError: it is not set or no file.
    """
    given = os.environ.get("BNECK_BENCHMARK_MODEL")
    program = "benchmark_model for the phone's processor"
    if not given:
        raise DeviceError(
            f"measuring over adb needs TensorFlow Lite's {program}; pass the file with --benchmark-model"
        )
    if not Path(given).is_file():
        raise DeviceError(f"there is no file {given}; --benchmark-model must name {program}")
    return Path(given)


def big_cores(listing: str, count: int) -> list[int]:
    """The `count` cores with the highest top clock, from lines PATH:KILOHERTZ; of equal ones the last."""
    found = re.findall(r"/cpu(\d+)/cpufreq/cpuinfo_max_freq:(\d+)", listing)
    ranked = sorted(((int(khz), int(core)) for core, khz in found), reverse=True)
    return [core for _, core in ranked[:count]]


def median_us(output: str) -> float:
    """The median time of a run in microseconds, or the mean, of what `benchmark_model` prints.

    Raises:
        Lost: there is no such figure.
    """
    # The last "count=" line is of the runs, the one before it of the warm-up.
    counted = COUNTED.findall(output)
    figures = dict(FIGURE.findall(counted[-1][1])) if counted else {}
    for name in ("median", "avg", "curr"):
        if name in figures and float(figures[name]) > 0:
            return float(figures[name])
    raise rubbish(output.strip()[-60:])


class Adb(Place):
    """A device that adb knows by its serial number, or by HOST:PORT.

    Raises:
        DeviceError: no adb, or no `benchmark_model`.
        Lost: adb does not see the device.
    """

    runtimes = ("litert",)

    def __init__(self, serial: str) -> None:
        self.name = f"adb:{serial}"
        self._serial = serial
        self._program = benchmark_program()
        self._adb = shutil.which("adb") or ""
        if not self._adb:
            raise DeviceError(f"{self.name} needs adb, which is not installed; install it")
        if re.fullmatch(r".+:\d+", serial):  # over the network; adb forgets those that disconnected
            self._run([self._adb, "connect", serial], QUICK_S)
        try:
            self._client("get-state", limit_s=QUICK_S)
        except Lost as lost:
            raise Lost(f"{lost} (adb devices lists what is connected)") from None
        digest = hashlib.sha256(self._program.read_bytes()).hexdigest()[:12]
        self._version = f"benchmark_model {digest}"
        self._remote = f"{FOLDER}/benchmark_model-{digest}"
        self._shell(f"mkdir -p {FOLDER}")
        self._push(self._program, self._remote)
        self._shell(f"chmod 755 {self._remote}")
        self._clocks = self._shell(f"grep -H . {CLOCKS} 2>/dev/null || true")
        self._can_pin = bool(big_cores(self._clocks, 1)) and "yes" in self._shell(
            f"taskset {_mask(self._clocks, 1)} echo yes 2>&1 || true"
        )

    def describe(self) -> Device:
        """What the phone calls itself, and the core that is measured on."""
        names = ("product.manufacturer", "product.model", "soc.model", "build.version.release")
        maker, model, chip, android = (self._shell(f"getprop ro.{one}").strip() for one in names)
        machine = self._shell("uname -m").strip()
        count = self._shell("ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l").strip()
        processor = " ".join(filter(None, (maker, model, f"({chip})" if chip else "")))
        if cores := big_cores(self._clocks, 1):
            khz = int(re.findall(rf"/cpu{cores[0]}/.*:(\d+)", self._clocks)[0])
            processor += f", core {cores[0]} of {khz / 1e6:.2f} GHz"
        return Device(
            place=self.name,
            processor=processor or "unknown",
            cores=int(count) if count.isdecimal() else 0,
            system=f"Android {android} {machine}",
            pinned=self._can_pin,
        )

    def version(self, runtime: str) -> str:
        """Of `benchmark_model`, which does not tell it: the file's fingerprint."""
        return self._version

    def load(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> Timer:
        """Push a TFLite file's bytes; `benchmark_model` makes the image up itself."""
        return HeldTimer(self, (self._pushed(model), threads))

    def burst(self, held: tuple[str, int], runs: int, warmup: int) -> Burst:
        """One process there: `warmup` runs, then `runs` that are timed; it tells their median alone."""
        with THIS.turn(self.name):
            output = self._benchmark(*held, runs, warmup)
        return Burst(runs, (median_us(output) / 1e3,))

    def forget(self, held: tuple[str, int]) -> None:
        """Delete a model file on the device."""
        with suppress(Lost):
            self._shell(f"rm -f {held[0]}")

    def profile(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> str:
        """The times of single operators, as `benchmark_model` prints them."""
        held = self._pushed(model), threads
        output = self._benchmark(*held, PROFILED_RUNS, 5, "--enable_op_profiling=true")
        self.forget(held)
        start = output.find(PROFILE)
        if start < 0:
            raise DeviceError(
                f"the benchmark_model of {self.name} prints no profile of operators; take a build with "
                "profiling"
            )
        return output[output.rfind("\n", 0, start) + 1 :].partition(DONE)[0].strip()

    def _benchmark(self, remote: str, threads: int, runs: int, warmup: int, *more: str) -> str:
        pin = f"taskset {_mask(self._clocks, threads)} " if self._can_pin else ""
        flags = (
            f"--graph={remote} --num_threads={threads} --num_runs={runs} --warmup_runs={warmup} "
            "--min_secs=0 --warmup_min_secs=0 --use_xnnpack=true"
        )
        return self._shell(f"{pin}{self._remote} {' '.join((flags, *more))} 2>&1", BURST_S)

    def _pushed(self, model: bytes) -> str:
        remote = f"{FOLDER}/{hashlib.sha256(model).hexdigest()[:16]}.tflite"
        with tempfile.TemporaryDirectory(prefix="bneck-") as folder:
            file = Path(folder) / "model.tflite"
            file.write_bytes(model)
            self._push(file, remote)
        return remote

    def _push(self, file: Path, remote: str) -> None:
        # Under another name first, so that a file that is there is whole.
        self._client("push", str(file), f"{remote}.part", limit_s=PUSH_S)
        self._shell(f"mv {remote}.part {remote}")

    def _shell(self, command: str, limit_s: float = QUICK_S) -> str:
        """What a command on the device prints; `Lost` if it did not end well."""
        output = self._client("shell", f"{command}; echo {DONE}$?", limit_s=limit_s)
        text, done, code = output.replace("\r", "").rpartition(DONE)
        if not done:
            raise Lost(f"disconnected during {command.partition(' ')[0]}")
        if code.strip() != "0":
            words = command.split()
            program = next((word for word in words if "benchmark_model" in word), command)
            raise Lost(f"cannot run {program}{last_line(text.encode())}")
        return text

    def _client(self, *arguments: str, limit_s: float) -> str:
        return self._run([self._adb, "-s", self._serial, *arguments], limit_s)

    def _run(self, command: list[str], limit_s: float) -> str:
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=limit_s, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired:
            raise Lost(f"did not answer within {limit_s:.0f} s") from None
        if done.returncode:
            raise Lost(f"is not reached by adb{last_line(done.stderr or done.stdout)}")
        return done.stdout.decode("utf-8", "replace")


def _mask(clocks: str, threads: int) -> str:
    return f"{sum(1 << core for core in big_cores(clocks, threads)):x}"
