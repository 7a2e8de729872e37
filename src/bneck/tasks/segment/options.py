"""What can be told to segmentation, and the segmenter that follows from it. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bneck.records.run import RunFolder, task_run
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, resolve
from bneck.tasks.options import option
from bneck.tasks.segment.head import Aspp, Segmenter, segmenter

CITYSCAPES = 19  # classes
STRIDE = 16  # the paper's output stride
HALF = (512, 1024)
TRAINS = ("train", "search")
BUILDS = (*TRAINS, "count", "measure")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """What can be told to segmentation."""

    head: str = option("lraspp", "Head: lraspp or raspp (segmentation).", *BUILDS)
    filters: int = option(128, "Filters F of the head (Table 7).", *BUILDS)
    output_stride: int | None = option(
        None, "Output stride 8, 16 or 32; default 16, or the name's (+os32).", *BUILDS
    )
    global_pool: bool = option(False, "Pool the whole map instead of 49 x 49 windows.", *TRAINS)
    classes: str | None = option(
        None,
        "Class list, one per line: 'name' or 'name R G B'; default DATA/classes.txt.",
        *TRAINS, "evaluate", "count", "measure",
        helps=dict.fromkeys(("count", "measure"), f"Number of classes; default Cityscapes' {CITYSCAPES}."),
    )  # fmt: skip
    ignore: tuple[int, ...] = option(
        (), "A mask id that means no class, next to 255.", *TRAINS, "evaluate"
    )
    size: Any = option(
        None,
        "HEIGHTxWIDTH of the images in pixels; default their own (count: 1024x2048, measure: 512x1024).",
        *BUILDS, "export", measure=HALF,
    )  # fmt: skip
    crop: Any = option(None, "HEIGHTxWIDTH trained on; default the image, at most 769.", *TRAINS)
    balance: bool = option(
        False, "Use class weights: rare classes count more in the loss.", *TRAINS
    )
    sliding: Any = option(
        None, "HEIGHTxWIDTH of sliding windows; default whole images.", "evaluate"
    )
    argmax: bool = option(False, "File outputs classes, not scores (segmentation).", "export")
    mask: str | None = option(
        None, "PNG of class ids to write, or a folder for several (segmentation).", "predict"
    )


def named_segmenter(
    network: str | Path | NetSpec, options: SegmentOptions, *, classes: int = CITYSCAPES
) -> Segmenter:
    """The segmenter around a network by name, a spec file or a run's folder."""
    spec, stride = resolve(network), options.output_stride
    if stride is None and not re.search(r"\+os\d", spec.name):
        stride = STRIDE if segmenter(spec).output_stride > STRIDE else None
    head: Any = options.head
    return segmenter(
        spec, classes=classes, head=head, filters=options.filters, stride=stride,
        global_pool=options.global_pool,
    )  # fmt: skip


def restored(stored: Mapping[str, Any], classes: int) -> Aspp:
    """The head as a record has it."""
    return Aspp(
        shape=(stored["shape"][0], stored["shape"][1]), classes=classes, head=stored["head"],
        filters=stored["filters"], stride=stored["output_stride"], global_pool=stored["global_pool"],
    )  # fmt: skip


def run_segmenter(path: str | Path) -> Segmenter | None:
    """The segmenter of a run's folder as it was trained; None where there is no such run."""
    folder = RunFolder(task_run(path))
    record = folder.read() if folder.run_json.is_file() else {}
    if record.get("task") != "segment":
        return None
    return restored(record["wrapper"], len(record["classes"])).around(load(folder.spec))


def count_of(options: SegmentOptions) -> int:
    """Classes where no dataset says how many; InputError where --classes is not a number of at least 1."""
    given = str(CITYSCAPES) if options.classes is None else options.classes
    if not given.isdigit() or int(given) < 1:
        raise InputError(f"--classes is {given!r}; without images it is a number of classes")
    return int(given)
