"""The seed network of a search: trained, from a start or random weights; the importance of its channels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bneck.nets.weights import save_weights
from bneck.runs.search.jobs import Parent, TrainJob
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


def longer_seed(run: Run, seed: NetSpec) -> dict[str, TrainJob]:
    """The training of the seed network that goes on from where it was narrowed, as long as the others do."""
    parent = Parent(seed, run.folder.scratch / "seed-0.safetensors", None)
    name = "seed-longer"
    return {name: job_for(run, seed, name, 0, parent=parent, settings=run.settings.recovery)}


def teacher_of(run: Run, seed: NetSpec) -> Parent | None:
    """The longer-trained seed network; None where it began from random weights.

    There it knows no more than what it would teach (docs/results.md).
    """
    if run.settings.start is None:
        return None
    return Parent(seed, run.folder.scratch / "seed-longer.safetensors", None)


def keep_longer_seed(run: Run, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
    """Hold all networks against the seed network trained as long in all."""
    record = run.record["seed_network"]
    trained = run.ledger.find(event="trained", name="seed-0")
    assert trained is not None
    record["narrowed_from"] = float(trained["score"])
    record_outcomes(record, [outcomes["seed-longer"]])


def _importance(run: Run, seed: NetSpec, weights: Path) -> Path:
    path = run.folder.scratch / "importance.safetensors"
    if not path.is_file():
        with run.stage("importance"):
            trained: Any = run.experiment.load(seed, weights)
            data, training = run.experiment.data, run.settings.training
            data.importance(trained, training, run.progress).save(path)
    return path
