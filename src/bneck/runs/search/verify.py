"""Measured latencies that a search decides by, remembered so that deciding again ends alike.

The run's ledger remembers them for the run, a file beside the device's latency table for the
device. The final measurement of a run is always made anew.
"""

from __future__ import annotations

from bneck.costs.table import LatencyTable
from bneck.records.files import locked
from bneck.records.ledger import Ledger
from bneck.runs.search.latency import measured_ms, table_path
from bneck.runs.search.run import Run
from bneck.specs.network import NetSpec


def verified_ms(run: Run, reference: NetSpec, spec: NetSpec, table: LatencyTable) -> float:
    """Measured latency of a network in milliseconds, at the pace of the table.

    `reference` is the network whose pace that is.
    """
    digest = spec.digest()
    known = run.ledger.find(event="verified", digest=digest)
    if known is None:
        known = {
            "event": "verified",
            "digest": digest,
            "measured_ms": _remembered_ms(reference, spec, table, run),
            "estimated_ms": table.estimate_ms(spec),
        }
        run.ledger.append(known)
    return float(known["measured_ms"])


def _remembered_ms(reference: NetSpec, spec: NetSpec, table: LatencyTable, run: Run) -> float:
    on, wrapper = run.settings.deployment, run.wrapper
    path = table_path(reference, on, wrapper=wrapper).with_suffix(".networks.jsonl")
    # A table that was filled anew has another pace; what was measured beside the old one is void.
    key = {"digest": spec.digest(), "reference_ms": table.header["reference_ms"]}
    with locked(path.with_suffix(".lock"), wait=True):
        memory = Ledger(path)
        entry = memory.find(**key)
        if entry is None:
            entry = {**key, "measured_ms": measured_ms(reference, [spec], table, on, wrapper)[0]}
            memory.append(entry)
    return float(entry["measured_ms"])
