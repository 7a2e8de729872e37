"""What a run ends with: the verdict, where the files are, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from bneck.cli.options import print_line
from bneck.records.run import RunFolder
from bneck.tasks.contract import Task
from bneck.tasks.options import flag_of, of_command
from bneck.tasks.registry import DEFAULT, task

IMAGE = "IMAGE.jpg"  # for the reader to replace
FOLDER = "FOLDER"


def print_ending(verdict: str, files: Iterable[str | Path], then: str) -> None:
    """Print the three lines. Paths and the command are not broken, so that they can be copied."""
    print_line(verdict)
    print(f"files: {', '.join(map(str, files))}")
    print(f"next:  {then}")


def command(*words: object) -> str:
    """A command of `bneck`, as a shell takes it."""
    return shlex.join(["bneck", *map(str, words)])


def print_search(record: Mapping[str, Any]) -> None:
    """What a finished search found: what it was compared with, further targets, and the ending."""
    folder, shipped = Path(record["run"]), record.get("shipped")
    baseline, metric = record["baseline"], record.get("metric", "top-1")
    print_line(_beside_seed(record, metric))
    uniform = record.get("uniform", {}).get("title", "uniform width")
    compared = [(uniform, baseline["score"], baseline["latency_ms"])]
    compared += [
        (one["title"], fmean(one["scores"]), one["measured_ms"])
        for one in record.get("others", {}).values()
    ]
    for title, score, ms in compared:
        title = "the network by importance" if title == "by importance" else title
        print_line(f"compared with {title}: {metric} {score:.1%} at {ms:.3f} ms")
    for one in record.get("family", []):
        print(
            f"{one['target']}: {metric} {one['score']:.1%} at {one['measured_latency_ms']:.3f} ms, "
            f"{folder / one['export']['file']}"
        )
    title = record["found"].get("title")
    ms, target = record["measured_latency_ms"], record["target_ms"]
    met = "meets" if record["meets_target"] else "MISSES"
    file = shipped["file"] if shipped else "found/model.onnx"
    written = ""
    if shipped:
        scored = "" if shipped.get("score") is None else f", {metric} {shipped['score']:.1%}"
        written = f"; the file is {shipped['precision']}{scored}"
    print_ending(
        f"{record['found']['name']}{f' ({title})' if title else ''}: {ms:.3f} ms measured, {met} the target of "
        f"{target:.3f} ms; {metric} {record['score']:.1%}{written}",
        (folder / "report.html", folder / file),
        _after_search(folder, record),
    )


def _beside_seed(record: Mapping[str, Any], metric: str) -> str:
    """The seed network's line; where much is lost from trained weights, what would narrow the gap."""
    seed = record["seed_network"]
    score = fmean(seed["scores"])
    line = f"seed network: {metric} {score:.1%} at {seed['measured_ms']:.3f} ms"
    lost, settings = 100 * (score - record["score"]), record["settings"]
    if lost >= 1 and settings["start"] is not None:
        more = 3 * settings["training"]["epochs"]
        line += f"; of the {lost:.1f} points lost, longer training may win some back (--epochs {more:g})"
    return line


def _after_search(folder: Path, record: Mapping[str, Any]) -> str:
    if not record["meets_target"]:  # by how much depends on the minute
        return command("measure", folder)
    return command("ship", folder)


def print_front(record: Mapping[str, Any]) -> None:
    """The ending of a search for a front: its networks are specs, which are trained for themselves."""
    folder, finalists = Path(record["run"]), record["blocks"]["finalists"]
    best = max(finalists, key=lambda entry: fmean(entry["heldout_score"] or [0.0]))
    spec = folder / "front" / f"trial-{best['number']:05d}.yaml"
    print_ending(
        f"{len(finalists)} networks of the front trained in full; the most accurate is trial "
        f"{best['number']} at {best['measured_ms']:.3f} ms",
        (folder / "report.html", folder / "front"),
        command("train", spec, *_options(record, "train")),
    )


def print_training(chosen: Task, record: Mapping[str, Any]) -> None:
    """The ending of a training run."""
    folder = Path(record["run"])
    score = (record["scores"].get("val") or next(iter(record["scores"].values())))["score"]
    value = "undefined" if score is None else f"{score:.1%}"
    print_ending(
        f"{record['name']}: {chosen.metric.name} {value}",
        (folder / "report.md", folder / "model.onnx"),
        command("search", "--from", folder, *_options(record, "search"), "--target", "50%"),
    )


