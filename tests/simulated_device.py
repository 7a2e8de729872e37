"""A device that does not exist: what it takes is known, and no clock of this machine is read.

It keeps the contract of `devices.places`, so the protocol, tables, verification and whole searches run
against it as they are. Its time passes only while it runs something or is waited for. One seed gives
one course of noise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import Any

from bneck.devices.models import network_model
from bneck.devices.places import KINDS, Kind
from bneck.devices.places.contract import ImageSize, Lost, Place
from bneck.devices.places.steady import Steady
from bneck.devices.runtimes import runtime
from bneck.devices.timing import Burst, Timer
from bneck.records.measurement import Device
from bneck.specs.network import NetSpec

START_MS, OPERATOR_MS, GMADDS_MS, BYTE_MS = 0.02, 0.01, 400.0, 2e-4
RUNTIMES = ("onnxruntime", "litert", "openvino")
_numbers = count(1)


@lru_cache(maxsize=10_000)
def work_ms(model: bytes) -> float:
    """What a model file takes at pace 1.

    Of ONNX: 20 us, 10 us per operator with weights, and 400 ms per 10^9 of its multiply-adds. Of
    other files 20 us and 200 ns per byte. That is slow: a burst has few runs, and a test is quick.
    """
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model)).graph
    except Exception:  # a TFLite file
        return START_MS + BYTE_MS * len(model)
    shapes = {value.name: list(value.dims) for value in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [side.dim_value for side in value.type.tensor_type.shape.dim]
    ms = START_MS
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weights, out = shapes[node.input[1]], shapes[node.output[0]]
            madds = math.prod(weights) * math.prod(out[2:])
            ms += OPERATOR_MS + GMADDS_MS * madds / 1e9
    return ms


class SimulatedDevice:
    """The device itself, which outlives connections to it.

    Args:
        name: as `--device` takes it; None makes up one that no other device has.
        seed: of the noise.
        noise: by how much a run is delayed, as a share of its time: the standard deviation of a normal
            distribution, of which only the delays count. Nothing makes a run faster than it is.
        slowdown: the device's seconds -> how many times slower it runs then.
        disturbed: the number of a burst -> the share by which others made it wait.
        lost: the number of a request -> whether the connection breaks off there.
        work: a model file's bytes -> milliseconds at pace 1.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        seed: int = 0,
        noise: float = 0.0,
        slowdown: Callable[[float], float] = lambda seconds: 1.0,
        disturbed: Callable[[int], float] = lambda burst: 0.0,
        lost: Callable[[int], bool] = lambda request: False,
        work: Callable[[bytes], float] = work_ms,
    ) -> None:
        self.name = name or f"simulated:{next(_numbers)}"
        self.rng = random.Random(seed)
        self.noise, self.slowdown, self.disturbed = noise, slowdown, disturbed
        self.lost, self.work = lost, work
        self.seconds = 0.0
        self.requests = self.bursts = self.losses = 0
        self.loaded: list[bytes] = []
        self.threads = set[int]()
        self.waited_s: list[float] = []

    def place(self) -> Place:
        """A connection that is made again when it breaks off."""
        return Steady(self.name, RUNTIMES, lambda: Connection(self), wait=self.wait)

    def wait(self, seconds: float) -> None:
        """Let the device's time pass."""
        self.waited_s.append(seconds)
        self.seconds += seconds

    def network_ms(self, spec: NetSpec, precision: str = "fp32") -> float:
        """What a network truly takes at pace 1."""
        return self.work(network_model(spec, runtime("onnxruntime"), precision))

    def asked(self) -> None:
        """A request has come in."""
        self.requests += 1
        if self.lost(self.requests):
            self.losses += 1
            raise Lost("broke off: pulled")

    def burst(self, model: bytes, runs: int, warmup: int) -> Burst:
        """Run a model; every run takes as long as the device is slow at its beginning."""
        self.bursts += 1
        waits, wall, cpu = self.disturbed(self.bursts), [], []
        for _ in range(warmup + runs):
            ms = self.work(model) * self.slowdown(self.seconds)
            ms *= 1 + abs(self.rng.gauss(0, self.noise)) if self.noise else 1.0
            cpu.append(ms)
            wall.append(ms * (1 + waits))
            self.seconds += wall[-1] / 1e3
        return Burst(runs, tuple(wall[warmup:]), tuple(cpu[warmup:]))


class Connection(Place):
    """A connection to the device; what was loaded over another one is not known over this one."""

    runtimes = RUNTIMES

    def __init__(self, device: SimulatedDevice) -> None:
        self.name = device.name
        self._device = device
        device.asked()

    def describe(self) -> Device:
        self._device.asked()
        return Device(place=self.name, processor="simulated", cores=1, system="none", pinned=True)

    def version(self, runtime: str) -> str:
        self._device.asked()
        return "1.0"

    def load(self, model: bytes, *, runtime: str, threads: int, size: ImageSize) -> Timer:
        self._device.asked()
        self._device.loaded.append(model)
        self._device.threads.add(threads)
        return ModelTimer(self._device, model)


class ModelTimer(Timer):
    """A model that a connection has loaded."""

    def __init__(self, device: SimulatedDevice, model: bytes) -> None:
        self._device = device
        self._model = model

    def burst(self, runs: int, warmup: int) -> Burst:
        self._device.asked()
        return self._device.burst(self._model, runs, warmup)


@contextmanager
def plugged_in(**what: Any) -> Iterator[SimulatedDevice]:
    """A simulated device that `--device` finds by its name."""
    device, before = SimulatedDevice(**what), KINDS.get("simulated")

    def opened(name: str) -> Place:
        if name == device.name:
            return device.place()
        assert before is not None, name
        return before.open(name)

    KINDS["simulated"] = Kind("simulated:NUMBER", opened)
    try:
        yield device
    finally:
        if before is None:
            del KINDS["simulated"]
        else:
            KINDS["simulated"] = before
