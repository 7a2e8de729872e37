"""Segmenters by name: counts, and Tables 7 and 8 beside them. Nothing here needs torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from bneck.costs.count import Count
from bneck.records.run import RunFolder, task_run
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, resolve
from bneck.tasks.segment.count import (
    FULL,
    HALF,
    PUBLISHED_SEGMENTERS,
    PublishedSegmenter,
    count_segmenter,
    paper_madds,
)
from bneck.tasks.segment.head import Head, Segmenter, from_settings, segmenter

KIND = "segment"  # of a run
STRIDE = 16  # the paper's output stride

Size = tuple[int, int]


def named_segmenter(
    network: str | Path | NetSpec,
    *,
    classes: int = 19,
    head: Head = "lraspp",
    filters: int = 128,
    output_stride: int | None = None,
    global_pool: bool = False,
) -> Segmenter:
    """The segmenter round a network by name, a spec file or a run's folder.

    Without `output_stride` it is the paper's 16, unless the network's own is smaller or its name has
    one (`v3-large+rf2+os32`).

    Raises:
        InputError: no such network, or numbers that cannot be.
    """
    spec = resolve(network)
    if output_stride is None and not re.search(r"\+os\d", spec.name):
        own = segmenter(spec).output_stride
        output_stride = STRIDE if own > STRIDE else None
    return segmenter(
        spec, classes=classes, head=head, filters=filters, stride=output_stride,
        global_pool=global_pool,
    )  # fmt: skip


def run_segmenter(run: str | Path) -> Segmenter:
    """The segmenter of a segmentation run's folder, without its weights.

    Raises:
        InputError: no run of segmentation.
    """
    folder = RunFolder(task_run(run))
    record = folder.read()
    if record.get("kind") != KIND:
        raise InputError(
            f"{folder.path} is a run of another kind ({record.get('kind')}), not of segmentation"
        )
    return from_settings(load(folder.spec), record["segmenter"])


@dataclass(frozen=True, slots=True)
class SegmenterEntry:
    """A row of Tables 7 or 8 with exact counts at 1024 x 2048, and those that the tables print."""

    row: PublishedSegmenter
    costs: Count
    madds: int
    half_madds: int


def segmenter_zoo(pattern: str = "*") -> list[SegmenterEntry]:
    """The rows of Tables 7 and 8 in their order.

    Args:
        pattern: shell-style, as "v3-small*"; a name without wildcards stands for what begins with it.

    Raises:
        InputError: no row is about such a network.
    """
    wanted = pattern if any(c in pattern for c in "*?[") else f"{pattern}*"
    found = []
    for row in PUBLISHED_SEGMENTERS:
        if fnmatchcase(row.network, wanted):
            seg = segmenter(resolve(row.network), head=row.head, filters=row.filters)
            costs = count_segmenter(seg, FULL)
            found.append(SegmenterEntry(row, costs, paper_madds(seg), paper_madds(seg, HALF)))
    if not found:
        known = ", ".join(dict.fromkeys(row.network for row in PUBLISHED_SEGMENTERS))
        raise InputError(f"Tables 7 and 8 have no network {pattern!r}; they have {known}")
    return found


def parse_size(text: str) -> Size:
    """(height, width) of "512x1024" or "512".

    Raises:
        InputError: it is neither.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})(?:[xX]([1-9]\d{0,5}))?", text.strip())
    if match is None:
        raise InputError(f"{text!r} is no size; write HEIGHTxWIDTH in pixels, as in 512x1024")
    return int(match[1]), int(match[2] or match[1])
