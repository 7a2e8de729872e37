"""Where the files go that predict draws: one for every picture, and none over a file of the user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bneck.specs.errors import InputError

DRAWN = ("Software", "bneck")  # in every png that is drawn: only these are written over


def drawn_files(
    place: str | Path | None, images: Sequence[str | Path], option: str
) -> list[Path | None]:
    """A file for every picture: `place` itself where it ends in .png, else one in that folder.

    In a folder a file has its picture's name; the second picture of one name gets NAME-2.png.

    Args:
        place: what the user gave; None draws nothing.
        images: the pictures.
        option: what a refusal calls the place, as "--out".

    Raises:
        InputError: one file for several pictures, another kind of file, or one that is there already and
            was not drawn by bneck.
    """
    if place is None:
        return [None] * len(images)
    path = Path(place)
    if path.suffix.lower() == ".png" and not path.is_dir():
        if len(images) > 1:
            raise InputError(
                f"{option} is the file {path} and there are {len(images)} pictures; name a folder"
            )
        _refuse_pictures([path], images, option)
        return [path]
    if path.suffix and not path.is_dir():
        raise InputError(f"{option} is {path}; name a .png file, or a folder")
    files = [path / f"{name}.png" for name in _names(images)]
    _refuse_pictures(files, images, option)
    return list(files)


def refuse_shared(*chosen: Sequence[Path | None]) -> None:
    """Raise InputError for a file that two options would write."""
    taken = set[str]()
    for file in (file for files in chosen for file in files if file is not None):
        if str(file).casefold() in taken:
            raise InputError(f"two options would both write {file}; name two places")
        taken.add(str(file).casefold())


def _names(images: Sequence[str | Path]) -> list[str]:
    """The stems of the pictures, numbered where they would be one file, whatever the case."""
    stems = [Path(image).stem for image in images]
    # A number must not make a name that another picture has of its own.
    own = {stem.casefold() for stem in stems}
    names, taken = [], set[str]()
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in taken or (number > 1 and name.casefold() in own):
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _refuse_pictures(files: Sequence[Path], images: Sequence[str | Path], option: str) -> None:
    pictures = [Path(image) for image in images if Path(image).exists()]
    for file in files:
        if file.exists() and any(file.samefile(picture) for picture in pictures):
            raise InputError(
                f"{option} would be written over the picture {file}; name another place"
            )
        if file.exists() and not _drawn(file):
            raise InputError(
                f"{option} would be written over {file}, which is there already and was not drawn by bneck; "
                "name another place"
            )


def _drawn(file: Path) -> bool:
    """Whether a file is one that was drawn before."""
    try:
        with Image.open(file) as image:
            return image.info.get(DRAWN[0]) == DRAWN[1]
    except OSError:
        return False
