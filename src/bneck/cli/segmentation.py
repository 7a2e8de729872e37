"""What the commands do with `--task segment` and with a segmentation run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bneck.cli.bars import Bars
from bneck.cli.options import print_json, print_table
from bneck.cli.tables import new_table
from bneck.recipes.segmenters import named_segmenter, parse_size, run_segmenter, segmenter_zoo
from bneck.records.run import RunFolder, task_run
from bneck.specs.errors import InputError
from bneck.tasks.segment.count import FULL, HALF, count_segmenter, paper_madds
from bneck.tasks.segment.head import Segmenter

CLASSES = 19  # of Cityscapes


def is_run(run: str) -> bool:
    """Whether a path is the folder of a segmentation run."""
    return RunFolder(task_run(run)).kind() == "segment"


def count(
    networks: Sequence[str],
    classes: int | None,
    size: str | None,
    head: Any,
    filters: int,
    output_stride: int | None,
    as_json: bool,
) -> None:
    """Print the costs of segmenters."""
    pixels = FULL if size is None else parse_size(size)
    chosen = CLASSES if classes is None else classes
    segmenters = named(networks, head, filters, output_stride, classes=chosen)
    counted = [(seg, count_segmenter(seg, pixels), paper_madds(seg, pixels)) for seg in segmenters]
    if as_json:
        found = [
            {
                "network": seg.network.name, "size": list(pixels), "output_stride": seg.output_stride,
                **seg.settings(), "params": costs.params, "madds": costs.madds,
                "madds_table7": paper, "activation_bytes": costs.activation_bytes,
            }
            for seg, costs, paper in counted
        ]  # fmt: skip
        print_json(found[0] if len(found) == 1 else found)
        return
    lines = new_table(
        f"{chosen} classes, {pixels[0]} x {pixels[1]} pixels; Table 7 counts MAdds at one pixel more a "
        "side, with elementwise terms",
        ("segmenter", "output stride", "params", "MAdds", "as Table 7", "peak activations kB"),
        left=(0,),
    )
    for seg, costs, paper in counted:
        lines.add_row(
            seg.name, str(seg.output_stride), f"{costs.params:,}", f"{costs.madds:,}", f"{paper:,}",
            f"{costs.activation_bytes / 1024:,.0f}",
        )  # fmt: skip
    print_table(lines)


def named(
    networks: Sequence[str],
    head: Any,
    filters: int,
    output_stride: int | None,
    *,
    classes: int = CLASSES,
) -> list[Segmenter]:
    """Segmenters round networks by name; the folder of a segmentation run is that run's own."""
    return [
        run_segmenter(name)
        if is_run(name)
        else named_segmenter(
            name, classes=classes, head=head, filters=filters, output_stride=output_stride
        )
        for name in networks
    ]


def measure(
    segmenters: Sequence[Segmenter],
    size: str | None,
    threads: int,
    rounds: int,
    runtimes: list[str],
    precisions: list[str],
    as_json: bool,
) -> None:
    """Measure segmenters and print their latencies."""
    from bneck.recipes.segment_measure import PROTOCOL, measure_segmenters

    pixels = HALF if size is None else parse_size(size)
    if threads < 1 or rounds < 3:
        raise InputError(f"threads is {threads} and rounds {rounds}; they must be at least 1 and 3")
    protocol = replace(PROTOCOL, threads=threads, rounds=rounds)
    with Bars(Console(stderr=True)) as bars:

        def on_round(done: int, of: int) -> None:
            if done == 1:  # what cannot be measured is refused before
                bars.stage("rounds", of)
            bars.advance(1)

        found = measure_segmenters(
            segmenters,
            pixels,
            runtime_name=runtimes,
            precision=precisions,
            protocol=protocol,
            on_round=on_round,
        )
    if as_json:
        print_json(found)
        return
    lines = new_table(
        f"{pixels[0]} x {pixels[1]} pixels, {found[0]['processor']}, {threads} "
        f"thread{'s' if threads > 1 else ''}, batch 1",
        (
            "segmenter", "runtime", "precision", "median ms", "p10", "p90", "cpu ms", "n", "repeated",
            "ratio of cpu ms", "p10", "p90",
        ),
        left=(0, 1, 2),
    )  # fmt: skip
    for one in found:
        wall, ratio = one["wall_ms"], one["rounds_ratio"]
        lines.add_row(
            one["segmenter"], f"{one['runtime']} {one['runtime_version']}", one["precision"],
            *(f"{wall[key]:.1f}" for key in ("median", "p10", "p90")),
            f"{one['cpu_ms']:.1f}", str(one["n"]), str(one["repeated"]), f"{one['ratio']:.3f}",
            *(f"{ratio[key]:.3f}" for key in ("p10", "p90")),
        )  # fmt: skip
    print_table(lines)


