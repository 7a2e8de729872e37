"""Packing: what is stored, what is left out, and that nothing half-done is ever taken for whole."""

from __future__ import annotations

import errno
import gzip
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bneck.data import pack as pack_module
from bneck.data.batches import eval_batches
from bneck.data.builtin import FASHION, fashion, fashion_sources
from bneck.data.folders import DataError, Listing, list_images
from bneck.data.images import read_square
from bneck.data.pack import Bad, Packed, open_pack, pack, stored_side
from bneck.specs.normalisation import IMAGENET

COLOURS = {"cat": (10, 20, 30), "dog": (200, 100, 50)}
REPO = Path(__file__).parents[1]


def dataset(root: Path, train: int = 6, val: int = 2) -> Listing:
    """Two classes of one colour each; the red of an image tells its number."""
    for split, count in (("train", train), ("val", val)):
        for name, (_, green, blue) in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (12, 10), (i, green, blue)).save(folder / f"{i:02d}.png")
    return list_images(root)


def spoil(listing: Listing, *positions: int) -> list[Path]:
    paths = [listing.train[position].path for position in positions]
    for path in paths:
        path.write_bytes(b"nothing to see")
    return paths


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def same(one: Packed, two: Packed) -> bool:
    return all(
        (a.images == b.images).all() and (a.labels == b.labels).all() and a.names == b.names
        for a, b in ((one.train, two.train), (one.val, two.val))
    )


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    return dataset(tmp_path / "set")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "pack"


