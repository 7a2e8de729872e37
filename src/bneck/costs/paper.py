"""Latencies that the paper printed (Tables 3 and 4): one big core of a Pixel 1, TFLite, batch 1.

They are for ratios alone; nothing that bneck measures is on that phone.
"""

from __future__ import annotations

PIXEL_1_MS: dict[tuple[str, str], float] = {
    ("v3-large", "fp32"): 51.0,
    ("v3-large-0.75", "fp32"): 39.0,
    ("mnasnet-a1", "fp32"): 71.0,
    ("proxyless-mobile", "fp32"): 72.0,
    ("v2", "fp32"): 64.0,
    ("v3-small", "fp32"): 15.8,
    ("v3-small-0.75", "fp32"): 12.8,
    ("mnas-small", "fp32"): 20.3,
    ("v2-0.35", "fp32"): 16.6,
    ("v3-large", "int8"): 44.0,
    ("v2", "int8"): 52.0,
    ("v3-small", "int8"): 15.5,
    ("v2-0.35", "int8"): 16.7,
}


def paper_ratio(network: str, precision: str, first: str, first_precision: str) -> float | None:
    """The paper's latency of a network over that of the first; None where it has not printed both."""
    times = PIXEL_1_MS.get((network, precision)), PIXEL_1_MS.get((first, first_precision))
    return times[0] / times[1] if times[0] and times[1] else None
