"""Which files of a folder are images, for every task: what is taken, what is never taken, what is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from bneck.specs.errors import InputError

HEIF = (".heic", ".heif")
HEIF_READ = find_spec("pillow_heif") is not None  # an extra
SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".avif", *(HEIF if HEIF_READ else ()),
)  # fmt: skip
# Of cameras, scanners and drawing programs; not read.
OTHER_IMAGES = (
    *HEIF, ".jp2", ".j2k", ".jxl", ".psd", ".svg", ".ico", ".tga", ".dng", ".nef", ".cr2", ".cr3", ".arw",
    ".orf", ".rw2", ".raf", ".raw", ".exr", ".hdr", ".dcm", ".mpo",
)  # fmt: skip
_NO_IMAGES = (
    ".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".npy", ".npz", ".mat", ".db",
    ".ini", ".py", ".zip", ".tar", ".gz", ".pdf", ".mp4", ".log", ".names", ".data", ".h5", ".cache", ".url",
)  # fmt: skip
ARCHIVES = (".zip", ".rar", ".7z", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
# What systems put next to files: Synology, QNAP, macOS, Windows, Linux, Python.
_SYSTEM = frozenset((
    "@eadir", "@tmp", "@__thumb", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini",
))  # fmt: skip
_THUMBNAILS = frozenset(("thumbs", "_thumbs", "thumbnail", "thumbnails", "_thumbnails"))
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
THUMBNAILS = "in folders of thumbnails"
NAMELESS = "without a suffix"


class DataError(InputError):
    """Images, labels or settings that cannot be worked with."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or a system's own; these are never taken nor counted."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_image(name: str) -> bool:
    """Whether a file is taken for an image by its name."""
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def subfolders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by name, sorted, hidden ones aside.

    Raises:
        DataError: it is not there, no folder, or cannot be listed.
    """
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        raise DataError(f"there is no folder {folder}; check the path") from None
    except NotADirectoryError:
        packed = "unpack it and " if folder.name.lower().endswith(ARCHIVES) else ""
        raise DataError(
            f"{folder} is not a folder; {packed}give the folder that holds the class folders"
        ) from None
    except OSError as error:
        raise _unreadable(folder, error) from None
    return {path.name: path for path in paths if path.is_dir() and not is_hidden(path.name)}


def walk(folder: Path, left: Counter[str] | None = None) -> Iterator[Path]:
    """All files below a folder, links followed, hidden ones and thumbnails aside.

    `left` counts what is left out, by kind.

    Raises:
        DataError: a folder cannot be listed.
    """
    seen: set[str] = set()
    waiting = [str(folder)]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above would be walked for ever
            continue
        seen.add(real)
        try:
            inner, files = _inside(place)
        except OSError as error:
            raise _unreadable(folder, error) from None
        small = [name for name in inner if name.lower() in _THUMBNAILS]
        if small and any(map(is_image, files)):
            if left is not None:
                left[THUMBNAILS] += sum(
                    len(images_below(Path(place, name), Counter())) for name in small
                )
            inner = [name for name in inner if name not in small]
        inner = sorted((name for name in inner if not is_hidden(name)), reverse=True)
        waiting += [os.path.join(place, name) for name in inner]
        yield from (Path(place, name) for name in files if not is_hidden(name))


def _inside(place: str) -> tuple[list[str], list[str]]:
    """Names of folders and of files in a folder; pipes and devices are neither: reading one may never end."""
    inner, files = [], []
    with os.scandir(place) as entries:
        for entry in entries:
            try:
                folder, file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself, which reading reports
                folder, file = False, True
            if folder:
                inner.append(entry.name)
            elif file or entry.is_symlink():
                files.append(entry.name)
    return inner, files


def images_below(folder: Path, left: Counter[str] | None = None) -> list[Path]:
    """All image files below a folder, sorted by path; `left` counts pictures that cannot be taken, by kind.

    Raises:
        DataError: a folder cannot be listed.
    """
    found = []
    for path in walk(folder, left):
        if is_image(path.name):
            found.append(path)
        elif left is not None and (kind := _left(path)):
            left[kind] += 1
    return sorted(found)


def has_images(folder: Path) -> bool:
    """Whether there is an image below a folder; also where it cannot be listed, which is said elsewhere."""
    with suppress(DataError):
        return any(is_image(path.name) for path in walk(folder))
    return True


def counted(kinds: Counter[str] | dict[str, int]) -> str:
    """What was left out, as a list for people: "60 .heic (pip install 'bneck[heif]'), 10 without a suffix"."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _left(path: Path) -> str:
    """The kind of a picture that is not taken; "" for what is not a picture."""
    suffix = path.suffix.lower()
    if suffix in HEIF:
        return f"{suffix} (pip install 'bneck[heif]')"
    if suffix in OTHER_IMAGES:
        return suffix
    if suffix in _NO_IMAGES:
        return ""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(12)
        if start.startswith(_MAGIC) or start[8:12] == b"WEBP":
            plain = suffix and suffix[1:].isalpha()
            return suffix if plain else NAMELESS
    return ""


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{error.filename or folder} cannot be listed: {error.strerror}; make it readable"
    )


def endings(suffixes: Sequence[str] = SUFFIXES) -> str:
    """How images' names end, for messages."""
    return " ".join(suffixes)
