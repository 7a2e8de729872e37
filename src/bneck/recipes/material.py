"""What a classifier is trained on: images decoded once into a pack, or streamed from where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bneck.data.batches import Images
from bneck.data.find import find_images
from bneck.data.pack import Packed, open_pack, pack_sources
from bneck.data.stream import Stream
from bneck.recipes.progress import Progress
from bneck.recipes.splits import BUILTIN, run_sources
from bneck.records.files import write_json
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError
from bneck.train.team import Team


@dataclass(frozen=True, slots=True)
class Material:
    """Images to train on and to judge by. Labels are indices into `classes`."""

    classes: tuple[str, ...]
    train: Images
    val: Images

    def bad(self) -> list[list[str]]:
        """[name, reason] of the images that could not be read so far, if they are streamed."""
        found = []
        for split in (self.train, self.val):
            if isinstance(split, Stream):
                found += [[str(split.source.names[i]), why] for i, why in sorted(split.bad.items())]
        return found


def count_train(data: str | None, seed: int) -> int:
    """How many images there are to train on.

    Raises:
        DataError: there is no such data.
    """
    return len(find_images(data, seed=seed).train.labels)


def material(folder: RunFolder, record: dict[str, Any], progress: Progress, team: Team) -> Material:
    """The images of a run, found or opened; the first process of the team packs them and says so.

    Raises:
        InputError: no such data, too many bad images, or data that changed since the run began.
    """
    settings = record["settings"]
    if settings["stream"]:
        return _streamed(folder, record)
    if team.first:
        packed = _packed(folder, record, progress)
    team.wait()
    if not team.first:
        packed = open_pack(folder.scratch / "pack")
    return Material(packed.classes, packed.train, packed.val)


def _packed(folder: RunFolder, record: dict[str, Any], progress: Progress) -> Packed:
    settings, place = record["settings"], folder.scratch / "pack"
    if "data" in record:
        return open_pack(place)
    found = run_sources(settings)
    before = 0

    def advance(done: int, total: int) -> None:
        nonlocal before
        if not before:
            progress.stage("reading images", total)
        progress.advance(done - before)
        before = done

    share = settings["bad_share"]
    packed = pack_sources(found, settings["resolution"], place, bad_share=share, progress=advance)
    name = BUILTIN if settings["data"] is None else Path(settings["data"]).name
    _note(folder, record, name, packed.classes, len(packed.train.labels), len(packed.val.labels))
    record["data"]["bad"] = [[str(bad.path), bad.reason] for bad in packed.bad]
    write_json(folder.run_json, record)
    if packed.bad:
        progress.say(f"{len(packed.bad)} unreadable images left out, listed in {folder.run_json}")
    return packed


def _streamed(folder: RunFolder, record: dict[str, Any]) -> Material:
    settings = record["settings"]
    found = run_sources(settings)
    if record.get("data", {}).get("fingerprint", found.fingerprint) != found.fingerprint:
        raise InputError(
            f"{settings['data']} has changed since {folder.path} was begun; start a new run"
        )
    _note(
        folder,
        record,
        Path(settings["data"]).name,
        found.classes,
        len(found.train.labels),
        len(found.val.labels),
    )
    record["data"] |= {"bad": [], "fingerprint": found.fingerprint, "kind": found.kind}
    share = settings["bad_share"]
    return Material(
        found.classes,
        Stream(found.train, bad_share=share),
        Stream(found.val, bad_share=share),
    )


def _note(
    folder: RunFolder,
    record: dict[str, Any],
    name: str,
    classes: tuple[str, ...],
    train: int,
    val: int,
) -> None:
    record["data"] = {
        "name": name,
        "classes": list(classes),
        "resolution": record["settings"]["resolution"],
        "train": train,
        "val": val,
    }
