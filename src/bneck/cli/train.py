"""`bneck train`, and what is printed of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from bneck.cli.bars import bars
from bneck.cli.ending import print_training
from bneck.cli.generated import alone, with_options
from bneck.cli.options import DataFolder, Json, TaskName, print_json, print_line, print_plain
from bneck.specs.errors import InputError
from bneck.tasks.checks import CHOSEN
from bneck.tasks.contract import Task
from bneck.tasks.registry import DEFAULT, task


@with_options("train")
def train(
    network: Annotated[
        str | None,
        Argument(
            help="A network (v3-large+rf2), a spec file or a run's folder; default that of --from."
        ),
    ] = None,
    task: TaskName = None,
    data: DataFolder = None,
    out: Annotated[Path | None, Option(help="The run's folder; default runs/train-TIME.")] = None,
    resume: Annotated[Path | None, Option(help="An interrupted run's folder.")] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Train a network for a task on your images, and score it.

    Python: bneck.train(network, data, task=...), bneck.resume(run)
    """
    from bneck.runs.train import resume_training
    from bneck.runs.train import train as train_network

    with bars() as progress:
        if resume is not None:
            alone(resume, {"network": network, "task": task, "data": data, "out": out, **given})
            record = resume_training(resume, progress=progress)
        else:
            if network is None and given.get("start") is None:
                raise InputError(_example(task or DEFAULT))
            record = train_network(
                network, data, task=task or DEFAULT, out=out, progress=progress, **given
            )
    if not record:
        return  # a process of a group that is not its first
    if as_json:
        print_json(record)
        return
    print_trained(record)


def _example(name: str) -> str:
    chosen = task(name)
    data = "" if chosen.builtin else " --data FOLDER"
    option = "" if name == DEFAULT else f" --task {name}"
    return f"a network is needed, as in: bneck train {chosen.default_network}{option}{data}"


def print_trained(record: Mapping[str, Any]) -> None:
    """What a training reached, how fast it was, and where its files are."""
    chosen = task(record["task"])
    print_scores(chosen, list(record["scores"].values()))
    speed = record.get("speed")
    if speed:
        print_line(
            f"trained in {speed['train_seconds']:.0f} s, {speed['images_per_s']:.0f} images/s, "
            f"{speed['waiting']:.0%} of the time waiting for images"
        )
    if (best := record.get("best")) is not None:
        value = best[f"val_{chosen.metric.key}"]
        said = CHOSEN.format(split=best["chosen_on"])
        print_line(f"weights-best: after step {best['step']} with {value:.1%} ({said})")
    print_training(chosen, record)


def print_scores(chosen: Task, scores: Sequence[Mapping[str, Any]]) -> None:
    """A line for each split, and the task's table."""
    for one in scores:
        value = "-" if one["score"] is None else f"{one['score']:.1%}"
        print_line(f"{chosen.metric.name} {value} on {one['split']}, {one['images']} images")
    table = chosen.score_table(scores) if scores else None
    if table is not None:
        print_plain(table)
    for one in scores:
        for note in one.get("notes", ()):
            print_line(f"- {note}")
        if (best := one.get("threshold")) is not None:
            print_line(
                f"- a score of {best['score']:.2f} balances precision and recall best: "
                + CHOSEN.format(split=one["split"])
            )
