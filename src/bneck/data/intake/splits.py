"""Which split a name means: train, val or test, in the words that data sets have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

Split = Literal["train", "val", "test"]
T = TypeVar("T")

# In the order in which the first counts where a dataset has several.
WORDS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval"),
    "val": (
        "val",
        "valid",
        "validation",
        "validate",
        "dev",
        "devel",
        "development",
        "eval",
        "evaluation",
    ),
    "test": ("test", "testing", "tst", "holdout"),
}
# What stands next to them, or is grown together with them, without another meaning.
_FILLERS = (
    "", "s", "a", "all", "data", "dataset", "folder", "full", "image", "images", "img", "imgs", "instances",
    "jpg", "of", "part", "photos", "pictures", "png", "seg", "set", "sets", "shard", "shards", "split", "the",
)  # fmt: skip
_SPLITS: dict[str, Split] = {
    word + end: split
    for split, words in WORDS.items()
    for word in words
    for end in ("", "set", "data", "images", "imgs", "s")
}


def words(name: str) -> list[str]:
    """The words of a file's or folder's name, digits and signs aside.

    >>> words("seg_train2017"), words("TestSet"), words("photos-latest")
    (['seg', 'train'], ['test', 'set'], ['photos', 'latest'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", spaced.lower())


def split_of(name: str) -> Split | None:
    """The split that a name means by one of its words; None for none, and for test next to another.

    >>> split_of("seg_train"), split_of("Testing"), split_of("festival"), split_of("train_val")
    ('train', 'test', None, 'train')
    """
    found = {_SPLITS[word] for word in words(name) if word in _SPLITS}
    if found == {"train", "val"}:
        return "train"
    return found.pop() if len(found) == 1 else None


def only_a_split(name: str) -> bool:
    """Whether a name says nothing but the split.

    >>> only_a_split("train_set"), only_a_split("train station")
    (True, False)
    """
    return split_of(name) is not None and all(
        word in _SPLITS or word in _FILLERS for word in words(name)
    )


def split_by_folder(root: Path, path: Path) -> str:
    """The split that a folder between `root` and a file names, "" for none."""
    if not path.is_relative_to(root):
        return ""
    parts = reversed(path.relative_to(root).parts[:-1])
    return next((str(split_of(part)) for part in parts if only_a_split(part)), "")


def preferred(found: Iterable[T], split: Split) -> list[T]:
    """Of things called after a split those of its first word: val before dev, train before trainval."""

    def rank(one: T) -> int:
        spelled = words(str(one))
        return min(
            (i for i, word in enumerate(WORDS[split]) if word in spelled), default=len(WORDS[split])
        )

    ranked = sorted(((rank(one), one) for one in found), key=lambda entry: entry[0])
    return [one for place, one in ranked if place == ranked[0][0]]
