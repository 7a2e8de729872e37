"""What several test files share: a tiny network, learnable pictures, a cache of their own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; before torch is imported
# Workers that serve all searches of a session grow; loky would replace them by fresh ones.
os.environ.setdefault("LOKY_MAX_MEMORY_LEAK_SIZE", "3e9")

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bneck.cli import main
from bneck.costs.table import Key, LatencyTable, RowShape, Widths, row_keys
from bneck.costs.table_file import header_line, network_line, row_line
from bneck.data.folders import list_images
from bneck.data.pack import Packed, pack
from bneck.devices import fill
from bneck.nas.allocation.drawn import as_searched
from bneck.records.ledger import Ledger
from bneck.runs.search.workers import kept_workers
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.text import to_text
from commands import Answer, Call
from simulated_device import SimulatedDevice, plugged_in

COLOURS = {"circle": (200, 60, 50), "square": (60, 180, 70), "stripes": (70, 80, 210)}
TRAIN, VAL = 32, 10  # pictures a class


@pytest.fixture(scope="session", autouse=True)
def cache() -> Iterator[Path]:
    """The user's cache folder of this session and of all its children: an empty one, then gone."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("XDG_CACHE_HOME", folder)
        patch.setenv("HF_HOME", f"{folder}/huggingface")  # what is fetched belongs to the user too
        yield Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _kept_workers(cache: Path) -> Iterator[None]:
    """Searches in this process use the same workers: importing torch costs more than most of their work."""
    with kept_workers():
        yield


@pytest.fixture(scope="session")
def tiny() -> NetSpec:
    """A network of every kind of row, small enough to search in seconds."""
    return NetSpec(
        name="tiny",
        resolution=32,
        classes=3,
        rows=(
            Conv(3, 24, "hswish", 2),  # 16 x 16 after it
            Bneck(3, 24, 24, 8, "relu", 2),  # no expand convolution; 8 x 8 after it
            Bneck(3, 128, 48, 0, "relu", 2),  # 4 x 4 after it
            Bneck(5, 192, 48, 48, "hswish", 1),  # adds its input
            Conv(1, 256, "hswish"),
            Pool(),
            Conv(1, 256, "hswish", bn=False),
        ),
    )


@pytest.fixture(scope="session")
def tiny_file(tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("specs") / "tiny.yaml"
    path.write_text(to_text(tiny), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train/CLASS/*.png` and `val/CLASS/*.png`: three shapes, each mostly of its own colour."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for name in COLOURS:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                draw_picture(name, rng).save(folder / f"{i:02d}.png")
    return root


def draw_picture(name: str, rng: np.random.Generator) -> Image.Image:
    """A shape at a random place on grey noise, 32 to 48 pixels wide."""
    width, height = (int(side) for side in rng.integers(32, 49, 2))
    image = Image.fromarray(rng.integers(90, 160, (height, width, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    colour = tuple(int(c) for c in np.array(COLOURS[name]) + rng.integers(-40, 41, 3))
    left, top = (int(v) for v in rng.integers(4, 10, 2))
    box = (left, top, left + 20, top + 20)
    match name:
        case "circle":
            draw.ellipse(box, fill=colour)
        case "square":
            draw.rectangle(box, fill=colour)
        case _:
            for x in range(left, left + 20, 6):
                draw.rectangle((x, top, x + 2, top + 20), fill=colour)
    return image


@pytest.fixture(scope="session")
def packed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """The pictures as the tiny network takes them."""
    return pack(list_images(pictures), 32, tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="session")
def image_data(packed: Packed) -> Any:
    """The same as a training has them."""
    from bneck.tasks.classify.dataset import ImageData

    scratch = Path(str(packed.train.images.filename)).parent
    return ImageData(
        scratch=scratch, streamed=None, fingerprint=None, classes=packed.classes, heldout_share=0.0,
        seed=0, bad_share=0.01,
    )  # fmt: skip


@pytest.fixture(scope="module")
def simulated() -> Iterator[SimulatedDevice]:
    """A device without noise that `--device` finds by its name."""
    with plugged_in() as device:
        yield device


@pytest.fixture(scope="session")
def made_up_table(tiny: NetSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table for the tiny network as an ideal device would give it: the same on every machine.

    A row takes 3 us and 20 ns for every 1,000 multiply-adds of its pointwise convolutions, a network
    5 us more than its rows. That is near what processors of 2020 take.
    """

    def row_ms(shape: RowShape, widths: Widths) -> float:
        products = sum(a * b for a, b in pairwise(widths))
        return 0.003 + 2e-8 * shape.height * shape.width * products

    table = LatencyTable({})
    rows = [
        (shape, widths, 0.0 if shape.kind == "context" else row_ms(shape, widths))
        for shape, widths in fill.grid(tiny)
    ]
    for row in rows:
        table.add_row(*row)

    def network_ms(keys: Iterable[Key]) -> float:
        return 0.005 + sum(row_ms(*key) for key in keys)

    networks = [[*row_keys(spec)] for spec in as_searched(tiny, table.uncalibrated(), 16)]
    header = {
        "seed": tiny.name,
        "digest": tiny.digest(),
        "resolution": tiny.resolution,
        "place": "local",
        "processor": "ideal",
        "runtime": "onnxruntime",
        "runtime_version": "ideal",
        "precision": "fp32",
        "threads": 1,
        "reference": tiny.name,
        "reference_ms": network_ms(row_keys(tiny)),
    }
    file = Ledger(tmp_path_factory.mktemp("tables") / "ideal.jsonl")
    file.append(header_line(header), *(row_line(*row) for row in rows))
    for i, keys in enumerate(networks):
        file.append(network_line(keys, network_ms(keys), i % 2 == 1))
    return file.path


def gone(process: int) -> bool:
    """Whether a process has ended; one that nobody has asked about yet (a zombie) has."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not gone(process)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `bneck` with some arguments, in this process."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["bneck", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.run()
        return Answer(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Nets this small train faster on one, and faster still where others compute next to them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
