"""Published weights by name, from the Hugging Face hub or its cache: `timm/NAME.TAG`, `hf:ORG/REPO`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path
from typing import Any

from bneck.imports.published import network_of
from bneck.records.progress import Progress
from bneck.specs.errors import InputError

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_NAME = re.compile(r"(?:hf:(?P<any>[\w.-]+/[\w.-]+)|(?P<timm>timm/[\w.-]+))(?:@(?P<rev>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository of the hub, `ORG/REPO`, at a branch, tag or commit; None: the main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        prefix = "" if self.repository.startswith("timm/") else "hf:"
        return f"{prefix}{self.repository}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A file of published weights and the config.json next to it, {} without one.

    `name` has the commit as its revision; None for a file that was at hand.
    """

    file: Path
    config: Mapping[str, Any]
    name: HubName | None = None

    def origin(self) -> dict[str, str | None]:
        """Where they are from, and their publisher's licence; None where nobody says."""
        license = preprocessing(self.config).get("license")
        return {
            "repository": self.name.repository if self.name else None,
            "commit": self.name.revision if self.name else None,
            "license": None if license is None else str(license),
        }


def hub_name(text: str) -> HubName | None:
    """The repository that a text names; None if it is something else, as a path that exists is.

    Raises:
        InputError: it begins with hf: and goes on otherwise.
    """
    match = _NAME.fullmatch(text)
    if match is None and text.startswith("hf:"):
        raise InputError(
            f"{text} does not name a repository of the hub; write hf:ORG/REPO[@REVISION]"
        )
    if match is None or (match["timm"] and Path(text).exists()):
        return None
    return HubName(match["any"] or match["timm"], match["rev"])


def preprocessing(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json about input, classes and licence; older files are flat."""
    inner = config.get("pretrained_cfg")
    return inner if isinstance(inner, dict) else config


def fetch(name: HubName, progress: Progress, *, known: bool = True) -> Weights:
    """Take a repository's config.json and model.safetensors from the hub's cache, or fetch them.

    The cache, the endpoint and offline mode are those of huggingface_hub: `HF_HOME`, `HF_HUB_CACHE`,
    `HF_ENDPOINT`, `HF_HUB_OFFLINE`. Nothing else is fetched. With `known`, weights are fetched only if
    config.json names an architecture that is known here, or none.

    Raises:
        InputError: huggingface_hub is not installed, no such repository or revision, no
            model.safetensors in it, a damaged file, or the hub cannot be reached and the cache lacks it.
    """
    _quiet(name)
    held: Any = {}
    try:
        config = _file(name, CONFIG, progress)
        # The commit of the first file, so that both are of one version also while somebody pushes.
        name = HubName(name.repository, _commit(config))
        held = _read(config, name)
    except _Absent:
        pass  # the weights alone may do
    if known and isinstance(held.get("architecture"), str):
        network_of(held["architecture"], str(name))
    try:
        file = _file(name, WEIGHTS, progress)
    except _Absent:
        there = ", ".join(_listed(name)) or "nothing else that is known"
        raise InputError(
            f"{name} has no {WEIGHTS}, and no other file is read, since a pickle may run code; it has "
            f"{there}; choose another repository (bneck import --list) or convert its weights to safetensors"
        ) from None
    name = HubName(name.repository, _commit(file))
    _check(file, name)
    return Weights(name=name, file=file, config=held)


def cached(repository: str) -> HubName | None:
    """A repository at the commit that the hub's cache has all files of, or None; nothing is fetched."""
    name = HubName(repository)
    try:
        _quiet(name)
    except InputError:  # without the hub's library there is nothing to use its cache with
        return None
    from huggingface_hub import try_to_load_from_cache

    files = [try_to_load_from_cache(repository, file) for file in (CONFIG, WEIGHTS)]
    commits = {_commit(Path(file)) for file in files if isinstance(file, str)}
    complete = all(isinstance(file, str) for file in files) and len(commits) == 1
    return HubName(repository, commits.pop()) if complete else None


def _quiet(name: HubName) -> None:
    """Import the hub's library without its telemetry, which would also fetch a registry nobody named."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when the library is imported
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import logging
    except ImportError:
        raise InputError(
            f"{name} is on the Hugging Face hub, which needs huggingface_hub; install it with: pip install "
            "'bneck[hub]'"
        ) from None
    constants.HF_HUB_DISABLE_TELEMETRY = True  # where somebody imported it before
    logging.set_verbosity(ERROR)  # else each retry is a line


def _read(config: Path, name: HubName) -> dict[str, Any]:
    try:
        held = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{config} of {name} is not json ({error}); delete it and try again"
        ) from None
    return held if isinstance(held, dict) else {}


class _Absent(Exception):
    """A repository without the file."""


def _file(name: HubName, file: str, progress: Progress) -> Path:
    from huggingface_hub import constants, errors, hf_hub_download

    with _refusals(name, file):
        progress.note(f"asking the hub for {file} of {name}")  # five retries take half a minute
        try:
            asked = hf_hub_download(
                name.repository, file, revision=name.revision, dry_run=True, library_name="bneck"
            )
            # A small file needs no bar; a commit that is cached needs no connection at all.
            will = not isinstance(asked, str) and asked.will_download
            size = (asked.file_size or 0) if will and not isinstance(asked, str) else 0
            if size > 1e6:
                progress.stage(f"fetching {size / 1e6:.1f} MB of {name}", size)
            found = hf_hub_download(
                name.repository, file, revision=name.revision, library_name="bneck",
                tqdm_class=_bar(progress if size > 1e6 else None),
            )  # fmt: skip
        except errors.LocalEntryNotFoundError:
            offline = (
                constants.is_offline_mode()
                if hasattr(constants, "is_offline_mode")
                else constants.HF_HUB_OFFLINE
            )
            why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
            raise InputError(
                f"{file} of {name} is not in the cache {constants.HF_HUB_CACHE}, and {why}; connect once, or "
                "copy the cache of a machine that has it"
            ) from None
    return Path(found)


@contextmanager
def _refusals(name: HubName, file: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise InputError(
            f"{name} asks for its terms to be accepted; do so on its page and log in with: hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"there is no public repository {name.repository} on the hub; bneck import --list prints those "
            "that fit"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"{name.repository} has no revision {name.revision}; leave @{name.revision} out, or name a branch, "
            "tag or commit of it"
        ) from None
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise
        raise _Absent(file) from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{file} of {name} cannot be fetched: {reason}; try again later") from None


def _bar(progress: Progress | None) -> type:
    """The hub's bar, which reports to `progress` instead of drawing on the terminal."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *words: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*words, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if progress is not None:
                progress.advance(int(n or 0))

    return Bar


def _commit(file: Path) -> str:
    """The commit of a file in the cache, `snapshots/COMMIT/FILE`."""
    found = file.parent.name
    return found if _COMMIT.fullmatch(found) else "unknown"


def _listed(name: HubName) -> list[str]:
    """A repository's other files with weights, as far as the hub answers."""
    from huggingface_hub import HfApi

    with suppress(Exception):
        files = HfApi().list_repo_files(name.repository, revision=name.revision)
        return [f for f in files if f.endswith((".bin", ".pth", ".pt", ".safetensors", ".ckpt"))][
            :5
        ]
    return []


def _check(file: Path, name: HubName) -> None:
    """Large files lie in the cache under their sha256; one that differs is damaged."""
    blob = file.resolve().name
    if not _SHA256.fullmatch(blob):
        return
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != blob:
        raise InputError(
            f"{file} of {name} is damaged: its sha256 begins with {digest[:8]}, not {blob[:8]}; delete it and "
            "fetch it again"
        )
