"""The report of a training run: what every task says, then the task's own part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.records.files import write_text
from bneck.records.run import RunFolder
from bneck.report.numbers import millions, percent
from bneck.report.page import write_search_report
from bneck.runs.load import task_of
from bneck.specs.errors import InputError
from bneck.tasks.checks import CHOSEN

_MOST_LEFT = 10


def write_report(run: str | Path) -> list[Path]:
    """Write the report of a training or a search into its folder; of a search also that of what it found.

    Raises:
        InputError: no run folder, an import, one of another version, or a full disk.
    """
    folder = RunFolder(Path(run))
    kind = folder.read()["kind"]
    if kind == "search":
        inner = [write_training_report(folder.found)] if folder.found.is_dir() else []
        return [*write_search_report(folder.path), *inner]
    if kind == "train":
        return [write_training_report(folder.path)]
    raise InputError(f"{run} is a run of kind {kind!r}; a training or a search has a report")


def write_training_report(folder: Path) -> Path:
    """Write `report.md` into a run folder: scores, costs, how it was trained, how to repeat it.

    Raises:
        InputError: no run folder, one of another version, or a full disk.
    """
    record = RunFolder(folder).read()
    task = task_of(record)
    lines = [f"# Training {folder.resolve().name}, {record['state']}", ""]
    lines += [_score(record, one) for one in record.get("scores", {}).values()]
    lines += _best(record)
    found = [f"Data: {told}.", ""] if (told := record["data"].get("found")) else []
    lines += [
        "",
        _network(record),
        "",
        *found,
        _how(record),
        "",
        *task.report(record),
        *_left(record),
    ]
    lines += ["## Again", "", "```bash", record["command"], "```"]
    path = folder / "report.md"
    write_text(path, "\n".join(lines).rstrip() + "\n")
    return path


def _score(record: dict[str, Any], one: dict[str, Any]) -> str:
    value = "-" if one["score"] is None else f"{percent(one['score'])} %"
    return f"**{record['metric']} {value}** on {one['split']}, {one['images']} images."


def _best(record: dict[str, Any]) -> list[str]:
    best = record.get("best")
    if best is None:
        return []
    value = best[f"val_{task_of(record).metric.key}"]
    said = CHOSEN.format(split=best["chosen_on"])
    return [
        "",
        f"weights-best.safetensors: {record['metric']} {percent(value)} % after step {best['step']}, {said}.",
    ]


def _network(record: dict[str, Any]) -> str:
    if "params" not in record:  # format 1 did not have them of every task
        return f"{len(record['classes'])} classes; bneck count has the costs."
    return (
        f"{record['name']}: {millions(record['params'])}M parameters, {millions(record['madds'])}M "
        f"multiply-adds, {len(record['classes'])} classes."
    )


def _how(record: dict[str, Any]) -> str:
    options, training = record["options"], record["training"]
    start = options["start"]
    frozen = ", backbone frozen" if training["frozen"] else ""
    kept = _kept(record.get("channels") or {})
    return (
        f"{'From random weights' if start is None else f'From the weights of {start}'}{kept}{frozen}: "
        f"{training['epochs']:g} epochs of batches of {training['batch']}, peak learning rate "
        f"{training['lr']:g}, schedule {training['schedule']}, warm-up of {training['warmup']:g} epochs, L2 "
        f"{training['weight_decay']:g}, EMA of weights {training['average']:g}, seed {options['seed']}; bneck "
        f"{record['version']}, commit {record['commit']}."
    )


def _kept(channels: dict[str, Any]) -> str:
    """Which channels of a wider start a network has."""
    match channels.get("keep"):
        case "fisher":
            through = " through a new head" if channels["new_head"] else ""
            solved = channels.get("reconstructed_on")
            through += f", weights recomputed on {solved}" if solved else ""
            return f", the most important channels, measured on {channels['images']} training images{through}"
        case "l2":
            return ", the channels of the largest L2 norms"
    return ""


def _left(record: dict[str, Any]) -> list[str]:
    left = record["data"]["left_out"]
    if not left:
        return []
    lines = ["## Left out", ""]
    lines += [f"- {what}: {why}" for what, why in left[:_MOST_LEFT]]
    if len(left) > _MOST_LEFT:
        lines.append(f"- and {len(left) - _MOST_LEFT} more (run.json has all)")
    return [*lines, ""]
