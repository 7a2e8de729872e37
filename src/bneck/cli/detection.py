"""What the commands do with `--task detect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bneck.cli.bars import Bars
from bneck.cli.options import Json, print_json, print_table
from bneck.cli.tables import new_table
from bneck.recipes.detectors import count_detector, detector_zoo
from bneck.records.run import RunFolder, task_run
from bneck.tasks.detect.head import COCO_IDS, ssdlite


def is_run(run: str) -> bool:
    """Whether a path is the folder of a detection run."""
    folder = RunFolder(task_run(run))
    return folder.run_json.is_file() and folder.read().get("kind") == "detect"


def count(
    networks: Sequence[str], classes: int | None, resolution: int | None, as_json: bool
) -> None:
    """Print the costs of detectors."""
    chosen = COCO_IDS if classes is None else classes
    detectors = [ssdlite(name, classes=chosen, resolution=resolution) for name in networks]
    counted = list(zip(networks, detectors, map(count_detector, detectors), strict=True))
    if as_json:
        found = [
            {"network": name, "resolution": d.resolution, "classes": d.classes, **asdict(costs)}
            for name, d, costs in counted
        ]
        print_json(found[0] if len(found) == 1 else found)
        return
    columns = ("network", "resolution", "slots", "anchors", "params", "without BN", "MAdds")
    lines = new_table("SSDLite; slots are the classes and the background", columns, left=(0,))
    for name, d, costs in counted:
        numbers = (costs.anchors, costs.params, costs.params_table6, costs.madds)
        lines.add_row(name, str(d.resolution), str(d.slots), *(f"{n:,}" for n in numbers))
    print_table(lines)


def zoo(pattern: str, as_json: bool) -> None:
    """Print Table 6 beside exact counts."""
    entries = detector_zoo(pattern)
    if as_json:
        print_json(
            [
                {
                    **asdict(entry.row),
                    "differs": entry.row.differs(entry.costs),
                    "counted": asdict(entry.costs),
                    "params_81_slots": entry.costs_81.params_table6,
                }
                for entry in entries
            ]
        )
        return
    lines = new_table(
        "SSDLite at 320 px with 91 slots, parameters in millions without batch norm's, multiply-adds in "
        "billions;\n* marks printed counts that ours miss by over 0.01",
        (
            "row", "network", "params", "printed", "81 slots", "MAdds", "elementwise", "printed", "", "mAP",
            "Pixel 1 ms", "why",
        ),
        left=(0, 1, 8, 11),
    )  # fmt: skip
    for entry in entries:
        row, costs = entry.row, entry.costs
        differs = row.differs(costs)
        lines.add_row(
            row.label, row.network, f"{costs.params_table6 / 1e6:.3f}", row.params_m,
            f"{entry.costs_81.params_table6 / 1e6:.3f}", f"{costs.madds / 1e9:.4f}",
            f"{costs.madds_elementwise / 1e9:.4f}", row.madds_b, "*" if differs else "", f"{row.map:g}",
            f"{row.latency_ms:g}", row.note if differs else "",
        )  # fmt: skip
    print_table(lines)


def convert(
    data: Annotated[Path, typer.Argument(help="The folder with Annotations/*.xml and JPEGImages.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the json files go; default DATA/annotations.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert VOC xml to the COCO json that detection is trained on. Python: bneck.convert_voc(data)"""
    from bneck.recipes.convert import convert_voc

    files, dropped = convert_voc(data, out)
    if as_json:
        print_json(
            {
                "files": {split: str(path) for split, path in files.items()},
                "dropped": [asdict(entry) for entry in dropped],
            }
        )
        return
    for split, path in files.items():
        print(f"{split}: {path}")
    for entry in dropped:
        print(f"- left out: {entry.what}, {entry.reason}")


def scores(record: dict[str, Any], as_json: bool) -> None:
    """Print what a training or an evaluation found."""
    if as_json:
        print_json(record)
        return
    for found in record.get("evaluations", {"": record}).values():
        columns = ("class", "objects", "AP", "AP50", "small", "medium", "large")
        lines = new_table(
            f"average precision in percent on {found['split']}, {found['images']} images",
            columns,
            left=(0,),
        )
        keys = ("AP", "AP50", "AP_small", "AP_medium", "AP_large")
        for name, row in [*found["classes"].items(), ("all (mAP)", found)]:
            lines.add_row(name, str(row["objects"]), *(_percent(row[key]) for key in keys))
        print_table(lines)
    if "run" in record:
        print(f"report: {Path(record['run']) / 'report.md'}")


def train(
    network: str | None, data: Path | None, resume: Path | None, as_json: bool, **settings: Any
) -> None:
    """Train a detector, or go on with one, and print what was found."""
    from bneck.recipes.detect import resume_detect, train_detect

    with Bars(Console(stderr=True)) as bars:
        if resume is not None:
            found = resume_detect(resume, progress=bars)
        else:
            assert network is not None
            assert data is not None
            found = train_detect(network, data, progress=bars, **settings)
    scores(found, as_json)


def evaluate(run: str, data: Path | None, split: str, images: Path | None, as_json: bool) -> None:
    """Judge a detector and print what was found."""
    from bneck.recipes.detect import evaluate_detect

    with Bars(Console(stderr=True)) as bars:
        found = evaluate_detect(run, data, split=split, images=images, progress=bars)
    scores(found, as_json)


def predict(
    run: str, images: Sequence[Path], score: float | None, out: Path | None, as_json: bool
) -> None:
    """Print the objects in pictures, and draw them."""
    from bneck.recipes.detect_pictures import detect

    found = detect(run, images, score=score, out=out)
    if as_json:
        print_json(found)
        return
    for one in found:
        names = [entry["label"] for entry in one["objects"]]
        text = (
            ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing"
        )
        print(f"{one['image']}: {text}" + (f" -> {one['picture']}" if one["picture"] else ""))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def export(
    run: str,
    format: str,
    precision: str,
    out: Path | None,
    data: Path | None,
    decode: bool,
    as_json: bool,
) -> None:
    """Write a run's detector as a file."""
    from bneck.recipes.detect_export import export_detect

    with Bars(Console(stderr=True)) as bars:
        found = export_detect(
            run, format, precision=precision, decode=decode, out=out, data=data, progress=bars
        )
    if as_json:
        print_json(found)
        return
    how = (
        f"{found['alike']:.1%} of the boxes alike"
        if "alike" in found
        else f"boxes and scores differ by {found['largest_difference']:.1e}"
    )
    print(
        f"{found['file']}: {found['network']}, {found['precision']}, {found['size_mb']:.2f} MB for "
        f"{found['runtime']} {found['runtime_version']}; on {found['images']} images {found['boxes']} boxes, "
        f"{how}"
    )
