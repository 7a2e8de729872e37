"""What `bneck train` does with `--task classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from bneck.cli.bars import Bars
from bneck.cli.options import print_json
from bneck.records.run import RunFolder
from bneck.report.numbers import chosen_on


def is_run(run: str) -> bool:
    """Whether a path is the folder of a trained classifier."""
    folder = RunFolder(Path(run))
    return folder.run_json.is_file() and folder.read().get("kind") == "classify"


def train(
    network: str | None, data: str | None, resume: Path | None, as_json: bool, **settings: Any
) -> None:
    """Train a classifier, or go on with one, and print how well it answers."""
    from bneck.recipes.classify import resume_classify, train_classify

    with Bars(Console(stderr=True)) as bars:
        if resume is not None:
            record = resume_classify(resume, progress=bars)
        else:
            assert network is not None
            record = train_classify(network, data, progress=bars, **settings)
    if not record:
        return  # a process of a team that is not its first
    if as_json:
        print_json(record)
        return
    speed = record.get("speed", {"train_seconds": 0.0, "images_per_s": 0.0, "waiting": 0.0})
    print(
        f"{record['name']}: top-1 {record['top1']:.1%}, top-5 {record['top5']:.1%} of {record['n']} images\n"
        f"trained in {speed['train_seconds']:.0f} s, {speed['images_per_s']:.0f} images/s, "
        f"{speed['waiting']:.0%} of the time waiting for images; {_best(record)}\n"
        f"report: {Path(record['run']) / 'report.md'}\nmodel:  {Path(record['run']) / 'model.onnx'}"
    )


def _best(record: dict[str, Any]) -> str:
    best = record.get("best")
    if best is None:
        return "no epoch was judged"
    return f"best after step {best['step']} with {best['val_top1']:.1%} ({chosen_on(best['chosen_on'])})"
