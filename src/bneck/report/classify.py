"""The report of a classifier's training: one Markdown page, from the run folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.records.files import write_text
from bneck.records.run import RunFolder
from bneck.report.numbers import chosen_on, millions, percent, several


def write_classify_report(folder: Path) -> Path:
    """Write `report.md` into a run folder: accuracy, costs, how it was trained, how to rerun.

    Raises:
        InputError: no run folder, one of another version, or a full disk.
    """
    record = RunFolder(folder).read()
    lines = [f"# Training {folder.resolve().name}, {record['state']}", ""]
    if record["state"] == "finished":
        lines += _figures(record)
    lines += [_how(record), "", "```bash", record["command"], "```"]
    path = folder / "report.md"
    write_text(path, "\n".join(lines).rstrip() + "\n")
    return path


def _figures(record: dict[str, Any]) -> list[str]:
    data, check = record["data"], record["export"]
    bad = data["bad"]
    left_out = f"; {several(len(bad), 'unreadable image')} left out" if bad else ""
    return [
        f"**Top-1 {percent(record['top1'])} %**, top-5 {percent(record['top5'])} %, loss "
        f"{record['loss']:.3f} on {record['n']} validation images of {data['name']}, "
        f"{len(data['classes'])} classes at {data['resolution']} px, {data['train']} train images"
        f"{left_out}.",
        "",
        *_best(record),
        f"{record['name']}: {millions(record['params'])}M parameters, {millions(record['madds'])}M "
        "multiply-adds. model.onnx agrees with the module on "
        f"{percent(check['label_agreement'])} % of {check['images']} images (largest difference "
        f"{check['largest_difference']:.1e} of the largest score).",
        "",
    ]


def _best(record: dict[str, Any]) -> list[str]:
    best = record.get("best")
    if best is None:
        return []
    return [
        f"`weights-best.safetensors`: top-1 {percent(best['val_top1'])} % after step {best['step']}, "
        f"{chosen_on(best['chosen_on'])}.",
        "",
    ]


def _how(record: dict[str, Any]) -> str:
    settings = record["settings"]
    training, start = settings["training"], settings["start"]
    frozen = ", rows before the pool frozen" if training["frozen"] else ""
    return (
        f"{'From scratch' if start is None else f'From the weights of {start}'}{frozen}: "
        f"{training['epochs']:g} epochs of batches of {training['batch']}, peak rate "
        f"{training['lr']:g}, schedule {training['schedule']}, warm-up of {training['warmup']:g} epochs, L2 "
        f"{training['weight_decay']:g}, label smoothing {training['smoothing']:g}, weight average "
        f"{training['average']:g}, seed {settings['seed']}; bneck {record['version']}, commit "
        f"{record['commit']}."
    )
