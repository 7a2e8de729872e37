"""`bneck search`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from bneck.cli.bars import bars
from bneck.cli.generated import alone, with_options
from bneck.cli.options import DataFolder, Json, TaskName, print_json, print_table
from bneck.cli.search_options import SearchOptions
from bneck.cli.tables import front_table, search_summary
from bneck.tasks.registry import DEFAULT


@with_options("search", SearchOptions)
def search(
    data: DataFolder = None,
    task: TaskName = None,
    out: Annotated[Path | None, Option(help="The run's folder; default runs/search-TIME.")] = None,
    resume: Annotated[Path | None, Option(help="An unfinished run's folder to go on with.")] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Fit a network to your images and your device: the main job.

    Python: bneck.search(...), bneck.resume(run)
    """
    from bneck.runs.search import main

    with bars() as progress:
        if resume is not None:
            alone(resume, {"data": data, "task": task, "out": out, **given})
            record = main.resume_search(resume, progress=progress)
        else:
            record = main.search(data, task=task or DEFAULT, out=out, progress=progress, **given)
    if as_json:
        print_json(record)
    elif "found" in record:
        print(search_summary(record))
    else:
        print_table(front_table(record))
