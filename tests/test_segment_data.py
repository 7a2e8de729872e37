"""Masks and pairs: layouts, class lists, ids and colours, what cannot be, and what training sees."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bneck.data.folders import DataError
from bneck.tasks.segment.intake.class_list import read_labels
from bneck.tasks.segment.masks import (
    CITYSCAPES,
    IGNORED,
    Labels,
    cityscapes_labels,
    labels,
    read_mask,
)
from bneck.tasks.segment.pairs import list_pairs
from bneck.tasks.segment.scenes import Scenes, Vary, as_batch, crop_batches

THREE = labels([("sky", None), ("road", None), ("car", None)], source="the test")


def save(path: Path, values: object, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


def pair(root: Path, image: str, mask: str, *, size: tuple[int, int] = (6, 8)) -> None:
    rng = np.random.default_rng(len(image))
    save(root / image, rng.integers(0, 256, (*size, 3)))
    save(root / mask, rng.integers(0, 3, size))


def listed(root: Path, text: str = "sky\nroad\ncar\n") -> Path:
    (root / "classes.txt").write_text(text, encoding="utf-8")
    return root


class TestLayouts:
    def test_camvid(self, tmp_path: Path) -> None:
        for split in ("train", "val", "test"):
            pair(tmp_path, f"{split}/a.png", f"{split}annot/a.png")
        pair(tmp_path, "train/b.jpg", "trainannot/b_L.png")
        found = list_pairs(listed(tmp_path))
        assert found.layout == "camvid"
        assert {name: len(pairs) for name, pairs in found.splits.items()} == {
            "train": 2, "val": 1, "test": 1,
        }  # fmt: skip
        assert found.split("train")[1].mask == tmp_path / "trainannot/b_L.png"
        with pytest.raises(DataError, match="no split 'dev'; the data has train, val, test"):
            found.split("dev")

    @pytest.mark.parametrize(
        "form", ["{split}/images/{name}", "images/{split}/{name}", "Images/{split}/deep/{name}"]
    )
    def test_pairs_in_folders(self, tmp_path: Path, form: str) -> None:
        for split in ("train", "valid"):
            image = form.format(split=split, name="x.png")
            mask = image.replace("images", "labels").replace("Images", "annotations")
            pair(tmp_path, image, mask.replace("x.png", "x_mask.png"))
        found = list_pairs(listed(tmp_path))
        assert {name: len(pairs) for name, pairs in found.splits.items()} == {"train": 1, "val": 1}

    def test_pairs_without_splits_are_split_by_a_hash(self, tmp_path: Path) -> None:
        for i in range(10):
            pair(tmp_path, f"images/{i}.png", f"masks/{i}.png")
        first = list_pairs(listed(tmp_path))
        assert (len(first.splits["train"]), len(first.splits["val"])) == (8, 2)
        assert list_pairs(tmp_path) == first
        assert list_pairs(tmp_path, seed=1).splits["val"] != first.splits["val"]

    @pytest.mark.parametrize("ending", ["labelIds", "labelTrainIds"])
    def test_cityscapes(self, tmp_path: Path, ending: str) -> None:
        for split in ("train", "val"):
            name = f"{split}/ulm/ulm_000001_000019"
            pair(
                tmp_path,
                f"leftImg8bit/{name}_leftImg8bit.png",
                f"gtFine/{name}_gtFine_{ending}.png",
            )
        pair(tmp_path, "leftImg8bit/test/bonn/bonn_0_0_leftImg8bit.png", "elsewhere.png")
        found = list_pairs(tmp_path)
        assert found.layout == "cityscapes"
        assert list(found.splits) == ["train", "val"]
        assert found.labels == cityscapes_labels(train_ids=ending == "labelTrainIds")
        (tmp_path / f"gtFine/val/ulm/ulm_000001_000019_gtFine_{ending}.png").unlink()
        with pytest.raises(DataError, match=r"1 image has no mask: for .*ulm_000001_000019_left"):
            list_pairs(tmp_path)

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no folder"):
            list_pairs(tmp_path / "none")
        with pytest.raises(DataError, match=r"has no images with masks; it must hold 'images' and"):
            list_pairs(tmp_path)
        pair(tmp_path, "images/a.png", "masks/a.png")
        with pytest.raises(DataError, match="has a single image"):
            list_pairs(listed(tmp_path))
        pair(tmp_path, "images/b.png", "masks/b.png")
        save(tmp_path / "images/c.png", np.zeros((6, 8, 3)))
        with pytest.raises(
            DataError, match=r"1 image has no mask: for .*c.png there is no .*c.png"
        ):
            list_pairs(tmp_path)
        save(tmp_path / "images/d.png", np.zeros((6, 8, 3)))
        with pytest.raises(DataError, match="2 images have no mask"):
            list_pairs(tmp_path)
        for name in ("c", "d"):
            (tmp_path / f"images/{name}.png").unlink()
        (tmp_path / "classes.txt").unlink()
        with pytest.raises(DataError, match=r"has no class list; write .*classes.txt"):
            list_pairs(tmp_path)
        with pytest.raises(DataError, match=r"class list .*other.txt cannot be read"):
            list_pairs(tmp_path, classes=tmp_path / "other.txt")


class TestClassLists:
    @pytest.mark.parametrize(
        "text",
        [
            "sky 1 2 3\nroad 4 5 6\n",
            "1 2 3\tsky\n4 5 6\t\troad\n",
            "name,r,g,b\nsky,1,2,3\nroad,4,5,6\n",
            "\n# two\nsky, 1, 2, 3  # above\n\nroad, 4, 5, 6",
        ],
    )
    def test_all_forms_of_a_line(self, tmp_path: Path, text: str) -> None:
        found = read_labels(listed(tmp_path, text) / "classes.txt")
        assert found.names == ("sky", "road")
        assert found.colours == ((1, 2, 3), (4, 5, 6))
        assert found.known

    def test_void_classes_are_ignored_and_later_ids_keep_their_meaning(
        self, tmp_path: Path
    ) -> None:
        found = read_labels(
            listed(tmp_path, "Sky\nVoid\nTraffic light\nrest\n") / "classes.txt", ignore=[3]
        )
        assert found.names == ("Sky", "Traffic light")
        assert found.stored == {0: 0, 1: IGNORED, 2: 1, 3: IGNORED, 255: IGNORED}
        assert list(found.ids()[:2]) == [0, 2]
        assert not found.known
        assert len(set(found.colours)) == 2

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("sky\nsky\n", "has 'sky' twice"),
            ("void\n", "has 0 classes"),
            ("", "has 0 classes"),
            ("sky 1 2 300\n", "line 1 of the class list .* is 'sky 1 2 300'"),
            ("ok\n7\n", "line 2 of the class list"),
            ("sky 1 2 3\nroad\n", "gives some classes a color"),
            ("sky 1 2 3\nroad 1 2 3\n", "has one color twice"),
            ("\n".join(f"c{i}" for i in range(300)), "has 300 classes; from 1 to 255"),
        ],
    )
    def test_bad_lists(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_labels(listed(tmp_path, text) / "classes.txt")

    def test_colours_made_up_are_all_different(self) -> None:
        made = labels([(str(i), None) for i in range(254)], source="x").colours
        assert len(set(made)) == 254

    def test_cityscapes_ids_go_back_and_forth(self) -> None:
        known = cityscapes_labels()
        for number, (label, name, _) in enumerate(CITYSCAPES):
            assert known.stored[label] == number
            assert known.ids()[number] == label
            assert known.names[number] == name
        assert sum(v != IGNORED for v in known.stored.values()) == 19

    def test_cityscapes_are_those_of_its_scripts(self) -> None:
        scripts = pytest.importorskip("cityscapesscripts.helpers.labels")
        wanted = {
            x.trainId: (x.id, x.name, x.color) for x in scripts.labels if 0 <= x.trainId < 255
        }
        assert wanted == dict(enumerate(CITYSCAPES))


class TestMasks:
    @pytest.mark.parametrize("mode", [None, "RGB", "P", "LA", "RGBA"])
    def test_ids_in_every_kind_of_file(self, tmp_path: Path, mode: str | None) -> None:
        values = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
        if mode == "P":
            image = Image.fromarray(values, "P")
            image.putpalette([9, 9, 9] * 256)
            image.save(tmp_path / "m.png")
        else:
            save(tmp_path / "m.png", values, mode)
        assert read_mask(tmp_path / "m.png", THREE).tolist() == values.tolist()

    def test_sixteen_and_one_bit_files(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 2], [1, 255]], np.uint16)).save(tmp_path / "m.png")
        assert read_mask(tmp_path / "m.png", THREE).tolist() == [[0, 2], [1, 255]]
        Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
        assert read_mask(tmp_path / "b.png", THREE).tolist() == [[1, 0]]
        Image.fromarray(np.array([[0, 700]], np.uint16)).save(tmp_path / "m.png")
        with pytest.raises(DataError, match="holds id 700, and the class list has ids 0 to 2"):
            read_mask(tmp_path / "m.png", THREE)

    def test_an_ignored_id_may_be_one_that_an_8_bit_file_cannot_hold(self, tmp_path: Path) -> None:
        known = labels([("sky", None), ("road", None)], ignore=[65535], source="the test")
        assert read_mask(save(tmp_path / "m.png", [[0, 1]]), known).tolist() == [[0, 1]]

    def test_colours_are_converted_where_the_palette_is_known(self, tmp_path: Path) -> None:
        known = labels(
            [("sky", (9, 8, 7)), ("void", (0, 0, 0)), ("road", (200, 0, 1))], source="the test"
        )
        path = save(tmp_path / "m.png", [[[9, 8, 7], [0, 0, 0], [200, 0, 1]]])
        assert read_mask(path, known).tolist() == [[0, IGNORED, 1]]
        with pytest.raises(
            DataError, match="holds colors, and no palette is known; store class ids"
        ):
            read_mask(path, THREE)
        path = save(tmp_path / "n.png", [[[9, 8, 7], [9, 8, 6]]])
        with pytest.raises(DataError, match="has the color 9 8 6, which no class of the list has"):
            read_mask(path, known)

    def test_what_a_mask_may_not_be(self, tmp_path: Path) -> None:
        path = save(tmp_path / "m.png", [[0, 1], [2, 3]])
        with pytest.raises(DataError, match=r"holds id 3, and .* ids 0 to 2; .* or --ignore 3"):
            read_mask(path, THREE)
        with pytest.raises(
            DataError, match="has 2 x 2 pixels and its image 7 x 5; they must be equal"
        ):
            read_mask(path, THREE, size=(5, 7))
        with pytest.raises(DataError, match="is a JPEG file, whose compression invents ids"):
            read_mask(save(tmp_path / "m.jpg", np.zeros((8, 8))), THREE)
        (tmp_path / "t.png").write_bytes(b"text")
        with pytest.raises(DataError, match=r"mask .*t.png cannot be read"):
            read_mask(tmp_path / "t.png", THREE)


class TestScenes:
    def scenes(self, root: Path, count: int = 4, **more: object) -> Scenes:
        for i in range(count):
            pair(root, f"train/{i}.png", f"trainannot/{i}.png", size=(20 + i, 30))
            pair(root, f"val/{i}.png", f"valannot/{i}.png", size=(20 + i, 30))
        return Scenes(list_pairs(listed(root)).split("train"), THREE, **more)  # type: ignore[arg-type]

    def test_images_and_masks_come_at_the_asked_size(self, tmp_path: Path) -> None:
        image, mask = self.scenes(tmp_path).read(3)
        assert (image.shape, mask.shape) == ((23, 30, 3), (23, 30))
        image, mask = self.scenes(tmp_path, size=(10, 12)).read(3)
        assert (image.shape, mask.shape) == ((10, 12, 3), (10, 12))
        image, mask = self.scenes(tmp_path, size=(10, 12), whole_masks=True).read(3)
        assert (image.shape, mask.shape) == ((10, 12, 3), (23, 30))
        assert as_batch(image).shape == (1, 3, 10, 12)

    def test_a_survey_counts_pixels_and_finds_masks_where_all_is_ignored(
        self, tmp_path: Path
    ) -> None:
        scenes = self.scenes(tmp_path)
        save(tmp_path / "trainannot/2.png", np.full((22, 30), 255))
        for i, number in ((0, 0), (1, 0), (3, 1)):
            save(tmp_path / f"trainannot/{i}.png", np.full((20 + i, 30), number))
        found = scenes.survey()
        assert found.pixels.tolist() == [30 * 41, 30 * 23, 0]
        assert found.empty == (2,)
        assert found.weights() == pytest.approx((32 / 41, 32 / 23, 0))
        for i in range(4):
            save(tmp_path / f"trainannot/{i}.png", np.full((20 + i, 30), 255))
        with pytest.raises(DataError, match="all pixels of all 4 masks are ignored"):
            Scenes(scenes.pairs, THREE).survey()

    def test_bad_files_are_named(self, tmp_path: Path) -> None:
        scenes = self.scenes(tmp_path)
        (tmp_path / "train/1.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"image .*1.png cannot be read: the file is empty"):
            scenes.read(1)
        save(tmp_path / "trainannot/2.png", np.zeros((5, 5)))
        with pytest.raises(DataError, match="has 5 x 5 pixels and its image 30 x 22"):
            scenes.read(2)

    def test_only_so_much_is_kept(self, tmp_path: Path) -> None:
        scenes = self.scenes(tmp_path, kept_bytes=20 * 30 * 4)
        kept = scenes.read(0)
        assert scenes.read(0)[0] is kept[0]
        assert scenes.read(1)[0] is not scenes.read(1)[0]

    def test_without_variation_a_crop_is_the_scene(self, tmp_path: Path) -> None:
        scenes = self.scenes(tmp_path)
        plain = Vary(scales=(1, 1), flip=False)
        ((images, masks),) = crop_batches(
            scenes, np.array([0]), crop=(20, 30), batch=1, vary=plain, seed=0, epoch=0
        )
        assert torch.equal(images, as_batch(scenes.read(0)[0]))
        assert np.array_equal(masks[0].numpy(), scenes.read(0)[1])

    def test_what_a_crop_reaches_beyond_the_scene_is_ignored_and_of_mean_colour(
        self, tmp_path: Path
    ) -> None:
        scenes = self.scenes(tmp_path)
        half = Vary(scales=(0.5, 0.5), flip=False)
        ((images, masks),) = crop_batches(
            scenes, np.array([0]), crop=(16, 24), batch=1, vary=half, seed=0, epoch=0
        )
        outside = torch.ones(16, 24, dtype=torch.bool)
        outside[:10, :15] = False
        assert ((masks[0] == IGNORED) == outside).all()
        step = 0.5 / 255 / 0.224  # half a step of 8 bits, in spreads
        assert images[0][:, outside].abs().max() <= step * 1.01

    def test_image_and_mask_are_cut_alike(self, tmp_path: Path) -> None:
        """A scene whose image shows its mask: they still agree after scale, crop and flip."""
        rng = np.random.default_rng(5)
        mask = np.kron(rng.integers(0, 3, (5, 6)), np.ones((16, 16), int))
        for split in ("train", "val"):
            save(tmp_path / f"{split}annot/a.png", mask)
            save(tmp_path / f"{split}/a.png", np.stack([mask * 100] * 3, axis=2))
        scenes = Scenes(list_pairs(listed(tmp_path)).split("train"), THREE)
        for epoch in range(20):
            ((images, masks),) = crop_batches(
                scenes, np.array([0]), crop=(50, 70), batch=1, vary=Vary(), seed=3, epoch=epoch
            )
            green = (images[0, 1] * 0.224 + 0.456) * 255 / 100
            valid = masks[0] != IGNORED
            agree = (green.round() == masks[0])[valid].float().mean()
            assert agree > 0.85  # edges of blocks are mixed colours

    def test_batches_are_a_function_of_seed_and_epoch(self, tmp_path: Path) -> None:
        scenes = self.scenes(tmp_path)

        def batches(seed: int, epoch: int) -> list[torch.Tensor]:
            return [
                x for x, _ in crop_batches(
                    scenes, np.arange(4), crop=(8, 8), batch=2, vary=Vary(), seed=seed, epoch=epoch
                )
            ]  # fmt: skip

        assert all(map(torch.equal, batches(0, 0), batches(0, 0)))
        assert len(batches(0, 0)) == 2
        assert not torch.equal(batches(0, 0)[0], batches(0, 1)[0])
        assert not torch.equal(batches(0, 0)[0], batches(1, 0)[0])
        with pytest.raises(DataError, match="4 images do not fill one batch of 5"):
            next(
                crop_batches(
                    scenes, np.arange(4), crop=(8, 8), batch=5, vary=Vary(), seed=0, epoch=0
                )
            )

    @given(st.floats(0, 1, exclude_max=True))
    def test_scales_are_the_paper_s(self, share: float) -> None:
        assert Vary().scale(share) in (0.5, 0.75, 1, 1.25, 1.5, 1.75, 2)


def test_a_class_table_is_a_value() -> None:
    assert isinstance(THREE, Labels)
    assert THREE.names == ("sky", "road", "car")


CAMVID = Path(__file__).parents[2] / "shared" / "data" / "camvid" / "camvid.tar"
NAMES = [
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
]


@pytest.mark.data
@pytest.mark.skipif(not CAMVID.is_file(), reason="needs ../shared/data/camvid")
def test_camvid_is_what_its_page_says(tmp_path: Path) -> None:
    """367, 101 and 233 scenes of 360 x 480 pixels, 11 classes, id 11 ignored: all masks are read."""
    with tarfile.open(CAMVID) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # not in 3.11.2
        tar.extractall(tmp_path)
    root = listed(tmp_path / "camvid", "\n".join([*NAMES, "Void"]))
    found = list_pairs(root)
    assert found.layout == "camvid"
    assert {name: len(pairs) for name, pairs in found.splits.items()} == {
        "train": 367, "val": 101, "test": 233,
    }  # fmt: skip
    assert found.labels.names == tuple(NAMES)
    image, mask = Scenes(found.split("test"), found.labels).read(0)
    assert (image.shape, mask.shape) == ((360, 480, 3), (360, 480))
    seen = np.zeros(11, np.int64)
    for pair in found.split("val"):
        seen += np.bincount(read_mask(pair.mask, found.labels).ravel(), minlength=256)[:11]
    assert (seen > 0).all()
    (root / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"holds id 11, and the class list has ids 0 to 10; .*--ignore 11"
    ):
        Scenes(list_pairs(root).split("train"), list_pairs(root).labels).survey()
    assert list_pairs(root, ignore=[11]).labels.stored == found.labels.stored
