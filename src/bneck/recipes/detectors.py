"""Detectors by name: counts, and Table 6 beside them. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from bneck.records.measurement import Measurement
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.transforms import rename, with_resolution
from bneck.tasks.detect.count import PAPER_V2_CLASSES, TABLE6, DetectorCount, Table6Row
from bneck.tasks.detect.count import count_detector as count_value
from bneck.tasks.detect.head import COCO_IDS, Detector, ssdlite

if TYPE_CHECKING:
    from bneck.devices.protocol import Protocol


def count_detector(
    network: str | Path | NetSpec | Detector,
    *,
    classes: int = COCO_IDS,
    resolution: int | None = None,
) -> DetectorCount:
    """Parameters and multiply-adds of SSDLite round a network, or of a detector as it is.

    Args:
        network: a zoo name, a spec file, a run's folder, a spec, or a detector.
        classes: what can be detected; the paper counts with COCO's 90 ids.
        resolution: side of the input; None takes the name's (`v3-small@256`), else 320.

    Raises:
        InputError: no such network, or a number that cannot be.
    """
    if isinstance(network, Detector):
        return count_value(network)
    return count_value(ssdlite(network, classes=classes, resolution=resolution))


@dataclass(frozen=True, slots=True)
class DetectorEntry:
    """A row of Table 6 with exact counts: for the 91 slots of COCO's ids, and for 81."""

    row: Table6Row
    costs: DetectorCount
    costs_81: DetectorCount


def detector_zoo(pattern: str = "*") -> list[DetectorEntry]:
    """The rows of Table 6 in its order.

    Args:
        pattern: shell-style, as "v3-small*"; a name without wildcards stands for what begins with it.

    Raises:
        InputError: no row is about such a network.
    """
    wanted = pattern if any(c in pattern for c in "*?[") else f"{pattern}*"
    found = [
        DetectorEntry(
            row, count_detector(row.network), count_detector(row.network, classes=PAPER_V2_CLASSES)
        )
        for row in TABLE6
        if fnmatchcase(row.network, wanted)
    ]
    if not found:
        known = ", ".join(row.network for row in TABLE6)
        raise InputError(f"Table 6 has no network {pattern!r}; it has {known}")
    return found


def measure_detectors(
    *networks: str | Path | NetSpec,
    classes: int = COCO_IDS,
    resolution: int | None = None,
    threads: int = 1,
    rounds: int = 20,
    runtime: str | Sequence[str] = "onnxruntime",
    precision: str | Sequence[str] = "fp32",
    protocol: Protocol | None = None,
    on_round: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Latency of SSDLite round networks on this machine at batch 1, interleaved in shuffled rounds.

    Every network in every runtime and precision given, with random weights, without decoding and
    suppression, whose time depends on what is found. A trained detector's run is measured by its own
    file with `bneck.measure`, as any file that bneck export has written. A `protocol` stands in place
    of `threads` and `rounds`; `on_round` is called with (rounds done, rounds).

    Raises:
        InputError: no such network or runtime, or a machine too busy to measure on.
    """
    from bneck.devices.measure import Candidate, measure
    from bneck.devices.models import wrapped_model
    from bneck.devices.protocol import Protocol as NewProtocol
    from bneck.devices.runtimes import runtime as engine_of

    if not networks:
        raise InputError(
            "there is nothing to measure; name a network, as in: bneck measure v3-small --task detect"
        )
    if threads < 1 or rounds < 3:
        raise InputError(f"threads is {threads} and rounds {rounds}; they must be at least 1 and 3")
    runtimes = [runtime] if isinstance(runtime, str) else list(runtime)
    precisions = [precision] if isinstance(precision, str) else list(precision)
    candidates = []
    for name, kind, network in product(runtimes, precisions, networks):
        detector = ssdlite(network, classes=classes, resolution=resolution)
        model = wrapped_model(detector, engine_of(name), (detector.resolution,) * 2, kind)
        spec = with_resolution(detector.network, detector.resolution)
        candidates.append(Candidate(rename(spec, f"ssdlite {spec.name}"), model, name, kind))
    protocol = protocol or NewProtocol(threads=threads, rounds=rounds)
    return measure(candidates, protocol=protocol, on_round=on_round)
