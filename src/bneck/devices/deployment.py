"""What a network is to run on: a device, a runtime there, a precision. Latency tables speak of one."""

from __future__ import annotations

from dataclasses import dataclass

from bneck.devices.places import place
from bneck.devices.runtimes import EngineError
from bneck.graphs.forms import GRAPH_RUNTIMES, Precision, form
from bneck.specs.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A device, one of its runtimes and a precision, known to go together; one thread unless told."""

    device: str = "local"
    runtime: str = "onnxruntime"
    precision: Precision = "fp32"
    threads: int = 1

    @staticmethod
    def of(
        device: str = "local", runtime: str | None = None, precision: str = "fp32", *, threads: int = 1
    ) -> Deployment:  # fmt: skip
        """A deployment in words; without a runtime the device's usual one. No device is reached.

        Raises:
            InputError: no such device, a runtime or precision that does not go with it, or fewer
                than one thread.
        """
        where = place(device)
        name = runtime or where.runtimes[0]
        where.check(name)
        form(name, precision)
        if name not in GRAPH_RUNTIMES:
            raise EngineError(
                f"there are no latency tables for the runtime {name}; take {', '.join(GRAPH_RUNTIMES)}"
            )
        if threads < 1:
            raise InputError(f"threads is {threads}; it must be at least 1")
        if threads > 1 and device.partition(":")[0] == "browser":
            raise InputError(f"{device} runs on one thread, not {threads}; leave --threads out")
        return Deployment(device=device, runtime=name, precision=precision, threads=threads)  # type: ignore[arg-type]

    @property
    def is_plain(self) -> bool:
        """Whether the file that every run has, model.onnx, is what runs there."""
        return self.runtime == "onnxruntime" and self.precision == "fp32"

    def __str__(self) -> str:
        there = "" if self.device == "local" else f" on {self.device}"
        threads = "" if self.threads == 1 else f" with {self.threads} threads"
        return f"{self.runtime} in {self.precision}{threads}{there}"
