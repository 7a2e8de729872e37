"""Trained weights that the user has: named, imported into the cache folder, or in the hub's cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bneck.imports.hub import cached
from bneck.imports.published import KNOWN
from bneck.records.files import cache_folder
from bneck.records.progress import Progress
from bneck.records.run import RunFolder
from bneck.runs.start import find_start
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import load, resolve


@dataclass(frozen=True, slots=True)
class AtHand:
    """Weights of a network. `text` is what `find_start` takes, `origin` says to people where they are from.

    `given` is whether the user named them.
    """

    spec: NetSpec
    text: str
    origin: str
    given: bool = False


def at_hand(given: Sequence[str], progress: Progress) -> list[AtHand]:
    """All weights that need no connection, each once: the given ones, imports, then the hub's cache.

    Raises:
        InputError: given weights that cannot be a start.
    """
    found: dict[Path, AtHand] = {}
    for text in given:
        start = find_start(text, None, progress)
        found.setdefault(
            start.folder.resolve(), AtHand(_spec(start.folder), start.text, text, given=True)
        )
    origins = set()
    for file in sorted(cache_folder("imports").glob("*/run.json")):
        folder = RunFolder(file.parent)
        with suppress(InputError, LookupError):  # what another version left, or a killed import
            record = folder.read()
            source = record["source"]
            origins.add((source["repository"], source["commit"]))
            origin = source["repository"] or source["file"]
            hand = AtHand(_spec(folder.path), str(folder.path), origin)
            found.setdefault(folder.path.resolve(), hand)
    fetched = [
        AtHand(resolve(one.network), str(name), one.name)
        for one in KNOWN
        if one.name.startswith("timm/")
        and (name := cached(one.name)) is not None
        and (name.repository, name.revision) not in origins
    ]
    return [*found.values(), *fetched]


def _spec(folder: Path) -> NetSpec:
    return load(RunFolder(folder).spec)
