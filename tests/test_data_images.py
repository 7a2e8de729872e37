"""Decoding one file: odd but whole images come out right, all others are refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bneck.data.depth import Deep
from bneck.data.folders import DataError
from bneck.data.images import image_size, orientation, read_square, read_whole, set_bits
from bneck.data.pack import decode


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new("RGB", size, colour)


def noise(size: tuple[int, int] = (40, 40)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def colour_of(path: Path, side: int = 8) -> list[int]:
    """The one colour that all pixels of a file have."""
    pixels = decode(path, side)
    assert pixels.shape == (3, side, side)
    assert pixels.dtype == np.uint8
    assert (pixels.max(axis=(1, 2)) == pixels.min(axis=(1, 2))).all()
    return [int(value) for value in pixels[:, 0, 0]]


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


class TestSquare:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
    def test_at_its_own_size_every_pixel_is_kept(self, tmp_path: Path, suffix: str) -> None:
        image = noise()
        path = save(
            image, tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {})
        )
        assert (decode(path, 40) == np.asarray(image).transpose(2, 0, 1)).all()

    @pytest.mark.parametrize("size", [(80, 40), (40, 80)])
    def test_the_centre_of_the_longer_side_is_kept(
        self, tmp_path: Path, size: tuple[int, int]
    ) -> None:
        image = plain((255, 0, 0), size)
        left, top = (size[0] - 40) // 2, (size[1] - 40) // 2
        image.paste((0, 255, 0), (left, top, left + 40, top + 40))
        assert colour_of(save(image, tmp_path / "a.png"), 40) == [0, 255, 0]

    def test_shrinking_averages(self, tmp_path: Path) -> None:
        board = np.indices((64, 64)).sum(axis=0) % 2 * 255
        path = save(Image.fromarray(board.astype(np.uint8)), tmp_path / "a.png")
        assert np.abs(decode(path, 8).astype(int) - 127).max() <= 2

    def test_growing_goes_in_between(self, tmp_path: Path) -> None:
        path = save(Image.fromarray(np.array([[0, 200]] * 2, np.uint8)), tmp_path / "a.png")
        # Pixel centres at 1/8, 3/8, 5/8, 7/8 of the way; those of the two pixels at 1/4 and 3/4.
        assert decode(path, 4)[0, 0].tolist() == [0, 50, 150, 200]

    def test_a_large_jpeg_is_decoded_small_yet_alike(self, tmp_path: Path) -> None:
        ramp = np.linspace(0, 255, 1600).astype(np.uint8)
        image = Image.fromarray(np.stack([np.tile(ramp, (1600, 1))] * 3, axis=2))
        pixels = decode(save(image, tmp_path / "a.jpg", quality=95), 16)
        assert np.abs(pixels[:, :, :] - (np.arange(16) + 0.5) * 255 / 16).max() <= 4

    def test_one_pixel(self, tmp_path: Path) -> None:
        assert colour_of(save(plain((1, 2, 3), (1, 1)), tmp_path / "a.png")) == [1, 2, 3]


class TestOddImages:
    def test_grey_and_one_bit(self, tmp_path: Path) -> None:
        assert colour_of(save(Image.new("L", (9, 9), 77), tmp_path / "a.png")) == [77, 77, 77]
        assert colour_of(save(Image.new("1", (9, 9), 1), tmp_path / "b.png")) == [255, 255, 255]

    @pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
    @pytest.mark.parametrize(("value", "eight"), [(0, 0), (32768, 128), (65535, 255)])
    def test_sixteen_bits(self, tmp_path: Path, suffix: str, value: int, eight: int) -> None:
        image = Image.fromarray(np.full((9, 9), value, np.uint16))
        for got in colour_of(save(image, tmp_path / f"a.{suffix}")):
            assert abs(got - eight) <= 1

    def test_sixteen_bits_big_endian(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.full((9, 9), 32768, ">u2"))
        assert colour_of(save(image, tmp_path / "a.tiff")) == [128, 128, 128]

    def test_cmyk_jpeg_keeps_its_colours(self, tmp_path: Path) -> None:
        for colour in ((200, 30, 60), (20, 180, 90), (250, 250, 250)):
            path = save(plain(colour).convert("CMYK"), tmp_path / "a.jpg", quality=95)
            assert mode_of(path) == "CMYK"
            assert np.abs(np.subtract(colour_of(path), colour)).max() <= 6

    def test_palette(self, tmp_path: Path) -> None:
        path = save(plain((10, 200, 30)).quantize(4), tmp_path / "a.png")
        assert mode_of(path) == "P"
        assert colour_of(path) == [10, 200, 30]

    def test_palette_transparency_is_laid_on_white(self, tmp_path: Path) -> None:
        image = Image.new("P", (16, 16), 0)
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.paste(1, (0, 0, 16, 8))
        path = save(image, tmp_path / "a.png", transparency=0)
        pixels = decode(path, 16)
        assert pixels[:, 15, 8].tolist() == [255, 255, 255]
        assert pixels[:, 0, 8].tolist() == [0, 0, 255]

    def test_half_transparent_is_half_white(self, tmp_path: Path) -> None:
        rgba = save(Image.new("RGBA", (9, 9), (0, 0, 0, 128)), tmp_path / "a.png")
        grey = save(Image.new("LA", (9, 9), (0, 128)), tmp_path / "b.png")
        assert colour_of(rgba) == colour_of(grey) == [127, 127, 127]

    def test_transparent_colour_of_an_rgb_png(self, tmp_path: Path) -> None:
        path = save(plain((9, 9, 9)), tmp_path / "a.png", transparency=(9, 9, 9))
        assert colour_of(path) == [255, 255, 255]

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
    def test_orientation(self, tmp_path: Path, suffix: str) -> None:
        image = plain((0, 0, 0), (64, 64))
        image.paste((255, 255, 255), (0, 0, 32, 64))  # white on the left
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise, left to the top
        pixels = decode(save(image, tmp_path / f"a.{suffix}", exif=exif), 16)
        assert pixels[:, :6].min() > 240
        assert pixels[:, 10:].max() < 15
        assert orientation(tmp_path / f"a.{suffix}") == 6

    @pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
    def test_orientation_in_a_text_of_png(self, tmp_path: Path, kind: bytes) -> None:
        """As ImageMagick kept EXIF before PNG had a chunk for it: after the pixels, in hexadecimal."""
        exif = Image.Exif()
        exif[0x0112] = 8
        data = b"\nexif\n %d\n" % len(exif.tobytes()) + exif.tobytes().hex().encode()
        body = b"Raw profile type exif\0" + (
            data if kind == b"tEXt" else b"\0" + zlib.compress(data)
        )
        chunk = (
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        )
        plain_file = save(plain((9, 9, 9), (40, 20)), tmp_path / "a.png").read_bytes()
        path = tmp_path / "b.png"
        path.write_bytes(plain_file[:-12] + chunk + plain_file[-12:])
        assert (orientation(tmp_path / "a.png"), image_size(tmp_path / "a.png")) == (1, (40, 20))
        assert (orientation(path), image_size(path)) == (8, (20, 40))
        path.write_bytes(plain_file[:-20])
        assert orientation(path) == 1

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_damaged_exif_is_no_reason_to_lose_an_image(self, tmp_path: Path) -> None:
        path = save(plain((50, 60, 70)), tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        assert np.abs(np.subtract(colour_of(path), (50, 60, 70))).max() <= 2

    def test_first_frame_of_an_animation(self, tmp_path: Path) -> None:
        frames = [plain((0, 0, 255)), plain((255, 0, 0))]
        path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        with Image.open(path) as image:
            assert image.n_frames == 2  # type: ignore[attr-defined]
        assert colour_of(path) == [0, 0, 255]

    def test_the_suffix_need_not_tell_the_format(self, tmp_path: Path) -> None:
        assert colour_of(save(plain((1, 2, 3)), tmp_path / "a.jpg", format="PNG")) == [1, 2, 3]


class TestUnreadable:
    @pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif", "tiff", "ppm"])
    @pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
    def test_truncated(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = save(noise(), tmp_path / f"a.{suffix}")
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(DataError, match=rf"a\.{suffix} cannot be used: .+; replace it"):
            decode(path, 16)

    def test_empty_missing_and_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").touch()
        with pytest.raises(DataError, match="the file is empty"):
            decode(tmp_path / "a.jpg", 16)
        with pytest.raises(DataError, match="there is no such file"):
            decode(tmp_path / "b.jpg", 16)
        with pytest.raises(DataError, match="it is a folder, not one of the images in it"):
            decode(tmp_path, 16)

    @pytest.mark.parametrize(
        "content",
        [
            b"<html>404 not found</html>",
            # Pillow alone would hand this one to Ghostscript.
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        ],
    )
    def test_no_image(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(DataError, match="not an image of a known format"):
            decode(tmp_path / "a.jpg", 16)

    def test_decompression_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(DataError, match="exceeds limit of 200 pixels"):
            decode(save(plain((0, 0, 0)), tmp_path / "a.png"), 16)

    @pytest.mark.parametrize("kind", [np.float32, np.int32])
    def test_pixels_without_a_known_range(self, tmp_path: Path, kind: type) -> None:
        path = save(Image.fromarray(np.full((9, 9), 7, kind)), tmp_path / "a.tiff")
        with pytest.raises(DataError, match="32 bits a pixel"):
            decode(path, 16)

    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    def test_flipped_bits_never_give_a_traceback(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        for form in ("PNG", "GIF", "TIFF", "BMP", "JPEG"):
            buffer = io.BytesIO()
            noise((12, 12)).save(buffer, form)
            for _ in range(20):
                content = bytearray(buffer.getvalue())
                for place in rng.integers(0, len(content), 6):
                    content[place] ^= 1 << int(rng.integers(8))
                (tmp_path / "a").write_bytes(content)
                refusal = ""
                try:
                    assert decode(tmp_path / "a", 8).shape == (3, 8, 8)
                except DataError as error:
                    refusal = str(error)
                assert "\n" not in refusal


class TestDeepValues:
    """Files of 16 bits whose values have fewer: one rule for a whole dataset."""

    def deep(self, folder: Path, *values: int) -> list[Path]:
        folder.mkdir()
        paths = [folder / f"{i}.png" for i in range(len(values))]
        for path, value in zip(paths, values, strict=True):
            Image.fromarray(np.full((8, 8), value, np.uint16)).save(path)
        return paths

    @pytest.mark.parametrize(
        ("values", "bits"),
        [
            ((1000, 3), 10),
            ((1024, 3), 12),
            ((4095,), 12),
            ((9000,), 14),
            ((65535, 7), 16),
            ((0,), 16),
        ],
    )
    def test_the_largest_value_decides(
        self, tmp_path: Path, values: tuple[int, ...], bits: int
    ) -> None:
        paths = self.deep(tmp_path / "set", *values)
        assert set_bits(paths.__getitem__, len(paths)) == bits

    def test_files_of_8_bits_need_none(self, tmp_path: Path) -> None:
        path = save(plain((9, 9, 9)), tmp_path / "a.png")
        assert set_bits([path, tmp_path / "gone.png"].__getitem__, 2) == 16

    def test_twelve_bits_are_not_black_and_alike_in_all_images(self, tmp_path: Path) -> None:
        bright, dark = self.deep(tmp_path / "set", 4095, 1600)
        for read in (read_whole, lambda file: read_square(file, 8)):
            assert {int(v) for v in np.unique(read(Deep(bright, 12)))} == {255}
            assert {int(v) for v in np.unique(read(Deep(dark, 12)))} == {100}
            assert {int(v) for v in np.unique(read(bright))} == {15}
        (over,) = self.deep(tmp_path / "other", 60000)
        assert np.unique(read_whole(Deep(over, 12))).tolist() == [255]

    @pytest.mark.parametrize(
        ("form", "channels"),
        [
            *((form, count) for form in ("png", "filtered png") for count in (2, 3, 4)),
            *((form, n) for form in ("tiff", "deflated tiff", "big-endian tiff") for n in (3, 4)),
        ],
    )
    def test_twelve_bits_in_colors_are_whole(
        self, tmp_path: Path, form: str, channels: int
    ) -> None:
        values = np.random.default_rng(channels).integers(0, 4096, (5, 7, channels))
        if channels in (2, 4):
            values[..., -1] = 65535  # opaque
        path = tmp_path / f"a.{form[-4:].strip()}"
        path.write_bytes(tiff(values, form) if "tiff" in form else png(values, "filtered" in form))
        assert set_bits([path].__getitem__, 1) == 12
        colors = np.broadcast_to(values[..., :1], (5, 7, 3)) if channels == 2 else values[..., :3]
        assert (read_whole(Deep(path, 12)) == colors >> 4).all()
        assert (read_whole(path) == colors >> 8).all()

    def test_colors_of_twelve_bits_are_turned_as_exif_says(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 4096, (5, 7, 3))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        path = tmp_path / "a.png"
        path.write_bytes(png(values, False, chunk(b"eXIf", exif.tobytes())))
        assert (read_whole(Deep(path, 12)) == np.rot90(values, -1) >> 4).all()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values: npt.NDArray[np.int64], filtered: bool, *more: bytes) -> bytes:
    """A PNG file of 16 bits a value, which Pillow does not write in colors."""
    height, width, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8).reshape(height, -1)
    if filtered:  # each byte less the one a pixel before it
        rows = rows - np.pad(rows, ((0, 0), (2 * channels, 0)))[:, : rows.shape[1]]
    data = np.pad(rows, ((0, 0), (1, 0)), constant_values=filtered).astype(np.uint8).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [chunk(b"IHDR", head), *more, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: npt.NDArray[np.int64], form: str) -> bytes:
    """A TIFF file of 16 bits a value, in two strips."""
    order, deflated = (">" if "big" in form else "<"), "deflated" in form
    height, width, channels = values.shape
    strips = [rows.astype(f"{order}u2").tobytes() for rows in (values[:3], values[3:])]
    if deflated:
        strips = [zlib.compress(strip) for strip in strips]
    starts = (8, 8 + len(strips[0]))
    place = sum(map(len, strips), 8)
    tags = [
        (256, (width,)), (257, (height,)), (258, (16,) * channels), (259, (8 if deflated else 1,)), (262, (2,)),
        (273, starts), (277, (channels,)), (278, (3,)), (279, tuple(map(len, strips))),
        *([(338, (2,))] if channels == 4 else []),
    ]  # fmt: skip
    end, more = place + 2 + 12 * len(tags) + 4, b""
    entries = b""
    for tag, numbers in tags:
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, more = struct.pack(f"{order}I", end + len(more)), more + packed
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", place)
    return b"".join(
        [head, *strips, struct.pack(f"{order}H", len(tags)), entries, bytes(4), more]
    )  # fmt: skip


def test_very_large_images_are_read(tmp_path: Path) -> None:
    """200 million pixels, where Pillow suspects an attack."""
    path = tmp_path / "scan.png"
    Image.new("1", (20000, 10000), 1).save(path)
    assert image_size(path) == (20000, 10000)
