"""Listing class folders: the layouts, the split, and every way in which a folder can be wrong."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.data.folders import DataError, Item, Listing, held_out, list_images


def lay(root: Path, *names: str) -> Path:
    """Touch files under `root`; listing does not look inside them. A final / makes a folder."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def many(folder: str, count: int) -> list[str]:
    return [f"{folder}/{i:02d}.jpg" for i in range(count)]


def names(root: Path, items: tuple[Item, ...]) -> list[str]:
    return [item.path.relative_to(root).as_posix() for item in items]


class TestLayouts:
    def test_train_and_val_are_taken_as_they_are(self, tmp_path: Path) -> None:
        lay(tmp_path, "train/dog/2.png", "train/dog/1.png", "train/cat/3.png", "val/dog/4.png")
        assert list_images(tmp_path) == Listing(
            classes=("cat", "dog"),
            train=(
                Item(tmp_path / "train/cat/3.png", 0),
                Item(tmp_path / "train/dog/1.png", 1),
                Item(tmp_path / "train/dog/2.png", 1),
            ),
            val=(Item(tmp_path / "val/dog/4.png", 1),),
        )

    @pytest.mark.parametrize("val", ["val", "valid", "validation", "test", "Val", "VALIDATION"])
    def test_val_goes_by_several_names(self, tmp_path: Path, val: str) -> None:
        lay(tmp_path, "train/a/1.png", "train/b/1.png", f"{val}/a/2.png", f"{val}/b/2.png")
        assert names(tmp_path, list_images(tmp_path).val) == [f"{val}/a/2.png", f"{val}/b/2.png"]

    def test_val_comes_before_test(self, tmp_path: Path) -> None:
        lay(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "test/a/3.png")
        assert names(tmp_path, list_images(tmp_path).val) == ["val/a/2.png"]

    def test_train_alone_is_split(self, tmp_path: Path) -> None:
        listing = list_images(lay(tmp_path, *many("train/a", 10), *many("train/b", 5)))
        assert Counter(item.label for item in listing.train) == {0: 8, 1: 4}
        assert Counter(item.label for item in listing.val) == {0: 2, 1: 1}

    def test_a_test_folder_of_unlabelled_images_is_no_val(self, tmp_path: Path) -> None:
        lay(tmp_path, *many("train/a", 5), *many("train/b", 5), "test/1.jpg")
        assert names(tmp_path, list_images(tmp_path).val)[0].startswith("train/a/")

    def test_one_level_is_split(self, tmp_path: Path) -> None:
        listing = list_images(lay(tmp_path, *many("a", 10), *many("b", 2)), val_share=0.3)
        assert Counter(item.label for item in listing.val) == {0: 3, 1: 1}

    def test_train_can_be_a_class_of_vehicles(self, tmp_path: Path) -> None:
        lay(tmp_path, *many("bus", 2), *many("train", 2))
        assert list_images(tmp_path).classes == ("bus", "train")

    def test_suffixes_hidden_files_and_nested_folders(self, tmp_path: Path) -> None:
        lay(tmp_path, "train/a/1.JPG", "train/a/in/deep/2.TiFf", "train/a/._1.jpg", "train/a/x.txt")
        lay(tmp_path, "train/a/.hidden/3.jpg", "train/.git/4.jpg", "train/b/5.pgm", "val/b/6.gif")
        assert names(tmp_path, list_images(tmp_path).train) == [
            "train/a/1.JPG",
            "train/a/in/deep/2.TiFf",
            "train/b/5.pgm",
        ]

    def test_links_to_a_folder_above_are_not_followed(self, tmp_path: Path) -> None:
        lay(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png")
        # Followed, two of them would be walked in 2^40 ways.
        for name in ("left", "right"):
            (tmp_path / "train/a" / name).symlink_to(tmp_path / "train/a", target_is_directory=True)
        assert names(tmp_path, list_images(tmp_path).train) == ["train/a/1.png", "train/b/2.png"]

    def test_linked_class_folders_and_dangling_links_count(self, tmp_path: Path) -> None:
        lay(tmp_path, "store/1.png", "set/train/b/2.png", "set/val/b/3.png")
        (tmp_path / "set/train/a").symlink_to(tmp_path / "store", target_is_directory=True)
        (tmp_path / "store/gone.png").symlink_to(tmp_path / "nowhere.png")
        listing = list_images(tmp_path / "set")
        # The dangling link is listed, so that packing names it among the unreadable.
        assert names(tmp_path / "set", listing.train) == [
            "train/a/1.png",
            "train/a/gone.png",
            "train/b/2.png",
        ]


class TestSplit:
    @given(
        sizes=st.lists(st.integers(2, 12), min_size=2, max_size=3),
        share=st.floats(0.01, 0.99),
        seed=st.integers(-3, 2**40),
    )
    @settings(max_examples=25, deadline=None)
    def test_disjoint_complete_and_stratified(
        self, sizes: list[int], share: float, seed: int
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for label, size in enumerate(sizes):
                lay(root, *many(f"c{label}", size))
            listing = list_images(root, val_share=share, seed=seed)
        train, val = set(names(root, listing.train)), set(names(root, listing.val))
        assert not train & val
        assert train | val == {name for k, size in enumerate(sizes) for name in many(f"c{k}", size)}
        for label, size in enumerate(sizes):
            held = sum(item.label == label for item in listing.val)
            assert 1 <= held <= size - 1
            assert abs(held - share * size) <= 1

    def test_order_on_disk_does_not_matter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = [*many("a", 9), *many("a/in", 4), *many("b", 7)]
        first = list_images(lay(tmp_path, *files))
        walk = os.walk

        def backwards(*args: Any, **options: Any) -> Iterator[Any]:
            for place, inner, inside in walk(*args, **options):
                inner.reverse()
                yield place, inner, inside[::-1]

        monkeypatch.setattr(os, "walk", backwards)
        monkeypatch.setattr(Path, "iterdir", lambda path: iter([path / "b", path / "a"]))
        assert list_images(tmp_path) == first

    def test_the_place_of_the_dataset_does_not_matter_but_the_seed_does(
        self, tmp_path: Path
    ) -> None:
        files = [*many("a", 30), *many("b", 30)]
        one, two = lay(tmp_path / "one", *files), lay(tmp_path / "two", *files)
        assert names(one, list_images(one).val) == names(two, list_images(two).val)
        assert names(one, list_images(one).val) != names(one, list_images(one, seed=1).val)

    def test_an_added_image_moves_at_most_one_other(self, tmp_path: Path) -> None:
        lay(tmp_path, *many("a", 20), *many("b", 20))
        before = set(list_images(tmp_path).val)
        for i in range(20):
            lay(tmp_path, f"a/new-{i}.jpg")
            after = set(list_images(tmp_path).val)
            old = {item for item in after if f"new-{i}.jpg" != item.path.name}
            assert len(old ^ before) <= 1
            before = after

    @pytest.mark.parametrize(
        ("count", "share", "held"),
        [
            (10, 0.2, 2),
            (2, 0.01, 1),
            (2, 0.99, 1),
            (7, 0.2, 1),
            (8, 0.2, 2),
            (1, 0.5, 0),
            (0, 0.5, 0),
        ],
    )
    def test_held_out(self, count: int, share: float, held: int) -> None:
        assert held_out(count, share) == held


BOTH = ("train/a/1.png", "train/b/1.png")
WRONG: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "no such folder": ((), "gone", ("there is no folder", "gone", "check the path")),
    "a file": (("set",), "set", ("set is not a folder", "class folders")),
    "nothing inside": (("set/",), "set", ("no class folders", "train/CLASS")),
    "images without classes": (("set/1.png", "set/2.png"), "set", ("no class folders",)),
    "train without classes": (
        ("set/train/1.png", "set/val/1.png"),
        "set",
        ("set/train has no class folders",),
    ),
    "one class": (("set/a/1.png", "set/a/2.png"), "set", ("one class, 'a'", "two")),
    "one class in train": (("set/train/a/1.png",), "set", ("set/train has one class, 'a'",)),
    "an empty class": (
        (*(f"set/{name}" for name in BOTH), "set/train/c/notes.txt"),
        "set",
        ("class 'c' has no images", ".jpeg", "delete the folder"),
    ),
    "an empty class in val": (
        (*(f"set/{name}" for name in BOTH), "set/val/a/"),
        "set",
        ("class 'a' has no images", "set/val/a"),
    ),
    "val without classes": (
        (*(f"set/{name}" for name in BOTH), "set/val/1.png"),
        "set",
        ("set/val has no class folders", "delete it"),
    ),
    "a class of val only": (
        (*(f"set/{name}" for name in BOTH), "set/val/dgo/1.png"),
        "set",
        ("class 'dgo' is in", "but not in", "rename"),
    ),
    "a single image": (
        ("set/a/1.png", "set/a/2.png", "set/b/in/lonely.png"),
        "set",
        ("class 'b' has a single image", "lonely.png", "cannot be split"),
    ),
}


class TestWrongInput:
    @pytest.mark.parametrize("case", WRONG)
    def test_one_sentence_says_what_to_do(self, tmp_path: Path, case: str) -> None:
        files, root, said = WRONG[case]
        lay(tmp_path, *files)
        with pytest.raises(DataError) as caught:
            list_images(tmp_path / root)
        for words in said:
            assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
    def test_val_share(self, tmp_path: Path, share: float) -> None:
        with pytest.raises(DataError, match=r"val_share is .* above 0 and below 1"):
            list_images(tmp_path, val_share=share)

    def test_a_folder_that_may_not_be_listed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Not by chmod: the tests may run as root, whom it does not stop.
        lay(tmp_path, *many("a", 2), *many("b", 2))
        scan = os.scandir

        def refuse(path: str) -> object:
            if str(path).endswith("b"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(DataError, match="b cannot be listed: Permission denied"):
            list_images(tmp_path)