@pytest.fixture
def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded since the test began."""
    seen: list[Path] = []

    def reading(path: Path, side: int) -> object:
        seen.append(path)
        return read_square(path, side)

    monkeypatch.setattr(pack_module, "read_square", reading)
    return seen


class TestContent:
    def test_images_labels_names(self, listing: Listing, folder: Path) -> None:
        packed = pack(listing, 7, folder)
        assert (packed.classes, packed.resolution, packed.side) == (("cat", "dog"), 7, 8)
        assert packed.train.images.shape == (12, 3, 8, 8)
        assert packed.val.images.shape == (4, 3, 8, 8)
        assert packed.train.labels.dtype == np.int64
        assert packed.train.labels.tolist() == [0] * 6 + [1] * 6
        assert packed.val.names == (
            "val/cat/00.png",
            "val/cat/01.png",
            "val/dog/00.png",
            "val/dog/01.png",
        )
        for i in range(6):
            assert (packed.train.images[i] == np.reshape((i, 20, 30), (3, 1, 1))).all()
            assert (packed.train.images[6 + i] == np.reshape((i, 100, 50), (3, 1, 1))).all()
        assert packed.bad == ()

    def test_pixels_are_mapped_not_loaded(self, listing: Listing, folder: Path) -> None:
        images = pack(listing, 7, folder).train.images
        assert isinstance(images, np.memmap)
        assert not images.flags.writeable
        assert left_in(folder) == ["pack.json", "train.u8", "val.u8"]

    @pytest.mark.parametrize(
        ("resolution", "side"), [(224, 256), (192, 219), (96, 110), (64, 73), (32, 37), (28, 32)]
    )
    def test_the_centre_is_seven_eighths(self, resolution: int, side: int) -> None:
        assert stored_side(resolution) == side

    def test_progress_counts_every_image(self, listing: Listing, folder: Path) -> None:
        told: list[tuple[int, int]] = []
        pack(listing, 7, folder, progress=lambda done, count: told.append((done, count)))
        assert told == [(i, 16) for i in range(1, 17)]

    @pytest.mark.skipif(sys.platform != "linux", reason="file names are unicode elsewhere")
    def test_names_need_not_be_unicode(self, tmp_path: Path, folder: Path) -> None:
        dataset(tmp_path / "set")
        odd = os.fsdecode(b"\xff\n.png")
        (tmp_path / "set/val/cat/00.png").rename(tmp_path / "set/val/cat" / odd)
        pack(list_images(tmp_path / "set"), 7, folder)
        assert f"val/cat/{odd}" in open_pack(folder).val.names


class TestAgain:
    def test_the_same_pack_is_only_opened(
        self, listing: Listing, folder: Path, count_reads: list[Path]
    ) -> None:
        first = pack(listing, 7, folder)
        assert len(count_reads) == 16
        assert same(first, pack(listing, 7, folder))
        assert same(first, open_pack(folder))
        assert len(count_reads) == 16

    def test_a_dataset_that_was_moved_is_the_same(
        self, tmp_path: Path, listing: Listing, folder: Path, count_reads: list[Path]
    ) -> None:
        pack(listing, 7, folder)
        shutil.move(tmp_path / "set", tmp_path / "elsewhere")
        pack(list_images(tmp_path / "elsewhere"), 7, folder)
        assert len(count_reads) == 16

    @pytest.mark.parametrize("change", ["resolution", "content", "time", "split"])
    def test_another_pack_replaces_it(
        self, listing: Listing, folder: Path, count_reads: list[Path], change: str
    ) -> None:
        before = pack(listing, 7, folder).fingerprint
        resolution = 14 if change == "resolution" else 7
        if change == "content":
            Image.new("RGB", (12, 10), (99, 0, 0)).save(listing.train[0].path)
        if change == "time":  # a file of the same size may hold another image
            os.utime(listing.train[0].path, (1, 1))
        if change == "split":
            listing = Listing(listing.classes, listing.val, listing.train)
        packed = pack(listing, resolution, folder)
        assert packed.fingerprint != before
        assert len(count_reads) == 32
        assert packed.side == stored_side(resolution)
        assert packed.train.images[0, 0, 0, 0] == (99 if change == "content" else 0)
        assert len(packed.train.labels) == (4 if change == "split" else 12)

    def test_two_at_once_make_one_pack(
        self, listing: Listing, folder: Path, count_reads: list[Path]
    ) -> None:
        made: list[Packed] = []
        threads = [
            threading.Thread(target=lambda: made.append(pack(listing, 7, folder))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert same(made[0], made[1])
        assert same(made[0], made[2])
        assert len(count_reads) == 16


class TestBadImages:
    def test_they_are_left_out_and_named(self, listing: Listing, folder: Path) -> None:
        (path,) = spoil(listing, 2)
        packed = pack(listing, 7, folder, bad_share=1 / 16)
        assert [entry.path for entry in packed.bad] == [path]
        assert "not an image" in packed.bad[0].reason
        assert packed.train.labels.tolist() == [0] * 5 + [1] * 6
        assert packed.train.images[:6, 0, 0, 0].tolist() == [0, 1, 3, 4, 5, 0]
        assert "train/cat/02.png" not in packed.train.names
        assert open_pack(folder).bad == (Bad(path, packed.bad[0].reason),)

    def test_one_in_a_hundred_is_allowed_two_are_not(self, tmp_path: Path, folder: Path) -> None:
        listing = dataset(tmp_path / "set", train=40, val=10)
        spoil(listing, 0)
        assert len(pack(listing, 7, folder).bad) == 1
        spoil(listing, 1)
        with pytest.raises(DataError, match=r"2 of 100 images \(2\.0%\).* allowed 1\.0%"):
            pack(listing, 7, folder)

    def test_too_many_name_the_first_three(self, listing: Listing, folder: Path) -> None:
        paths = spoil(listing, 0, 1, 7, 9)
        with pytest.raises(DataError) as caught:
            pack(listing, 7, folder)
        said = str(caught.value)
        assert said.startswith("4 of 16 images (25.0%) cannot be read")
        assert all(str(path) in said for path in paths[:3])
        assert str(paths[3]) not in said
        assert (
            "and 1 more; replace or delete them, or raise --bad-share of bneck train or bneck search"
            in said
        )
        assert left_in(folder) == []

    def test_a_stricter_share_holds_for_a_pack_that_is_there(
        self, listing: Listing, folder: Path
    ) -> None:
        spoil(listing, 0)
        pack(listing, 7, folder, bad_share=0.5)
        with pytest.raises(DataError, match="1 of 16"):
            pack(listing, 7, folder, bad_share=0)

    def test_a_file_that_vanished_is_bad(self, listing: Listing, folder: Path) -> None:
        listing.val[0].path.unlink()
        packed = pack(listing, 7, folder, bad_share=0.1)
        assert packed.bad == (Bad(listing.val[0].path, "there is no such file"),)

    def test_a_class_without_one_good_image(self, listing: Listing, folder: Path) -> None:
        spoil(listing, *range(6, 12))
        with pytest.raises(DataError, match="no training image of class 'dog'"):
            pack(listing, 7, folder, bad_share=0.5)

    def test_val_without_one_good_image(self, listing: Listing, folder: Path) -> None:
        for item in listing.val:
            item.path.write_bytes(b"")
        with pytest.raises(DataError, match="no validation image can be read"):
            pack(listing, 7, folder, bad_share=0.5)


class TestWrongInput:
    @pytest.mark.parametrize("resolution", [0, -1, 1.5, True, "64"])
    def test_resolution(self, listing: Listing, folder: Path, resolution: int) -> None:
        with pytest.raises(DataError, match=r"resolution is .* whole number"):
            pack(listing, resolution, folder)

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
    def test_bad_share(self, listing: Listing, folder: Path, share: float) -> None:
        with pytest.raises(DataError, match=r"bad_share is .* from 0 to 1"):
            pack(listing, 7, folder, bad_share=share)

    def test_a_listing_without_val(self, listing: Listing, folder: Path) -> None:
        with pytest.raises(DataError, match="no images for train or for val"):
            pack(Listing(listing.classes, listing.train, ()), 7, folder)

    def test_the_folder_is_a_file(self, listing: Listing, tmp_path: Path) -> None:
        (tmp_path / "taken").touch()
        with pytest.raises(DataError, match="taken: File exists; it needs 1 MB there"):
            pack(listing, 7, tmp_path / "taken")

    def test_no_pack_to_open(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no pack; make one"):
            open_pack(tmp_path)
        with pytest.raises(DataError, match="holds no pack; make one"):
            open_pack(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("pack.json", b"{"),
            ("pack.json", b"\xff\xfe"),
            ("pack.json", b"[]"),
            ("pack.json", b'{"bneck_pack": 1}'),
            ("pack.json", b'{"bneck_pack": 2}'),
            ("train.u8", b"too short"),
            ("train.u8", b"too long" * 999),
        ],
    )
    def test_a_damaged_pack_is_refused_and_made_again(
        self, listing: Listing, folder: Path, name: str, content: bytes
    ) -> None:
        whole = pack(listing, 7, folder)
        (folder / name).unlink()  # so that the open map keeps the file it has
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match="pack again"):
            open_pack(folder)
        assert same(pack(listing, 7, folder), whole)

    def test_missing_pixels(self, listing: Listing, folder: Path) -> None:
        pack(listing, 7, folder)
        (folder / "val.u8").unlink()
        with pytest.raises(DataError, match="damaged"):
            open_pack(folder)


class TestKilled:
    def test_a_full_disk_leaves_nothing_behind(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listing = dataset(tmp_path / "set")
        append, written = pack_module._append, 0

        def fill(file: object, pixels: object) -> None:
            nonlocal written
            written += 1
            if written > 13:  # within val; train is done
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            append(file, pixels)  # type: ignore[arg-type]

        monkeypatch.setattr(pack_module, "_append", fill)
        with pytest.raises(DataError) as caught:
            pack(listing, 224, folder)
        # 16 images of 3 x 256 x 256 bytes are 3.1 MB.
        assert str(caught.value) == (
            f"the pack cannot be written into {folder}: No space left on device; it needs 3 MB "
            "there: make room, or choose another folder"
        )
        assert left_in(folder) == []
        monkeypatch.undo()
        assert len(pack(listing, 7, folder).train.labels) == 12

    def test_a_failed_pack_leaves_the_old_one_whole(self, listing: Listing, folder: Path) -> None:
        old = pack(listing, 7, folder)
        spoil(listing, 0, 1)
        with pytest.raises(DataError):
            pack(listing, 7, folder)
        assert same(open_pack(folder), old)
        assert left_in(folder) == ["pack.json", "train.u8", "val.u8"]

    def test_an_interrupt_leaves_nothing_behind(self, listing: Listing, folder: Path) -> None:
        def stop(done: int, count: int) -> None:
            if done == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pack(listing, 7, folder, progress=stop)
        assert left_in(folder) == []

    def test_a_killed_pack_is_made_again(self, listing: Listing, folder: Path) -> None:
        program = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from bneck.data.folders import list_images\n"
            "from bneck.data.pack import pack\n"
            "die = lambda done, count: done == 14 and os.kill(os.getpid(), signal.SIGKILL)\n"
            "pack(list_images(Path(sys.argv[1])), 7, Path(sys.argv[2]), progress=die)\n"
        )
        root = listing.train[0].path.parents[2]
        died = subprocess.run(
            [sys.executable, "-c", program, root, folder], check=False, timeout=60
        )
        assert died.returncode == -signal.SIGKILL
        assert left_in(folder) == ["train.u8.part", "val.u8.part"]
        with pytest.raises(DataError, match="holds no pack"):
            open_pack(folder)
        assert len(pack(listing, 7, folder).train.labels) == 12
        assert left_in(folder) == ["pack.json", "train.u8", "val.u8"]

    @pytest.mark.parametrize("done", [0, 1, 2])
    def test_killed_between_the_renames(
        self, listing: Listing, folder: Path, monkeypatch: pytest.MonkeyPatch, done: int
    ) -> None:
        pack(listing, 14, folder)
        replace, renamed = os.replace, 0

        def stop(source: Path, target: Path) -> None:
            nonlocal renamed
            if renamed == done:
                raise KeyboardInterrupt
            renamed += 1
            replace(source, target)

        monkeypatch.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(listing, 7, folder)
        monkeypatch.undo()
        with pytest.raises(DataError, match="holds no pack"):
            open_pack(folder)
        assert pack(listing, 7, folder).side == 8


class TestFashion:
    def test_it_is_small_balanced_and_licensed(self) -> None:
        arrays = fashion()
        assert arrays["train_images"].shape == (5000, 28, 28)
        assert arrays["test_images"].shape == (1000, 28, 28)
        assert np.bincount(arrays["train_labels"]).tolist() == [500] * 10
        assert np.bincount(arrays["test_labels"]).tolist() == [100] * 10
        shipped = Path(pack_module.__file__).parent
        assert (shipped / "fashion.npz").stat().st_size < 3_000_000
        notice = (shipped / "fashion-LICENSE.txt").read_text(encoding="ascii")
        assert "Zalando SE" in notice
        assert "Permission is hereby granted" in notice

    def test_evaluation_sees_exactly_the_original(self, folder: Path) -> None:
        packed = pack(fashion_sources(), 28, folder)
        assert (packed.side, packed.classes, len(packed.classes)) == (32, FASHION, 10)
        arrays = fashion()
        (seen, labels) = next(eval_batches(packed.val, np.arange(1000), resolution=28, batch=1000))
        for channel in range(3):
            pixels = (seen[:, channel] * IMAGENET.std[channel] + IMAGENET.mean[channel]) * 255
            assert np.abs(pixels.numpy() - arrays["test_images"]).max() < 1e-3
        assert (labels.numpy() == arrays["test_labels"]).all()
        assert (packed.train.labels == arrays["train_labels"]).all()
        assert packed.train.names[7] == "train/0007"

    def test_it_is_written_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert pack(fashion_sources(), 16, folder).side == 18
        monkeypatch.setattr(pack_module, "_write", None)
        assert pack(fashion_sources(), 16, folder).train.images.shape == (5000, 3, 18, 18)
        assert json.loads((folder / "pack.json").read_text())["resolution"] == 16

    def test_the_cut_takes_the_first_of_each_class(self, tmp_path: Path) -> None:
        script = runpy.run_path(str(REPO / "scripts/cut_fashion_mnist.py"))
        labels = np.array([1, 0, 1, 1, 0, 0], np.uint8)
        images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
        for prefix in ("train", "t10k"):
            for name, array in (("images-idx3", images), ("labels-idx1", labels)):
                head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
                content = gzip.compress(head + array.tobytes())
                (tmp_path / f"{prefix}-{name}-ubyte.gz").write_bytes(content)
        target = tmp_path / "cut.npz"
        script["cut"](tmp_path, target, {"train": ("train", 2), "test": ("t10k", 1)})
        with np.load(target, allow_pickle=False) as cut:
            assert cut["train_labels"].tolist() == [1, 0, 1, 0]
            assert (cut["train_images"] == images[[0, 1, 2, 4]]).all()
            assert cut["test_labels"].tolist() == [1, 0]

    def test_the_shipped_file_is_the_cut(self, tmp_path: Path) -> None:
        script = runpy.run_path(str(REPO / "scripts/cut_fashion_mnist.py"))
        if not script["SOURCE"].is_dir():
            pytest.skip("Debian's dataset-fashion-mnist is not installed")
        labels = script["read_idx"](script["SOURCE"] / "t10k-labels-idx1-ubyte.gz", 1)
        images = script["read_idx"](script["SOURCE"] / "t10k-images-idx3-ubyte.gz", 3)
        kept = script["first_of_each"](labels, 100)
        assert (images[kept] == fashion()["test_images"]).all()
