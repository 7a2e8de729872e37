"""How class folders lie: in splits, with splits inside, one level deeper than said, next to other things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bneck.data.intake.splits import Split, only_a_split, preferred, split_of, words
from bneck.data.intake.walk import DataError, has_images, images_below, is_image, subfolders
from bneck.specs.errors import few

_UNLABELLED = ("unlabeled", "unlabelled", "unlabel", "unannotated", "unsorted")
MOST_DEEP = 8  # folders with a single one inside
Classes = Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Layout:
    """Class folders of each split, by the folder's name; no val where it is to be split off.

    `places` are the folders of the splits. `notes` say what lies there and is not used.
    """

    places: Mapping[str, Path]
    splits: Mapping[str, Classes]
    notes: tuple[str, ...] = ()
    left: Counter[str] = field(default_factory=Counter)


def find_layout(root: Path) -> Layout:
    """Class folders: `CLASS/*`, `SPLIT/CLASS/*` or `CLASS/SPLIT/*`, also one or more folders deeper.

    Of several folders for a split the usual name counts; test is val where there is no val. Folders that lie
    next to splits are no classes, nor are folders of unlabelled images.

    Raises:
        DataError: no such folder, splits without train, or a split that lies among classes.
    """
    place = single(root)
    inside = subfolders(place)
    named = _named(place, inside)
    if not named and (holder := _only_holder(place, inside)):
        others = [name for name, path in inside.items() if not holder.is_relative_to(path)]
        notes = _unused(inside, others)
        place, inside = holder, subfolders(holder)
        named = _named(place, inside)
    else:
        notes = []
    if place != root:
        notes.insert(0, f"found in {place.relative_to(root)}")
    if not named and (within := _within_classes(inside)):
        places = dict.fromkeys(within, place)
        return _chosen(places, within, notes)
    if not named:
        unlabelled = [name for name in inside if set(words(name)) & set(_UNLABELLED)]
        classes = {name: path for name, path in inside.items() if name not in unlabelled}
        notes += _unused(inside, unlabelled)
        if split_of(place.name) != "train":  # which says that its folders are classes
            _check_variants(place, classes)
        return _chosen({"train": place}, {"train": classes}, notes)
    if "train" not in named.values():
        rest = {name: path for name, path in inside.items() if name not in named}
        return _chosen(
            {"train": place, **{s: single(inside[n]) for n, s in named.items()}},
            {"train": rest, **{s: subfolders(single(inside[n])) for n, s in named.items()}}, notes,
        )  # fmt: skip
    chosen = _one_each(place, named)
    notes += _unused(inside, [name for name in inside if name not in chosen.values()])
    places = {split: single(inside[name]) for split, name in chosen.items()}
    return _chosen(places, {split: subfolders(path) for split, path in places.items()}, notes)


def single(root: Path) -> Path:
    """The folder below `root` where more than one folder lies, as in archive/data/CLASS."""
    inside = subfolders(root)
    for _ in range(MOST_DEEP):  # a link to a folder above has no end
        if len(inside) != 1:
            break
        (only,) = inside.values()
        deeper = subfolders(only)
        if not deeper or any(is_image(path.name) for path in only.iterdir()):
            break
        root, inside = only, deeper
    return root


def _named(place: Path, inside: Classes) -> dict[str, Split]:
    """Folders that are splits, {} where they are classes."""
    all_named = {name: split for name in inside if (split := split_of(name)) is not None}
    strict = {name: split for name, split in all_named.items() if only_a_split(name)}
    rest = [name for name in inside if name not in strict and has_images(inside[name])]
    deep = {name for name in all_named if subfolders(single(inside[name]))}
    trains = [name for name, split in strict.items() if split == "train"]
    if trains:
        # Among pictures of vehicles, "train" is a class: it has siblings, and no folders of its own.
        if rest and not deep & set(trains):
            if len(set(strict.values())) > 1:
                raise _among_classes(place, list(strict), rest)
            return {}
        return strict
    if strict:
        if not rest:
            raise DataError(
                f"{place} has {', '.join(strict)} and no folder 'train' to train on; add it, or give the "
                "folder that holds the class folders"
            )
        if all(
            name in deep and set(subfolders(single(inside[name]))) <= set(rest) for name in strict
        ):
            return strict
        raise _among_classes(place, list(strict), rest)
    several = len(set(all_named.values())) > 1 and "train" in all_named.values()
    if several and deep == set(all_named) and not set(rest) - set(all_named):
        return all_named
    return {}


def _among_classes(place: Path, splits: Sequence[str], rest: Sequence[str]) -> DataError:
    return DataError(
        f"{place} has {' and '.join(map(repr, splits))}, which names a split, next to class folders such as "
        f"{rest[0]!r}; move it elsewhere, or rename it if it is a class"
    )


def _within_classes(inside: Classes) -> dict[str, dict[str, Path]]:
    """CLASS/SPLIT/*: class folders by split, {} where this is not so in every class."""
    found: dict[str, dict[str, Path]] = {}
    for name, folder in inside.items():
        parts = {part: path for part, path in subfolders(folder).items() if has_images(path)}
        splits = {split_of(part) for part in parts if only_a_split(part)}
        loose = any(is_image(path.name) for path in folder.iterdir())
        if loose or "train" not in splits or len(splits) < len(parts) or len(parts) < 2:
            return {}
        for part, path in parts.items():
            found.setdefault(str(split_of(part)), {})[name] = path
    return found


def _only_holder(place: Path, inside: Classes) -> Path | None:
    """The folder that has a train split inside, where the others have none, as data/train next to docs.

    Raises:
        DataError: some of several folders have a train split inside, and others images without one.
    """
    places = {name: single(folder) for name, folder in inside.items()}
    holders = [
        name for name, deep in places.items()
        if any(
            only_a_split(path.name) and split_of(path.name) == "train" and has_images(path)
            for path in (*subfolders(deep).values(), *[deep] * (deep != inside[name]))
        )
    ]  # fmt: skip
    others = [name for name, path in inside.items() if name not in holders and has_images(path)]
    if len(holders) == 1 and len(inside) > 1:
        return places[holders[0]]
    if holders and others:
        raise DataError(
            f"{place} has a train split inside {holders[0]!r} and others, and none inside {others[0]!r}; give "
            "the folder of one dataset, or divide all classes alike"
        )
    return None


def _check_variants(place: Path, classes: Classes) -> None:
    """Raise DataError where folders hold folders of the same names: splits, folds or variants of a dataset.

    Either each of them holds the same, or one holds those next to it, as `augmented/cat` next to `cat`.
    """
    inner = [
        tuple(name for name, path in subfolders(folder).items() if has_images(path))
        for folder in classes.values()
    ]
    for holder, names in zip(classes, inner, strict=True):
        if len(same := [name for name in names if name in classes and name != holder]) > 1:
            raise DataError(
                f"{place} has the folders {few(same)}, and {holder!r} next to them holds folders of these "
                f"names too, so that it is no class of its own; move its images into these folders, or "
                f"move it out of {place}"
            )
    if len(inner) < 2 or len(inner[0]) < 2 or len(set(inner)) > 1:
        return
    raise DataError(
        f"each of {few(list(classes))} in {place} holds the folders {few(inner[0])}, as splits, folds or "
        "variants of one dataset do; call splits train, val and test, or give one of the folders, or, if they "
        f"are the classes, move them into {place / 'train'}"
    )


def _one_each(place: Path, named: Mapping[str, Split]) -> dict[Split, str]:
    """The folder of each split."""
    chosen: dict[Split, str] = {}
    for split in ("train", "val", "test"):
        found = [name for name, own in named.items() if own == split]
        if split == "train" and "val" not in named.values():
            whole = [name for name in found if "trainval" in words(name)]
            found = whole or found
        best = preferred(found, split) if found else []
        if len(best) > 1:
            raise DataError(
                f"{place} has {len(best)} folders for {split}: {', '.join(best)}; merge them, or move all but "
                "one elsewhere"
            )
        if best:
            chosen[split] = best[0]
    return chosen


def _chosen(
    places: Mapping[str, Path], splits: Mapping[str, Classes], notes: Sequence[str]
) -> Layout:
    """With test as val where there is no val and test has classes; a test without classes is not used."""
    places, splits, notes = dict(places), dict(splits), list(notes)
    if "test" in splits and not splits["test"]:
        place = places.pop("test")
        del splits["test"]
        if count := len(images_below(place)):
            notes.append(f"not used: {count} images in {place.name} without classes")
    if "val" not in splits and "test" in splits:
        named = (part for part in reversed(places["test"].parts) if split_of(part) == "test")
        notes.append(f"val is {next(named, 'test')}")
        places["val"], splits["val"] = places.pop("test"), splits.pop("test")
    loose = sum(
        is_image(path.name)
        for split, place in places.items()
        if any(path.parent == place for path in splits[split].values())
        for path in place.iterdir()
    )
    left = Counter({"in no class folder": loose}) if loose else Counter[str]()
    return Layout(places, splits, tuple(notes), left)


def _unused(inside: Classes, names: Sequence[str]) -> list[str]:
    """Folders with images that are not taken."""
    counts = {name: len(images_below(inside[name])) for name in names}
    said = ", ".join(f"{name} ({count} images)" for name, count in counts.items() if count)
    return [f"not used: {said}"] if said else []
