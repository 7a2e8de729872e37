"""The seed network of a search: trained, from a start or random weights; the importance of its channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bneck.nets.weights import save_weights
from bneck.runs.search.jobs import Parent
from bneck.runs.search.run import Run
from bneck.runs.search.trials import job_for, record_outcomes, train_all
from bneck.runs.start import find_start, started
from bneck.specs.network import NetSpec


def begun(run: Run, spec: NetSpec, start: str, name: str) -> Parent:
    """A network with the weights of a start: a copy, for the start may be gone when a run is resumed."""
    path = run.folder.scratch / f"{name}.safetensors"
    if not path.is_file():
        folder = find_start(start, spec, run.progress).folder
        made = started(
            run.task, spec, run.wrapper, folder, run.experiment.data,
            settings=run.settings.training, progress=run.progress,
        )  # fmt: skip
        if made.channels:
            run.record["inherited"] = {**run.record.get("inherited", {}), name: made.channels}
            run.save()
        save_weights(made.net.state_dict(), path)
    return Parent(spec, path, None)


def trained_seed(run: Run, seed: NetSpec, *, heldout: bool = False) -> Parent:
    """The seed network, trained on all train images, with the importance of its channels, measured once.

    With `heldout` it is also trained without the held-out images, for NetAdapt.
    """
    settings, weights = run.settings, run.folder.scratch / "seed-0.safetensors"
    if run.ledger.find(event="training begun") is None:
        run.ledger.append({"event": "training begun"})
    with run.stage("train seed"):
        parent = None
        if settings.start is not None:
            parent = begun(run, seed, settings.start, "start")
        elif run.data is not None:
            run.progress.say(
                "the seed network is trained from random weights; published ones (bneck search --from NAME, "
                "bneck import --list) need fewer images and epochs, and give a more accurate network"
            )
        jobs = {"seed-0": job_for(run, seed, "seed-0", 0, parent=parent)}
        if heldout:
            jobs["seed-heldout"] = job_for(
                run, seed, "seed-heldout", 0, parent=parent, heldout=True
            )
        outcomes = train_all(run, jobs)
        record_outcomes(run.record["seed_network"], [outcomes["seed-0"]])
        if heldout:
            run.record["seed_network"]["heldout_score"] = outcomes["seed-heldout"]["score"]
        run.save()
    return Parent(seed, weights, _importance(run, seed, weights))


def _importance(run: Run, seed: NetSpec, weights: Path) -> Path:
    path = run.folder.scratch / "importance.safetensors"
    if not path.is_file():
        with run.stage("importance"):
            trained: Any = run.experiment.load(seed, weights)
            data, training = run.experiment.data, run.settings.training
            data.importance(trained, training, run.progress).save(path)
    return path
