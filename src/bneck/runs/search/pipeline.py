"""A search: from images and a device to the network that meets a latency, and its report.

Stages: prepare the images, fill the device's latency table, settle the target, train the seed network,
narrow it, by importance or by NetAdapt, train the result and what it is compared with, export, measure,
report. Every stage writes what it finished; a run that was killed is resumed from its folder.
"""

from __future__ import annotations

from bneck.runs.search.run import Run
from bneck.runs.search.widths.by_importance import search_by_importance
from bneck.runs.search.widths.by_netadapt import search_by_netadapt
from bneck.specs.text import load
from bneck.specs.transforms import with_resolution


def run_search(run: Run) -> None:
    """Carry a run from wherever it stands to its report.

    Raises:
        InputError: the data, the network or the target cannot be; nothing was trained then.
    """
    if run.record["state"] == "finished":
        run.close()
        return
    with run.working():
        seed = with_resolution(load(run.seed_file), run.settings.resolution)
        run.wrapper.network(seed)  # refuses what cannot stand in it
        by = {"importance": search_by_importance, "netadapt": search_by_netadapt}
        by[run.settings.method](run, seed)
    run.finish()
