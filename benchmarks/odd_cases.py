"""What an odd input is, and the user's files that `odd_inputs.py` begins with."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bneck.cli import main

CLASSES = {"ant": (220, 40, 40), "bee": (40, 200, 60), "cow": (50, 60, 230)}
TINY = "v3-small-0.35"
SLOW = 10  # seconds for one input, which are reported
SHORT = ("--epochs", "1", "--batch", "4")
Check = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """A command; `right` checks the output of one that must succeed, None where it must be refused."""

    kind: str
    command: tuple[str, ...]
    right: Check | None = None


def case(kind: str, *command: object, right: Check | None = None) -> Case:
    return Case(kind, tuple(map(str, command)), right)


def run(command: tuple[str, ...]) -> tuple[int | str, str, str]:
    """Exit code, or the traceback; stdout; stderr."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["bneck", *command]
    code: int | str = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.run()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # a traceback is what is looked for
        code = traceback.format_exc()
    finally:
        sys.argv = argv
    return code, out.getvalue(), err.getvalue()


class Place:
    """The user's files, and what was trained on them."""

    def __init__(self, root: Path) -> None:
        self.root, self.user, self.out = root, root / "user", root / "out"
        self.user.mkdir(parents=True)
        self.out.mkdir()
        self.number = 0

    def fresh(self) -> Path:
        """Where a command may write: a name of its own."""
        self.number += 1
        return self.out / str(self.number)

    def file(self, name: str, content: bytes | str = b"") -> Path:
        path = self.user / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def picture(
        self, name: str, colour: tuple[int, int, int] = (90, 90, 90), side: int = 40
    ) -> Path:
        path = self.user / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(name)).integers(-20, 20, (side, side, 3))
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
        return path

    def seal(self) -> dict[str, str]:
        """What the user's files hold."""
        return {
            str(path): hashlib.md5(path.read_bytes()).hexdigest()
            for path in sorted(self.user.rglob("*"))
            if path.is_file()
        }


def prepare(place: Place) -> None:
    """Pictures for three tasks, and a run of each."""
    for name, colour in CLASSES.items():
        for i in range(12):
            place.picture(f"classify/{name}/{i}.png", colour)
    for split, count in (("train", 8), ("val", 4)):
        images, boxes = [], []
        for i in range(count):
            file = place.picture(f"detect/{split}/{i}.png", side=64)
            images.append({"id": i, "file_name": file.name, "width": 64, "height": 64})
            boxes.append({"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [8, 8, 30, 30],
                          "area": 900, "iscrowd": 0})  # fmt: skip
        kinds = [{"id": 1, "name": "cup"}, {"id": 2, "name": "pen"}]
        held = {"images": images, "annotations": boxes, "categories": kinds}
        place.file(f"detect/{split}/_annotations.coco.json", json.dumps(held))
    for i in range(10):
        place.picture(f"segment/images/{i}.png", side=64)
        mask = np.zeros((64, 64), np.uint8)
        mask[:, : 8 + 4 * i] = 1
        (place.user / "segment/masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(place.user / f"segment/masks/{i}.png")
    place.file("segment/classes.txt", "ground\nthing\n")
    runs = place.user / "runs"
    for command in (
        ("train", TINY, "--data", place.user / "classify", "--resolution", "32"),
        (
            "train",
            f"{TINY}+dagger",
            "--task",
            "detect",
            "--data",
            place.user / "detect",
            "--resolution",
            "64",
        ),
        (
            "train",
            f"{TINY}+rf2",
            "--task",
            "segment",
            "--data",
            place.user / "segment",
            "--size",
            "64x64",
        ),
    ):
        task = command[3] if "--task" in command else "classify"
        code, _, err = run((*map(str, command), *SHORT, "--out", str(runs / str(task))))
        if code != 0:
            raise SystemExit(f"the run of {task} failed: {code} {err}")


def sentences(text: str) -> Check:
    """Whether the output has these words."""
    return lambda out: text in out


def values(**wanted: Any) -> Check:
    """Whether json output has these values."""

    def check(out: str) -> bool:
        found = json.loads(out)
        return all(found[key] == value for key, value in wanted.items())

    return check
