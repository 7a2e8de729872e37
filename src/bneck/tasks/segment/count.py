"""Costs of a segmenter, ours and as the paper's Tables 7 and 8 count them, and what they print."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from bneck.costs.count import BYTES, Count, count_elementwise, count_rows
from bneck.specs.network import Size, as_size
from bneck.tasks.segment.head import Head, Segmenter

FULL, HALF = (1024, 2048), (512, 1024)  # of Cityscapes, (height, width)


def count_segmenter(seg: Segmenter, size: Size) -> Count:
    """Count a segmenter at an image size, a side or (height, width) in pixels, by the rules of `count`.

    The last row is the head. Activation memory includes the low-level map, which waits from the tap
    to the head, and the scores at the size of the image, which are by far the largest map.
    """
    height, width = as_size(size)
    walk = list(seg.layers((height, width)))
    rows = list(count_rows(walk))
    low = next(layer for layer in walk if seg.is_low(layer))
    waiting = BYTES * low.out * low.size_out[0] * low.size_out[1] if seg.head == "lraspp" else 0
    peaks = [row.activation_bytes + (waiting if row.row > seg.tap else 0) for row in rows]
    last = walk[-1]
    scores = seg.classes * (height * width + last.size_out[0] * last.size_out[1])
    peaks[-1] = max(peaks[-1], BYTES * scores)
    return Count(
        params=sum(row.params for row in rows),
        madds=sum(row.madds for row in rows),
        activation_bytes=max(peaks),
        rows=tuple(replace(row, activation_bytes=n) for row, n in zip(rows, peaks, strict=True)),
    )


def paper_madds(seg: Segmenter, size: Size = FULL) -> int:
    """Multiply-adds as Tables 7 and 8 count them, for an image of `size`.

    Those of the convolutions at one pixel more per side, 2 per element of h-swish, 1 per element that
    squeeze-and-excite multiplies, 1 per element of the scores at full size. The three last terms are
    not part of our count: with them all rows of V2 and V3 agree within 0.02B.
    """
    height, width = (side + 1 for side in as_size(size))
    walk = list(seg.layers((height, width)))
    convs = sum(row.madds for row in count_rows(walk))
    return convs + sum(map(count_elementwise, walk)) + seg.classes * height * width


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSegmenter:
    """A printed row: mIOU in percent, parameters in millions, multiply-adds in billions.

    Latencies are of one thread of a Pixel 3's CPU, in seconds at 1024 x 2048 ("full") and in
    milliseconds at 512 x 1024 ("half"). `table` is 7 (mIOU on val) or 8 (on test).
    """

    table: int
    row: int
    network: str
    head: Head
    filters: int
    miou: float
    params_m: float | None
    madds_b: float
    half_madds_b: float | None
    latency_s: float
    half_latency_ms: float


def _row(table: int, row: int, network: str, head: str, figures: str) -> PublishedSegmenter:
    filters, miou, params, madds, half_madds, latency, half_latency = figures.split()
    return PublishedSegmenter(
        table=table, row=row, network=network, head=cast(Head, head), filters=int(filters),
        miou=float(miou), params_m=None if params == "-" else float(params), madds_b=float(madds),
        half_madds_b=None if half_madds == "-" else float(half_madds), latency_s=float(latency),
        half_latency_ms=int(half_latency),
    )  # fmt: skip


PUBLISHED_SEGMENTERS: tuple[PublishedSegmenter, ...] = (
    #                                             F   mIOU  params MAdds half   s    half ms
    _row(7, 1, "v2+os16", "raspp", "             256 72.84 2.11   21.29 -     3.90 1020"),
    _row(7, 2, "v2+rf2+os16", "raspp", "         256 72.56 1.15   13.68 -     3.03  793"),
    _row(7, 3, "v2+rf2+os16", "lraspp", "        256 72.97 1.02   12.83 -     2.98  786"),
    _row(7, 4, "v2+rf2+os16", "lraspp", "        128 72.74 0.98   12.57 -     2.89  766"),
    _row(7, 5, "v3-large+os16", "raspp", "       256 72.64 3.60   18.43 -     3.55  906"),
    _row(7, 6, "v3-large+rf2+os16", "raspp", "   256 71.91 1.76   11.24 -     2.60  668"),
    _row(7, 7, "v3-large+rf2+os16", "lraspp", "  256 72.37 1.63   10.33 -     2.55  659"),
    _row(7, 8, "v3-large+rf2+os16", "lraspp", "  128 72.36 1.51    9.74 -     2.47  657"),
    _row(7, 9, "v2-0.5+rf2+os16", "lraspp", "    128 68.57 0.28    4.00 -     1.59  415"),
    _row(7, 10, "v2-0.35+rf2+os16", "lraspp", "  128 66.83 0.16    2.54 -     1.27  354"),
    _row(7, 11, "v3-small+rf2+os16", "lraspp", " 128 68.38 0.47    2.90 -     1.21  327"),
    _row(8, 1, "v3-large+rf2+os16", "lraspp", "  128 72.6  -       9.74 2.48  2.47  657"),
    _row(8, 2, "v3-large+rf2+os32", "lraspp", "  128 72.0  -       7.74 1.98  2.06  534"),
    _row(8, 3, "v3-small+rf2+os16", "lraspp", "  128 69.4  -       2.90 0.74  1.21  327"),
    _row(8, 4, "v3-small+rf2+os32", "lraspp", "  128 68.3  -       2.06 0.53  1.03  275"),
)