def _options(record: Mapping[str, Any], then: str) -> list[str]:
    """The task of a run, its images and those of its options that `then` takes; nothing for what is usual."""
    name, place = record["task"], (record.get("data") or {}).get("path")
    words = [] if name == DEFAULT else ["--task", name]
    words += [] if place is None else ["--data", place]
    given = record.get("options", {}).get("task") or record.get("settings", {}).get("options") or {}
    for one in of_command(task(name).Options, then):
        value = given.get(one.name)
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None and each != one.default:
                words += [flag_of(one), *([] if each is True else [str(each)])]
    return words


def print_choice(found: Mapping[str, Any]) -> None:
    """The ending of a choice for some images: that of the search or of the training that ships."""
    folder = Path(found["shipped"])
    record = RunFolder(folder).read()
    if record["kind"] == "search":
        print_search({"run": str(folder), **record})
        return
    made = found.get("export", {})
    scored = f", {found['metric']} {made['score']:.1%}" if "score" in made else ""
    written = f"; the file is {made['precision']}{scored}" if made else ""
    print_ending(
        f"{found['found']['name']}: {found['measured_latency_ms']:.3f} ms, within the target of "
        f"{found['target_ms']:.3f} ms without a search; {found['metric']} {found['score']:.1%}{written}",
        (folder / "report.md", made.get("file", folder / "model.onnx")),
        command("predict", made["file"], IMAGE) if made else command("ship", folder),
    )


def print_device(found: Mapping[str, Any], plot: Path | None) -> None:
    """The ending of a table of published networks: the best one within the target, or how to choose."""
    rows, limit_ms = found["networks"], found["target_ms"]
    within = rows if limit_ms is None else [row for row in rows if row["within"]]
    best = max((r for r in within if r["top1"]), key=lambda row: float(row["top1"]), default=None)
    if not within:
        fastest = rows[0]
        verdict = (
            f"nothing runs within {limit_ms:g} ms; the fastest, {fastest['network']} at "
            f"{fastest['resolution']} px, takes {fastest['latency_ms']:.3f} ms"
        )
    elif best is None:
        verdict = f"{len(within)} of {len(rows)} networks are within {limit_ms} ms; none has a published score"
    else:
        limit = "" if limit_ms is None else f" within {limit_ms:g} ms"
        verdict = (
            f"the best published network{limit} is {best['network']} at {best['resolution']} px: "
            f"{best['top1']:.1f} % in {best['latency_ms']:.3f} ms"
        )
    ms = limit_ms if limit_ms is not None else rows[len(rows) // 2]["latency_ms"]
    fetches = best["command"] if best and limit_ms is not None else None
    print_ending(
        verdict, (plot or "none; --plot FILE.svg draws the front",),
        fetches or command("choose", "--data", FOLDER, "--target", f"{ms:.3g}ms"),
    )  # fmt: skip


def print_quantized(found: Mapping[str, Any], folder: Path) -> None:
    """The ending of a comparison of float and int8: which int8 file is the best."""
    rows = {row["name"]: row for row in found["rows"]}
    plain = rows["fp32"]
    best = max((row for row in found["rows"] if row.get("file") and row is not plain),
               key=lambda row: row["score"] or 0.0)  # fmt: skip
    metric = found["metrics"]["score"]
    scores = [f"{row['score']:.1%}" if row["score"] is not None else "-" for row in (best, plain)]
    faster = (
        "not timed"
        if "ratio" not in best
        else f"{best['ratio']['median']:.2f} of the float latency"
    )
    print_ending(
        f"{best['name']} is the best int8 file: {metric} {scores[0]} (float {scores[1]}), {faster}, "
        f"{best['size_mb']:.2f} MB (float {plain['size_mb']:.2f})",
        (folder / "quantize.json", best["file"]),
        command("predict", best["file"], IMAGE),
    )


def print_shipped(found: Mapping[str, Any]) -> None:
    """The ending of `bneck ship`: the file that is kept; nothing where none is good enough, as a note says."""
    if found["file"] is None:
        return
    row, metric = found["rows"][found["picked"]], found["metric"]
    form = f"{row['precision']}{' QAT' if row['epochs'] else ''}"
    lost = "" if row["loss"] is None else f", {row['loss']:+.1f} points lost to float"
    timed = "" if row["latency_ms"] is None else f"; {row['latency_ms']['median']:.3f} ms"
    print_ending(
        f"{form} in {row['runtime']} ships: {metric} {row['score']:.1%}{lost}{timed}, {row['size_mb']:.2f} MB",
        (found["file"], found["card"]),
        command("predict", found["file"], IMAGE),
    )
