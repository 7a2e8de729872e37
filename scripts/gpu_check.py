"""Check on a machine with a GPU that everything that trains also trains there.

    python scripts/gpu_check.py [--compute cuda] [--out FOLDER]

Draws small datasets and, for every task, trains on the GPU in float32, in bfloat16 and compiled, kills
and resumes a training, compares the scores of a model on the GPU with those of its exported file, and
runs a small search. Prints a table of what passed with seconds; the exit status is 1 if anything
failed. It takes under 8 minutes on one GPU. `--compute cpu` shows that the script itself works.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

import bneck

SIDE, TRAIN, VAL = 64, 96, 24
SHAPES = ("circle", "square", "cross")
# What a task's network and options are here; a task that is not named is left out, and said so.
GIVEN: dict[str, dict[str, Any]] = {
    "classify": {"network": "v3-small-0.35@64", "options": {}},
    "detect": {"network": "v3-small-0.35+dagger", "options": {"resolution": SIDE}},
    "segment": {"network": "v3-small-0.35+rf2", "options": {"size": (SIDE, SIDE)}},
}


def drawn(root: Path) -> dict[str, Path]:
    """Images of one shape each with its class, its box and its mask; the folder of every task."""
    rng = random.Random(0)
    for split, count in (("train", TRAIN), ("val", VAL)):
        listed: dict[str, Any] = {"images": [], "annotations": [], "categories": [
            {"id": n, "name": name} for n, name in enumerate(SHAPES, 1)
        ]}  # fmt: skip
        for n in range(count):
            kind, (x, y), half = (
                n % 3,
                (rng.randint(20, 43), rng.randint(20, 43)),
                rng.randint(8, 18),
            )
            image = Image.effect_noise((SIDE, SIDE), 40).convert("RGB")
            mask = Image.new("L", (SIDE, SIDE))
            for picture, fill in ((image, (220, 60 + 70 * kind, 60)), (mask, kind + 1)):
                pen, box = ImageDraw.Draw(picture), (x - half, y - half, x + half, y + half)
                if kind == 0:
                    pen.ellipse(box, fill=fill)
                elif kind == 1:
                    pen.rectangle(box, fill=fill)
                else:
                    pen.rectangle((x - half, y - 3, x + half, y + 3), fill=fill)
                    pen.rectangle((x - 3, y - half, x + 3, y + half), fill=fill)
            name = f"{n:03}.png"
            for place in (
                root / "classify" / split / SHAPES[kind], root / "detect" / split,
                root / "segment" / "images" / split,
            ):  # fmt: skip
                place.mkdir(parents=True, exist_ok=True)
                image.save(place / name)
            masks = root / "segment" / "masks" / split
            masks.mkdir(parents=True, exist_ok=True)
            mask.save(masks / name)
            listed["images"].append({"id": n, "file_name": name, "width": SIDE, "height": SIDE})
            listed["annotations"].append({
                "id": n, "image_id": n, "category_id": kind + 1, "iscrowd": 0,
                "bbox": [x - half, y - half, 2 * half, 2 * half], "area": 4 * half * half,
            })  # fmt: skip
        (root / "detect" / f"{split}.json").write_text(json.dumps(listed))
    (root / "segment" / "classes.txt").write_text("background\n" + "\n".join(SHAPES) + "\n")
    return {task: root / task for task in GIVEN}


def killed_and_resumed(arguments: list[str], out: Path) -> dict[str, Any]:
    """Train by command, kill at the first checkpoint, resume."""
    command = [sys.executable, "-m", "bneck", "train", *arguments, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(out.rglob("checkpoint")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    if process.wait() == 0:
        raise RuntimeError("the training ended before it could be killed")
    return bneck.resume(out)


def checks(task: str, data: Path, runs: Path, compute: str) -> dict[str, Callable[[], str]]:
    """What is checked of a task, in order; the later ones use the runs of the earlier."""
    network: str = GIVEN[task]["network"]
    own: dict[str, Any] = dict(GIVEN[task]["options"])
    if (listed := data / "classes.txt").is_file():
        own["classes"] = str(listed)

    def train(label: str, *changes: str) -> str:
        record = bneck.train(
            network,
            data,
            task=task,
            epochs=4,
            changes=changes,
            compute=compute,
            out=runs / label,
            **own,
        )
        speed = record["speed"]
        return (
            f"{record['metric']} {100 * record['scores']['val']['score']:.1f} %, "
            f"{speed['images_per_s']:.0f} images/s, waiting for input {100 * speed['waiting']:.0f} %"
        )

    def resumed() -> str:
        flags = [
            network,
            "--task",
            task,
            "--data",
            str(data),
            "--epochs",
            "6",
            "--compute",
            compute,
        ]
        for key, value in own.items():
            text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            flags += [f"--{key}", text]
        record = killed_and_resumed(flags, runs / "resumed")
        return f"{record['state']}, {100 * record['scores']['val']['score']:.1f} %"

    def evaluated() -> str:
        module = bneck.evaluate(runs / "float32", compute=compute)["score"]
        file = bneck.evaluate(runs / "float32" / "model.onnx")["score"]
        if abs(module - file) > 0.02:
            raise RuntimeError(f"module {module:.3f}, file {file:.3f}")
        return f"module {100 * module:.1f} %, file {100 * file:.1f} %"

    def searched() -> str:
        record = bneck.search(
            data, "80%", task=task, seed_network=network, epochs=2, steps=2, repeats=1, delta=0.1,
            workers=1, out=runs / "search", compute=compute, **own,
        )  # fmt: skip
        found = record["found"]
        return f"{found['measured_ms']:.2f} ms, {100 * found['scores'][0]:.1f} %"

    return {
        "float32": lambda: train("float32"),
        "bfloat16": lambda: train("bfloat16", "precision=bf16"),
        "compiled": lambda: train("compiled", "compile=true"),
        "killed and resumed": resumed,
        "evaluated": evaluated,
        "search": searched,
    }


def main() -> int:
    """Run all checks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compute", default="cuda")
    parser.add_argument("--out", type=Path, help="where the runs stay; default a scratch folder")
    args = parser.parse_args()
    on_gpu = args.compute != "cpu" and torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_gpu else args.compute
    print(
        f"bneck on {name}, torch {torch.__version__}\n\n| task | check | result | s |\n|---|---|---|--:|"
    )
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        root = args.out or Path(scratch)
        for task, data in drawn(root / "data").items():
            for what, work in checks(task, data, root / task, args.compute).items():
                if what == "compiled" and not on_gpu:
                    continue  # takes minutes on a CPU
                start = time.perf_counter()
                try:
                    result = work()
                except Exception as error:
                    failed, result = failed + 1, f"FAILED: {type(error).__name__}: {error}"
                    traceback.print_exc(file=sys.stderr)
                seconds = time.perf_counter() - start
                print(f"| {task} | {what} | {result} | {seconds:.0f} |", flush=True)
    print(f"\n{f'{failed} failed' if failed else 'all passed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