def zoo(pattern: str, as_json: bool) -> None:
    """Print Tables 7 and 8 beside exact counts."""
    entries = segmenter_zoo(pattern)
    if as_json:
        print_json(
            [
                {
                    **asdict(entry.row), "params": entry.costs.params, "madds": entry.costs.madds,
                    "madds_as_printed": entry.madds, "half_madds_as_printed": entry.half_madds,
                }
                for entry in entries
            ]
        )  # fmt: skip
        return
    lines = new_table(
        "Cityscapes, 19 classes, 1024 x 2048 and half of it; parameters in millions, multiply-adds in "
        "billions as the tables count them",
        (
            "table", "row", "network", "head", "params", "printed", "MAdds", "printed", "half", "printed",
            "mIOU %", "Pixel 3 s",
        ),
        left=(2, 3),
    )  # fmt: skip
    for entry in entries:
        row = entry.row
        lines.add_row(
            str(row.table), str(row.row), row.network, f"{row.head}{row.filters}",
            f"{entry.costs.params / 1e6:.3f}", _printed(row.params_m), f"{entry.madds / 1e9:.2f}",
            _printed(row.madds_b), f"{entry.half_madds / 1e9:.2f}", _printed(row.half_madds_b),
            f"{row.miou:g}", f"{row.latency_s:.2f}",
        )  # fmt: skip
    print_table(lines)


def train(
    network: str | None,
    data: Path | None,
    resume: Path | None,
    as_json: bool,
    *,
    size: str | None,
    crop: str | None,
    **settings: Any,
) -> None:
    """Train a segmenter, or go on with one, and print what was found."""
    from bneck.recipes.segment import resume_segment, train_segment

    with Bars(Console(stderr=True)) as bars:
        if resume is not None:
            record = resume_segment(resume, progress=bars)
        else:
            assert network is not None
            assert data is not None
            settings["size"] = None if size is None else parse_size(size)
            settings["crop"] = None if crop is None else parse_size(crop)
            record = train_segment(network, data, progress=bars, **settings)
    scores(record, as_json)


def scores(record: dict[str, Any], as_json: bool) -> None:
    """Print what a training or an evaluation found."""
    if as_json:
        print_json(record)
        return
    found = record.get("scores", [record])
    names = list(found[0]["iou"])
    lines = new_table("IOU in percent", ("class", *(s["split"] for s in found)), left=(0,))
    for name in names:
        lines.add_row(name, *(_percent(s["iou"][name]) for s in found))
    lines.add_section()
    lines.add_row("mean (mIOU)", *(_percent(s["miou"]) for s in found))
    lines.add_row("right pixels", *(_percent(s["pixels"]) for s in found))
    lines.add_row("images", *(str(s["images"]) for s in found))
    print_table(lines)
    if "run" in record:
        print(f"report: {Path(record['run']) / 'report.md'}")


def evaluate(
    run: str,
    data: Path | None,
    split: str,
    classes: Path | None,
    ignore: list[int] | None,
    sliding: str | None,
    as_json: bool,
) -> None:
    """Print the score of a run on a split."""
    from bneck.recipes.segment import evaluate_segment

    window = None if sliding is None else parse_size(sliding)
    with Bars(Console(stderr=True)) as bars:
        record = evaluate_segment(
            run, data, split=split, classes=classes, ignore=ignore, sliding=window, progress=bars
        )
    scores(record, as_json)


def predict(
    run: str, images: Sequence[Path], out: Path | None, mask: Path | None, as_json: bool
) -> None:
    """Paint the classes over pictures, and print the share of the pixels that each has."""
    from bneck.recipes.segment_pictures import paint

    found = paint(run, images, out=out, mask=mask)
    if as_json:
        print_json(found)
        return
    for one in found:
        shares = sorted(one["shares"].items(), key=lambda item: -item[1])
        text = ", ".join(f"{name} {share:.1%}" for name, share in shares if share)
        files = "".join(f" -> {one[key]}" for key in ("overlay", "mask") if one[key])
        print(f"{one['image']}: {text}{files}")


def _printed(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def export(
    run: str,
    format: str,
    precision: str,
    out: Path | None,
    data: Path | None,
    size: str | None,
    argmax: bool,
    as_json: bool,
) -> None:
    """Write a run's segmenter as a file."""
    from bneck.recipes.segment_export import export_segment

    pixels = None if size is None else parse_size(size)
    with Bars(Console(stderr=True)) as bars:
        found = export_segment(
            run, out, format=format, precision=precision, size=pixels, argmax=argmax, data=data,
            progress=bars,
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    height, width = found["size"]
    print(
        f"{found['file']}: {found['network']}, {found['precision']}, images of {height}x{width}, "
        f"{found['size_mb']:.2f} MB for {found['runtime']} {found['runtime_version']}; on {found['images']} "
        f"images {found['equal_pixels']:.2%} of the pixels equal, scores differ by "
        f"{found['largest_difference']:.1e} of the largest"
    )
