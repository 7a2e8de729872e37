"""Tar shards and Hugging Face datasets: found, packed, streamed; and what is wrong with them."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bneck.data.batches import eval_batches, train_batches
from bneck.data.find import find_images
from bneck.data.folders import DataError, list_images
from bneck.data.pack import pack
from bneck.data.sources import Source
from bneck.data.stream import UNREADABLE, Stream, ahead
from bneck.data.vary import Augment
from bneck.specs.normalisation import IMAGENET

PLAN: dict[str, Any] = {"resolution": 32, "batch": 16, "seed": 1, "epoch": 2}


def jpeg(colour: tuple[int, int, int] = (200, 60, 50), size: tuple[int, int] = (48, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def labelled(count: int, classes: int = 2, first: int = 0) -> dict[str, bytes]:
    """`count` images as WebDataset has them, labels 0, 1, ..., 0, 1, ..."""
    files = {}
    for i in range(first, first + count):
        files[f"{i:04d}.jpg"] = jpeg((10 * i % 256, 99, 30))
        files[f"{i:04d}.cls"] = str(i % classes).encode()
    return files


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_tar(tmp_path / "train-000.tar", labelled(6))
    write_tar(tmp_path / "train-001.tar", labelled(4, first=6))
    write_tar(tmp_path / "val-000.tar", labelled(4))
    return tmp_path


class TestShards:
    def test_splits_labels_and_bytes(self, shards: Path) -> None:
        found = find_images(shards)
        assert (found.kind, found.classes) == ("shards", ("0", "1"))
        assert found.train.labels.tolist() == [0, 1] * 5
        assert found.val.labels.tolist() == [0, 1] * 2
        assert found.train.names[7] == "0007.jpg"
        assert found.train.read(7) == jpeg((70, 99, 30))

    def test_names_of_classes_and_json_labels(self, tmp_path: Path) -> None:
        note = json.dumps({"label": 1}).encode()
        files = {"a.jpg": jpeg(), "a.json": note, "b.png": jpeg(), "b.cls": b"cat\n"}
        write_tar(tmp_path / "train.tar", files)
        write_tar(tmp_path / "val.tar", {"c.jpg": jpeg(), "c.cls": b"dog"})
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
        found = find_images(tmp_path)
        assert found.classes == ("cat", "dog")
        assert (found.train.labels.tolist(), found.val.labels.tolist()) == ([1, 0], [1])

    def test_one_tar_of_folders(self, tmp_path: Path) -> None:
        names = ("train/dog/1.jpg", "train/cat/1.jpg", "val/cat/2.jpg", "train/dog/3.JPEG")
        tar = write_tar(tmp_path / "pets.tar", dict.fromkeys(names, jpeg()))
        found = find_images(tar)
        assert found.classes == ("cat", "dog")
        assert (found.train.labels.tolist(), found.val.labels.tolist()) == ([1, 0, 1], [0])

    def test_without_val_some_of_every_class_are_split_off(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "all.tar", labelled(20))
        found = find_images(tmp_path, val_share=0.2)
        assert (len(found.train.labels), sorted(found.val.labels)) == (16, [0, 0, 1, 1])
        assert set(found.train.names).isdisjoint(found.val.names)
        assert find_images(tmp_path, val_share=0.2).val.names == found.val.names
        assert found.val.read(0) == jpeg((10 * int(found.val.names[0][:4]) % 256, 99, 30))

    def test_behind_a_url(self, shards: Path) -> None:
        fsspec = pytest.importorskip("fsspec")
        store = fsspec.filesystem("memory")
        for path in shards.iterdir():
            store.pipe(f"/{shards.name}/{path.name}", path.read_bytes())
        found = find_images(f"memory://{shards.name}")
        assert found.train.labels.tolist() == [0, 1] * 5
        assert found.train.read(7) == jpeg((70, 99, 30))

    def test_packed_they_give_what_folders_give(self, pictures: Path, tmp_path: Path) -> None:
        files = {
            path.relative_to(pictures).as_posix(): path.read_bytes()
            for path in sorted(pictures.rglob("*.png"))
        }
        tar = write_tar(tmp_path / "pictures.tar", files)
        ours = pack(find_images(tar), 32, tmp_path / "ours")
        theirs = pack(list_images(pictures), 32, tmp_path / "theirs")
        assert ours.classes == theirs.classes
        assert np.array_equal(ours.train.images, theirs.train.images)
        assert np.array_equal(ours.val.labels, theirs.val.labels)


class TestBadShards:
    @pytest.mark.parametrize("left", [300, 1500, 5000, None])
    def test_a_truncated_one_is_named(self, shards: Path, left: int | None) -> None:
        path = shards / "train-001.tar"
        with tarfile.open(path) as tar:
            tar.getmembers()
            end = tar.offset  # every image is whole, and only the end mark is missing
        path.write_bytes(path.read_bytes()[: left or end])
        with pytest.raises(DataError, match=r"the shard .*train-001\.tar is truncated"):
            find_images(shards)

    def test_a_compressed_one_is_refused(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "train.tar", "w:gz"):
            pass
        with pytest.raises(DataError, match="is truncated, compressed or no tar file"):
            find_images(tmp_path)

    def test_an_image_without_a_label(self, shards: Path) -> None:
        write_tar(shards / "train-002.tar", {"lost.jpg": jpeg()})
        with pytest.raises(DataError, match=r"lost\.jpg in .*train-002\.tar has no label; put a"):
            find_images(shards)

    def test_labels_out_of_range(self, shards: Path) -> None:
        (shards / "classes.txt").write_text("cat\ndog\n")
        write_tar(shards / "train-002.tar", {"odd.jpg": jpeg(), "odd.cls": b"7"})
        with pytest.raises(
            DataError, match=r"odd\.jpg in train .* has label 7, and there are 2 cl"
        ):
            find_images(shards)
        write_tar(shards / "train-002.tar", {"odd.jpg": jpeg(), "odd.cls": b"-1"})
        with pytest.raises(DataError, match="has label -1"):
            find_images(shards)

    def test_a_class_in_val_but_not_in_train(self, shards: Path) -> None:
        write_tar(shards / "val-001.tar", {"new.jpg": jpeg(), "new.cls": b"2"})
        with pytest.raises(DataError, match=r"class '2' of .* is in val but not in train"):
            find_images(shards)

    def test_one_class_only(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "train.tar", labelled(4, classes=1))
        with pytest.raises(DataError, match="has one class, '0'; at least two are needed"):
            find_images(tmp_path)

    def test_a_name_that_is_no_class(self, shards: Path) -> None:
        (shards / "classes.txt").write_text("0\n1\n")
        write_tar(shards / "train-002.tar", {"odd.jpg": jpeg(), "odd.cls": b"horse"})
        with pytest.raises(DataError, match="has label 'horse', which is none of the 2 classes"):
            find_images(shards)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"there is no file .*none\.tar; check the path"):
            find_images(tmp_path / "none.tar")


class TestTables:
    @staticmethod
    def table(labels: list[Any], names: list[str] | None = None) -> Any:
        pa = pytest.importorskip("pyarrow")
        rows = [{"bytes": jpeg((i, 50, 60)), "path": None} for i in range(len(labels))]
        table = pa.table({"image": rows, "label": labels})
        if names is None:
            return table
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        info = json.dumps({"info": {"features": features}})
        return table.replace_schema_metadata({"huggingface": info})

    def test_parquet(self, tmp_path: Path) -> None:
        table = self.table([0, 1, 1, 0, 1], ["cat", "dog"])
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(table, tmp_path / "train-00000-of-00001.parquet", row_group_size=2)
        pq.write_table(table.slice(0, 2), tmp_path / "validation-00000-of-00001.parquet")
        found = find_images(tmp_path)
        assert (found.kind, found.classes) == ("parquet", ("cat", "dog"))
        assert found.train.labels.tolist() == [0, 1, 1, 0, 1]
        assert found.val.labels.tolist() == [0, 1]
        assert [found.train.read(i) for i in (4, 0, 3)] == [jpeg((i, 50, 60)) for i in (4, 0, 3)]

    def test_a_dataset_saved_to_disk(self, tmp_path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        for split, count in (("train", 6), ("test", 3)):
            table = self.table(["b", "a", "b"] * (count // 3))
            (tmp_path / split).mkdir()
            path = tmp_path / split / "data-00000-of-00001.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
                out.write_table(table)
        found = find_images(tmp_path)
        assert (found.kind, found.classes) == ("arrow", ("a", "b"))
        assert found.train.labels.tolist() == [1, 0, 1, 1, 0, 1]
        assert found.val.read(2) == jpeg((2, 50, 60))

    def test_columns_that_are_missing_are_named(self, tmp_path: Path) -> None:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"text": ["a"], "stars": [3]}), tmp_path / "train.parquet")
        with pytest.raises(DataError, match="has the columns text, stars; one of encoded images"):
            find_images(tmp_path)

    def test_labels_out_of_range_and_torn_files(self, tmp_path: Path) -> None:
        pq = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "train.parquet"
        pq.write_table(self.table([0, 1, 2], ["cat", "dog"]), path)
        with pytest.raises(DataError, match=r"train\.parquet/2 in train .* has label 2"):
            find_images(tmp_path)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(DataError, match="is damaged or unreadable"):
            find_images(tmp_path)


def pixels(image: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation of (3, H, W): levels from 0 to 255."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
    return (image * std + mean) * 255


class TestStream:
    @pytest.fixture
    def source(self, pictures: Path) -> Source:
        return find_images(pictures).train

    def test_the_same_crops_whatever_the_threads_and_the_company(self, source: Source) -> None:
        everything = np.arange(len(source.labels))

        def crops(threads: int, indices: np.ndarray, **plan: Any) -> dict[int, torch.Tensor]:
            found: dict[int, torch.Tensor] = {}
            split = Stream(source, threads=threads)
            order = np.random.default_rng((1, 2, 0)).permutation(indices)
            batches = train_batches(split, indices, augment=Augment(), **{**PLAN, **plan})
            for images, _ in batches:
                for image in images:
                    found[int(order[len(found)])] = image
            return found

        one, eight = crops(1, everything), crops(8, everything)
        assert len(one) == 96
        assert all(torch.equal(one[i], eight[i]) for i in one)
        few = crops(3, everything[:32], batch=8)
        assert all(torch.equal(one[i], few[i]) for i in few)
        later = crops(1, everything, epoch=3)
        assert not any(torch.equal(one[i], later[i]) for i in list(one)[:5])

    def test_processes_share_a_batch(self, source: Source) -> None:
        split, indices = Stream(source, threads=1), np.arange(96)
        whole = [x for x, _ in train_batches(split, indices, augment=Augment(), **PLAN)]
        halves = [
            [x for x, _ in train_batches(split, indices, augment=Augment(), share=(k, 2), **PLAN)]
            for k in (0, 1)
        ]
        for i, images in enumerate(whole):
            assert torch.equal(torch.cat([halves[0][i], halves[1][i]]), images)

    def test_it_can_begin_with_any_batch(self, source: Source) -> None:
        split, indices = Stream(source, threads=1), np.arange(96)
        whole = [y.tolist() for _, y in train_batches(split, indices, augment=Augment(), **PLAN)]
        rest = train_batches(split, indices, augment=Augment(), first=4, **PLAN)
        assert [y.tolist() for _, y in rest] == whole[4:]

    def test_centres_are_pillows_of_the_same_square(self, pictures: Path) -> None:
        val = find_images(pictures).val
        ((images, labels),) = eval_batches(Stream(val), np.arange(30), resolution=32, batch=30)
        assert labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
        for i in range(0, 30, 7):
            with Image.open(val.names[i]) as image:
                side = round(min(image.size) * 0.875)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                square = image.crop((left, top, left + side, top + side))
                wanted = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR))
            gap = pixels(images[i]) - torch.from_numpy(wanted.copy()).permute(2, 0, 1)
            assert float(gap.abs().max()) < 1.5

    def test_bad_images_are_left_out_named_and_counted(self, source: Source) -> None:
        data = [source.read(i) for i in range(96)]
        data[5], data[9] = b"", jpeg()[:200]
        spoiled = Source(source.names, source.labels, lambda i: data[i])
        split = Stream(spoiled, bad_share=0.05, threads=2)
        labels = [y for _, y in train_batches(split, np.arange(96), augment=Augment(), **PLAN)]
        assert int((torch.cat(labels) == UNREADABLE).sum()) == 2
        assert sorted(split.bad) == [5, 9]
        assert split.bad[5] == "the file is empty"
        kept = torch.cat(
            [y for _, y in eval_batches(split, np.arange(96), resolution=32, batch=50)]
        )
        assert len(kept) == 94
        strict = Stream(spoiled, bad_share=0.01, threads=2)
        with pytest.raises(DataError, match=r"^1 of 96|^2 of 96 images cannot be read, more than"):
            list(train_batches(strict, np.arange(96), augment=Augment(), **PLAN))

    def test_a_large_jpeg_is_decoded_smaller_and_nearly_the_same(self) -> None:
        rng = np.random.default_rng(0)
        smooth = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((800, 600))
        file = io.BytesIO()
        smooth.save(file, "JPEG", quality=92)
        source = Source(["a"], np.array([0]), lambda _: file.getvalue())
        ((image, _),) = eval_batches(Stream(source), np.arange(1), resolution=64, batch=1)
        exact = smooth.crop((137, 37, 662, 562)).resize((64, 64), Image.Resampling.BILINEAR)
        wanted = torch.from_numpy(np.asarray(exact).copy()).permute(2, 0, 1)
        assert float((pixels(image[0]) - wanted).abs().mean()) < 2.0

    def test_a_turned_photo_stands_upright(self) -> None:
        left_red = Image.new("RGB", (60, 60), (0, 0, 255))
        left_red.paste((255, 0, 0), (0, 0, 30, 60))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes top
        file = io.BytesIO()
        left_red.save(file, "JPEG", exif=exif, quality=95)
        source = Source(["a"], np.array([0]), lambda _: file.getvalue())
        ((image, _),) = eval_batches(Stream(source), np.arange(1), resolution=32, batch=1)
        assert image[0, 0, 3].mean() > 1.5 > image[0, 0, -4].mean() + 2

    def test_what_is_made_ahead_is_the_same_and_stops_with_its_user(self) -> None:
        assert list(ahead(iter(range(7)))) == list(range(7))
        before = threading.active_count()

        def endless() -> Iterator[int]:
            while True:
                yield 1

        items = ahead(endless())
        assert next(items) == 1
        items.close()
        assert threading.active_count() <= before
