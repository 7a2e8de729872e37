"""Images a second of one core from JPEG files to normalised training crops, ours beside a plain loop.

The plain loop is what most training scripts have: Pillow decodes and resizes, a DataLoader stacks.
Both see the same files, 500 x 375, in interleaved rounds on one thread; CPU time counts, so that a
neighbour on the machine slows neither. Ours is shown from files (decoded anew) and from a pack.

    python benchmarks/input_pipeline.py IMAGES.tar [ROUNDS]

IMAGES.tar is any tar of JPEG files; 64 of them are brought to 500 x 375 and encoded at quality 90.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bneck.data.batches import train_batches
from bneck.data.pack import pack
from bneck.data.regions import read_region
from bneck.data.sources import Source, Sources
from bneck.data.stream import Stream
from bneck.data.vary import Augment, draw_region
from bneck.training.memory import keep_freed_memory

COUNT, BATCH, SIDE = 64, 32, 224
SIZE = (500, 375)
AUGMENT = Augment(area=(0.05, 1.0))
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class Plain(Dataset[tuple[Tensor, int]]):
    """Pillow: decode, crop and resize in one go, mirror, to floats, normalise."""

    def __init__(self, files: list[bytes]) -> None:
        self.files, self.rng = files, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
        left, top, width, height = draw_region(image.size, AUGMENT, self.rng)
        box = (left, top, left + width, top + height)
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
        if self.rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        return (pixels.float() / 255 - MEAN) / STD, index


def files_of(path: Path) -> list[bytes]:
    found = []
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.lower().endswith((".jpg", ".jpeg")):
                content = tar.extractfile(member)
                assert content is not None
                image = Image.open(content).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
                file = io.BytesIO()
                image.save(file, "JPEG", quality=90)
                found.append(file.getvalue())
            if len(found) == COUNT:
                return found
    sys.exit(f"{path} has only {len(found)} JPEG files; {COUNT} are needed")


def differences(files: list[bytes]) -> tuple[float, float]:
    """Mean and 99.9th percentile of |ours - Pillow's| in levels, on the same crops."""
    gaps = []
    for number, data in enumerate(files):
        region = draw_region(SIZE, AUGMENT, np.random.default_rng(number))
        left, top, width, height = region
        image = Image.open(io.BytesIO(data)).convert("RGB")
        box = (left, top, left + width, top + height)
        exact = np.asarray(image.crop(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        ours = read_region(data, lambda _, region=region: region, SIDE)
        assert isinstance(ours, Tensor)
        gaps.append(np.abs(ours.permute(1, 2, 0).numpy().astype(int) - exact.astype(int)))
    everything = np.stack(gaps)
    return float(everything.mean()), float(np.percentile(everything, 99.9))


def main(path: Path, rounds: int) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as in a training; the plain loop has it too
    files = files_of(path)
    labels = np.arange(COUNT) % 2
    source = Source([str(i) for i in range(COUNT)], labels, lambda i: files[i])
    everything = np.arange(COUNT)
    plain = DataLoader(Plain(files), batch_size=BATCH, shuffle=True, num_workers=0)
    stream = Stream(source, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        found = Sources(("a", "b"), source, source, "memory", "benchmark")
        packed = pack(found, SIDE, Path(folder)).train

        def ours(split: object) -> int:
            batches = train_batches(
                split, everything, resolution=SIDE, batch=BATCH, augment=AUGMENT, seed=0, epoch=0
            )  # type: ignore[arg-type]
            return sum(len(x) for x, _ in batches)

        runs: dict[str, Callable[[], int]] = {
            "plain": lambda: sum(len(x) for x, _ in plain),
            "stream": lambda: ours(stream),
            "pack": lambda: ours(packed),
        }
        speeds: dict[str, list[float]] = {name: [] for name in runs}
        for round_number in range(rounds + 1):
            for name, run in runs.items():
                begun = time.process_time()
                count = run()
                if round_number:  # the first warms up
                    speeds[name].append(count / (time.process_time() - begun))
    mean, most = differences(files)
    print(f"{COUNT} JPEG files {SIZE[0]} x {SIZE[1]} to {SIDE} px, {rounds} rounds, one thread")
    for name, found_speeds in speeds.items():
        ratios = [a / b for a, b in zip(found_speeds, speeds["plain"], strict=True)]
        print(
            f"{name:7} {median(found_speeds):6.0f} images/s of a core; {median(ratios):.2f} of plain "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"stream against Pillow, same crops: {mean:.2f} levels on average, {most:.0f} at 99.9 %")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10)
