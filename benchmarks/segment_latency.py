"""Rows of Tables 7 and 8 on this machine, interleaved, beside the paper's ratios.

python benchmarks/segment_latency.py [HEIGHTxWIDTH] [ROUNDS]

One thread of ONNX Runtime, float32, scores at full size, random weights. Ratios are of CPU time,
which other processes disturb less than wall time; the paper's are of one core of a Pixel 3.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from statistics import median

from bneck.devices.measure import Candidate, measure
from bneck.runs.measure import PATIENT
from bneck.specs.zoo import network
from bneck.tasks.options import parse_size
from bneck.tasks.segment.count import PUBLISHED_SEGMENTERS
from bneck.tasks.segment.head import Aspp


def main() -> None:
    """Measure, print a table and the records."""
    size = parse_size(sys.argv[1] if len(sys.argv) > 1 else "512x1024")
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else PATIENT.rounds
    rows = [row for row in PUBLISHED_SEGMENTERS if row.table == 7 or "os32" in row.network]
    made = [
        Candidate(
            network(row.network),
            wrapper=Aspp(shape=size, head=row.head, filters=row.filters, stride=None),
        )
        for row in rows
    ]
    protocol = replace(PATIENT, rounds=rounds, max_repeats=0, max_spread=float("inf"))
    found = measure(made, protocol=protocol)
    base = next(i for i, row in enumerate(rows) if (row.table, row.row) == (7, 8))
    print("table row  segmenter                         CPU ms  / row 8  paper half  paper full")
    for row, record in zip(rows, found, strict=True):
        ours = median(record.rounds_cpu_ms) / median(found[base].rounds_cpu_ms)
        half = row.half_latency_ms / rows[base].half_latency_ms
        full = row.latency_s / rows[base].latency_s
        print(
            f"{row.table:5} {row.row:3}  {record.network:30} {median(record.rounds_cpu_ms):9.1f} "
            f"{ours:8.2f} {half:11.2f} {full:11.2f}"
        )
    print(json.dumps([record.as_json() for record in found]))


if __name__ == "__main__":
    main()
