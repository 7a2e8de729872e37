"""Latency of many networks in minutes: raced in small groups, all relative to one network, and remembered."""

from __future__ import annotations

from collections.abc import Sequence

from bneck.devices.deployment import Deployment
from bneck.devices.measure import REFERENCE_NAME, Candidate
from bneck.devices.protocol import Protocol
from bneck.records.ledger import Ledger
from bneck.records.measurement import Measurement
from bneck.records.progress import Progress
from bneck.runs.search.latency import filling, measured, table_path
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import PLAIN
from bneck.specs.zoo import network

# The largest spread is that of four rounds, of which one outlier makes half: it is shown, and rarely refused.
QUICK = Protocol(rounds=4, loads=3, max_repeats=3, max_spread=1.0)
GROUP = 8  # networks that are loaded at once: some hundred MB of weights


def latencies(
    specs: Sequence[NetSpec], on: Deployment, progress: Progress, *, again: bool = False
) -> list[Measurement]:
    """Measure networks on a device, interleaved in groups, or take what an earlier choice measured.

    A reference network runs in every round. All latencies are relative to its own on this device, measured
    once before the first group, so that groups of different minutes compare. What a group came to is kept in
    the user's cache folder at once, so that a stopped choice goes on where it was.

    Args:
        specs: the networks, in the order of what comes back; the same one may come twice.
        on: device, runtime, precision and threads.
        progress: receives a stage, in rounds of all networks.
        again: forget what was measured earlier.

    Raises:
        TimingError: the device was too busy.
    """
    reference = network(REFERENCE_NAME)
    path = table_path(reference, on).with_suffix(".choice.jsonl")
    with filling(path, progress):
        if again:
            path.unlink(missing_ok=True)
        memory = Ledger(path)
        known = {entry["digest"]: entry["measurement"] for entry in memory.all(event="measured")}
        missing = list({s.digest(): s for s in specs if s.digest() not in known}.values())
        if missing:
            progress.stage("measuring networks", len(missing))
        for first in range(0, len(missing), GROUP):
            group = missing[first : first + GROUP]

            def on_round(done: int, rounds: int, size: int = len(group)) -> None:
                progress.advance(size / (QUICK.rounds * QUICK.loads))

            candidates = [Candidate(spec, precision=on.precision) for spec in group]
            nominal_ms = _nominal_ms(memory, reference, on)
            found = measured(candidates, reference, nominal_ms, on, PLAIN, QUICK, on_round)
            memory.append(*(
                {"event": "measured", "digest": one.digest, "measurement": one.as_json()}
                for one in found
            ))  # fmt: skip
            known |= {one.digest: one.as_json() for one in found}
    return [Measurement.from_json(known[spec.digest()]) for spec in specs]


def _nominal_ms(memory: Ledger, reference: NetSpec, on: Deployment) -> float:
    """The reference's own latency, measured once."""
    begun = memory.find(event="begun")
    if begun is None:
        alone = Candidate(reference, precision=on.precision)
        (found,) = measured([alone], reference, None, on, PLAIN, QUICK)
        begun = {"event": "begun", "reference_ms": found.reference_ms}
        memory.append(begun)
    return float(begun["reference_ms"])
