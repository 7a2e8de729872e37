"""The end of a choice: the best go into searches or full trainings, and the best of these ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bneck.devices.runtimes import runtime
from bneck.records.ledger import Ledger
from bneck.records.progress import Without
from bneck.records.run import RunFolder
from bneck.runs.choose.contest import PARTS, Contest, Entrant
from bneck.runs.export import export, format_of
from bneck.runs.load import trained
from bneck.runs.quantize import recovered
from bneck.runs.search.main import RECOVERY, resume_search, search
from bneck.runs.search.workers import kept_workers
from bneck.runs.train import resume_training, train
from bneck.specs.errors import InputError

CLEARLY = 1.05  # a search measures anew, and refuses a start that it finds within the target
# Networks that searches narrow at most, that are trained where there is no search, and of all where there is.
SEARCHED, TRAINED, ALL = 2, 2, 3
OF_SEARCH = ("seed", "resolution", "epochs", "repeats", "workers")  # settings of the choice


def ship(contest: Contest, ranked: Sequence[Entrant]) -> Path:
    """The folder of what ships.

    The best networks above the target are narrowed to it, each by a search; the best of those within it
    are compared in the first of these as they are. Where no network can be narrowed they are trained.

    Raises:
        InputError: no network can be narrowed to the target, and none is within it.
    """
    above, within = _finalists(ranked, contest.limit_ms)
    contest.record["chosen"] = [one.as_json() for one in (*above, *within)]
    contest.save()
    contest.progress.say(f"chosen: {', '.join(one.title for one in (*above, *within))}")
    contest.progress.course(3, PARTS, None)
    also, refused = within, ""
    with kept_workers():
        for number, one in enumerate(above):
            why = _narrow(contest, one, f"search-{number}", also)
            if why is None:
                also = []  # once is enough
            else:
                contest.progress.say(f"left out: {one.title}: {why}")
                refused = refused or why
    for number, one in enumerate(also):
        if one.measured_ms <= contest.limit_ms:
            _train(contest, one, f"trained-{number}")
    finals = contest.record.get("finals", [])
    if not finals:
        raise InputError(refused)
    best = max(finals, key=lambda one: (one["meets_target"], one["final_score"]))
    shipped: Path = contest.folder.path / best["run"]
    contest.record.update({
        "score": best["final_score"], "measured_latency_ms": best["latency_ms"],
        "found": {"name": best["found"]},
    })  # fmt: skip
    if shipped.name.startswith("trained") and not contest.on.is_plain:
        contest.record["export"] = _exported(contest, shipped)
    return shipped


def _finalists(ranked: Sequence[Entrant], limit_ms: float) -> tuple[list[Entrant], list[Entrant]]:
    """The best networks to narrow, and the best to train as they are."""
    above = [one for one in ranked if one.measured_ms > CLEARLY * limit_ms][:SEARCHED]
    if above:  # a search measures what is nearly as fast as the target again
        near = [one for one in ranked if one.measured_ms <= CLEARLY * limit_ms]
        return above, near[: ALL - len(above)]
    fits = [one for one in ranked if one.measured_ms <= limit_ms]
    return ([], fits[:TRAINED]) if fits else (list(ranked[:SEARCHED]), [])


def _narrow(contest: Contest, one: Entrant, name: str, also: Sequence[Entrant]) -> str | None:
    """Narrow a network to the target, or take a search up again; why the search refuses the target, or None.

    Raises:
        InputError: anything else that a search refuses, such as images that are gone.
    """
    record, settings, folder = (
        contest.record,
        contest.settings,
        RunFolder(contest.folder.path / name),
    )
    if any(known["run"] == name for known in record.get("finals", [])):
        return None
    if name in record.get("refused", {}):
        return str(record["refused"][name])
    told, begun = Without(contest.progress, contest.told), folder.run_json.is_file()
    if not begun:
        _ = contest.dataset  # images that are gone are no fault of the network
    try:
        if begun:
            found = resume_search(folder.path, progress=told)
        else:
            found = search(
                contest.place, record["target"], task=contest.task.name, device=contest.on.device,
                runtime=contest.on.runtime, precision=contest.on.precision, threads=contest.on.threads,
                start=one.weights, also=[other.weights for other in also], out=folder.path,
                progress=told, **{key: settings[key] for key in OF_SEARCH},
            )  # fmt: skip
    except InputError as error:
        if Ledger(folder.ledger).find(event="target checked"):
            raise
        record["refused"] = {**record.get("refused", {}), name: str(error)}
        contest.save()
        return str(error)
    score = found.get("shipped", {}).get("score")
    _enter(
        contest, one, name, final_score=found["score"] if score is None else score,
        latency_ms=found["measured_latency_ms"], meets_target=found["meets_target"],
        found=found["found"]["name"],
    )  # fmt: skip
    return None


def _train(contest: Contest, one: Entrant, name: str) -> None:
    """Train a network as it is for as long as a search would in all, or take the training up again."""
    path, settings = contest.folder.path / name, contest.settings
    if any(known["run"] == name for known in contest.record.get("finals", [])):
        return
    told = Without(contest.progress, contest.told)
    if RunFolder(path).run_json.is_file():
        made = resume_training(path, progress=told)
    else:
        usual = contest.task.recipe(
            None, images=contest.dataset.splits["train"], epochs=settings["epochs"], started=True,
            seed=settings["seed"],
        )  # fmt: skip
        made = train(
            None, contest.place, task=contest.task.name, start=one.weights,
            epochs=(1 + RECOVERY) * usual.epochs, seed=settings["seed"],
            resolution=settings["resolution"], out=path, progress=told,
        )  # fmt: skip
    _enter(
        contest, one, name, final_score=float(made["scores"]["val"]["score"]),
        latency_ms=one.measured_ms, meets_target=True, found=one.network,
    )  # fmt: skip


def _enter(contest: Contest, one: Entrant, name: str, **what: Any) -> None:
    """Keep what a search or a training in the folder `name` came to."""
    finals = contest.record.setdefault("finals", [])
    finals.append({**one.as_json(), "run": name, **what})
    contest.save()


def _exported(contest: Contest, path: Path) -> dict[str, Any]:
    """The file of a training for the device; int8 as a search ships it, the better of PTQ and QAT."""
    on = contest.on
    if on.precision != "int8":
        return export(
            path, format_of(on.runtime), precision=on.precision, progress=contest.progress
        )
    return recovered(
        trained(path), contest.data(), runtime(on.runtime), seed=contest.settings["seed"],
        progress=contest.progress,
    )  # fmt: skip
