"""Compare the results of two source trees of bneck, digit for digit and byte for byte.

    python scripts/compare_versions.py OLD NEW [--keep FOLDER] [--only WORD ...]

OLD and NEW are checkouts. Only their command lines are used, so modules may have any name. Where the
command lines differ, `DIALECTS` translates. Every comparison prints one line; the exit status is 1 if
anything differs. FOLDER keeps a tree's results until one of its files or its dialect changes; delete
it after you change what this script compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

# This script is written in the command line of commit 75432fc. A tree's own way of saying it:
# - words: an argument -> its replacement, split at spaces; "" drops it. A key may begin with the
#   command: {"quantize": "int8", "train --out": "--folder", "--crop": "--crop-size"}.
# - fields: a field of the json output -> its path, * for every element. A key may begin with the
#   comparison or its command: {"train/detect final_loss": "loss", "evaluate top1": "scores.top1"}.
# - files: the name of a file -> its name: {"weights-last.safetensors": "last.safetensors"}.
DIALECTS: dict[str, dict[str, dict[str, str]]] = {
    "old": {"words": {}, "fields": {}, "files": {}},
    "new": {
        "words": {},
        "fields": {
            "train/classify top1": "scores.val.score",
            "train/classify top5": "scores.val.top5",
            "train/classify loss": "scores.val.loss",
            "train/classify expected": "scores.val.expected",
            "train/classify n": "scores.val.images",
            "train/classify-paper top1": "scores.val.score",
            "train/classify-paper top5": "scores.val.top5",
            "train/classify-paper loss": "scores.val.loss",
            "train/classify-paper expected": "scores.val.expected",
            "train/classify-paper n": "scores.val.images",
            "train/classify-frozen top1": "scores.val.score",
            "train/classify-frozen top5": "scores.val.top5",
            "train/classify-frozen loss": "scores.val.loss",
            "train/classify-frozen expected": "scores.val.expected",
            "train/classify-frozen n": "scores.val.images",
            "evaluations.val.AP": "scores.val.score",
            "evaluations.val.AP50": "scores.val.AP50",
            "evaluations.val.AR_100": "scores.val.AR_100",
            "evaluations.val.threshold.score": "scores.val.threshold.score",
            "scores.*.miou": "scores.*.score",
            "evaluate/classify top1": "score",
            "evaluate/classify n": "images",
            "quantize/classify rows.*.top1": "rows.*.score",
            "quantize/detect rows.*.AP": "rows.*.score",
            "quantize/segment rows.*.miou": "rows.*.score",
        },
        "files": {},
    },
}

SEED = "v3-small-0.35@32"
ENDINGS = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml"}
FORMATS = (
    "onnx-fp32 onnx-fp16 onnx-int8 tflite-fp32 tflite-fp16 tflite-int8 openvino-fp32 openvino-int8"
)
WEIGHTS = ("weights.safetensors", "weights-last.safetensors", "weights-best.safetensors")
CHECKPOINT = "checkpoint"
REMEASURED = 12  # networks of the latency table
# fmt: off
COUNTS = {  # topic: networks, fields
    "classify": (
        "v3-large v3-small v3-small-0.35@96 v3-large-1.25 v3-large-minimalistic v3-edgetpu-0.75 v1 "
        "v2-0.35 mnasnet-a1 mnas-small proxyless-mobile v3-large+relu v3-small+no-se "
        "v3-large+hswish112 v3-large+original-tail v3-large-0.75+se-input+stem32-hswish",
        "*.resolution *.params *.madds *.activation_bytes *.rows.*.params *.rows.*.madds "
        "*.rows.*.activation_bytes"),
    "detect": (
        "v3-large v3-large+dagger v3-small+dagger v2 mnasnet-a1",
        "*.params *.params_table6 *.madds *.madds_elementwise *.anchors *.parts.*.params "
        "*.parts.*.madds"),
    "segment": (
        "v3-large+rf2 v3-small+rf2 v3-large+os8 v2",
        "*.params *.madds *.madds_table7 *.activation_bytes *.output_stride *.tap"),
}
TRAININGS = {  # TASK or TASK-variant: arguments; the runs lie in folders of these names
    "classify": f"{SEED} --data DATA/classify --epochs 4 --batch 8 --seed 3",
    "classify-paper": f"{SEED} --data DATA/classify --stream --recipe paper --epochs 2 --batch 8",
    "classify-frozen": "classify --from classify --frozen --data DATA/classify --epochs 1 --batch 8",
    "detect": "v3-small-0.35+dagger --resolution 96 --data DATA/detect --epochs 4 --batch 8 --seed 3",
    "detect-mining": "v2-0.35 --resolution 64 --loss mining --data DATA/detect --epochs 1 --batch 8",
    "segment": "v3-small-0.35+rf2 --data DATA/segment --epochs 4 --batch 8 --seed 3",
    "segment-raspp": "v3-small-0.35 --head raspp --balance --crop 32x48 --data DATA/segment --epochs 1",
}
SCORES = {  # of a training
    "classify": "top1 top5 loss expected best.step best.val_loss params madds n",
    "detect": "final_loss params madds evaluations.val.AP evaluations.val.AP50 "
              "evaluations.val.AR_100 evaluations.val.threshold.score",
    "segment": "final_loss scores.*.miou scores.*.pixels",
}
QUANTIZED = {"classify": "top1", "detect": "AP AP50", "segment": "miou pixels"}  # scores of a row
EXPORTS = {  # beside every format and precision; not torch, whose files differ at every export
    "random-weights": f"{SEED} --format onnx",
    "classify-pixels": "classify --format tflite --pixels",
    "detect-decode": "detect --format onnx --decode",
    "segment-argmax": "segment --format tflite --argmax --size 64x96",
}
ASKED = {  # topic: arguments, fields; TABLE is a copy of the full latency table: nothing is measured
    "evaluate/classify": ("classify --data DATA/classify", "top1 top5 loss n"),
    "predict/classify": ("classify DATA/classify/val/a/0.png", "*.classes.*.score"),
    "predict/detect": ("detect DATA/detect/images/val-1.png", "*.objects.*.score *.objects.*.box"),
    "table/estimates": (
        f"{SEED} --out TABLE",
        "entries seed_ms line.rounding line.scale line.offset_ms error.median error.p95"),
}
# fmt: on


class Failed(Exception):
    """A command or a lookup that failed; the message is the reason."""


@dataclass(frozen=True)
class Tree:
    """A checkout, the folder in which its commands run, and what both trees share in `keep`."""

    root: Path
    dialect: dict[str, dict[str, str]]
    folder: Path
    keep: Path

    def start(self, words: str) -> subprocess.Popen[str]:
        """Start `python -m bneck` with these arguments and --json."""
        said = [*words.replace("DATA/", f"{self.keep}/data/").split(), "--json"]
        own, command = self.dialect["words"], said[0]
        arguments = " ".join(own.get(f"{command} {w}", own.get(w, w)) for w in said).split()
        env = {
            "PYTHONPATH": f"{self.root / 'src'}",
            "PYTHONPYCACHEPREFIX": f"{self.folder / 'pycache'}",  # the checkout stays as it is
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "XDG_CACHE_HOME": f"{self.folder / 'cache'}",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "bneck", *arguments],
            cwd=self.folder, env={**os.environ, **env}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, words: str) -> Any:
        """The json output of a command."""
        process = self.start(words)
        out, err = process.communicate()
        if process.returncode:
            raise Failed(f"bneck {words}: {(err.strip() or 'no message').splitlines()[-1]}")
        return json.loads(out)

    def ask(self, topic: str, words: str, paths: str) -> dict[str, Any]:
        """Fields of the output of a command."""
        if "TABLE" in words:
            shutil.copy(self.keep / "table.jsonl", self.folder / "TABLE")
        command, own = topic.split("/", 1)[0], self.dialect["fields"]
        answer, found = self.run(f"{command} {words}"), {}
        for path in paths.split():
            keys = (f"{topic} {path}", f"{command} {path}", path)
            there = next((own[key] for key in keys if key in own), path)
            found[path] = looked_up(answer, there.split("."), there)
        return found

    def file(self, name: str) -> str:
        """The name of a file in this tree."""
        return self.dialect["files"].get(name, name)

    def train(self, topic: str, run: str) -> dict[str, Any]:
        """Scores and weights of a training."""
        task = run.partition("-")[0]
        words = f"{TRAININGS[run]} --task {task} --out {run}"
        return {**self.ask(topic, words, SCORES[task]), **self.weights(run)}

    def resume(self, topic: str, run: str) -> dict[str, str]:
        """Weights of a training that was killed after its first checkpoint, then resumed."""
        out = self.folder / f"{run}-killed"
        process = self.start(f"train {TRAININGS[run]} --task {run} --out {out.name}")
        while process.poll() is None and not any(out.rglob(self.file(CHECKPOINT))):
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL or (out / self.file(WEIGHTS[0])).exists():
            raise Failed("the training ended before it could be killed at a checkpoint")
        self.run(f"train --resume {out.name}")
        if (found := self.weights(out.name)) != self.weights(run):
            raise Failed("the weights differ from those of the training that was not killed")
        return found

    def weights(self, run: str) -> dict[str, str]:
        """Digests of a run's tensors."""
        found = {}
        for name in WEIGHTS:
            path = self.folder / run / self.file(name)
            if not path.is_file() and name != WEIGHTS[0]:
                continue
            with safe_open(path, "numpy") as file:
                for key, tensor in ((key, file.get_tensor(key)) for key in file.keys()):  # noqa: SIM118
                    content = f"{tensor.dtype} {tensor.shape}".encode() + tensor.tobytes()
                    found[f"{name} {key}"] = digest(content)
        return found

    def export(self, topic: str, words: str) -> dict[str, str]:
        """Digests of an exported file and the files next to it."""
        folder = self.folder / topic
        end = ENDINGS[words.partition("--format ")[2].partition(" ")[0]]
        self.run(f"export {words} --out {topic}/model{end}")
        return {p.name: digest(p.read_bytes()) for p in sorted(folder.iterdir())}

    def quantize(self, topic: str, run: str) -> dict[str, Any]:
        """Scores and files of int8 networks."""
        out, more = f"{run}-int8", "--epochs 1" if run == "classify" else ""
        scores = " ".join(f"rows.*.{name}" for name in f"{QUANTIZED[run]} size_mb".split())
        words = f"{run} --rounds 3 --out {out} {more}"
        found = self.ask(topic, words, f"{scores} layers.*.alone layers.*.noise")
        files = (self.folder / out).rglob("*.tflite")
        return {**found, "files": sorted(digest(path.read_bytes()) for path in files)}

    def sum_rows(self, topic: str) -> dict[str, Any]:
        """The rows of the networks that a tree draws by a table's rows, to measure them."""
        lines = (self.keep / "table.jsonl").read_text().splitlines(keepends=True)
        cut = self.folder / "cut.jsonl"
        cut.write_text("".join(lines[:-REMEASURED]))
        self.run(f"table {SEED} --out {cut.name}")
        found = [json.loads(line)["network"] for line in cut.read_text().splitlines()[-REMEASURED:]]
        return {f"network {i}": [rows, held] for i, (rows, _, held) in enumerate(found)}

    def golden(self, topic: str) -> dict[str, Any]:
        """What seeded searches propose, as the tests of a tree have it."""
        files = sorted((self.root / "tests").rglob("golden/*.json"))
        return {path.name: digest(path.read_bytes()) for path in files}

    def jobs(self) -> Iterator[tuple[str, Callable[[str], dict[str, Any]]]]:
        """Topics and what is done for each; later ones use the runs of earlier ones."""
        for task, (networks, paths) in COUNTS.items():
            yield f"count/{task}", partial(self.ask, words=f"{networks} --task {task}", paths=paths)
        for run in TRAININGS:
            yield f"train/{run}", partial(self.train, run=run)
        for task in SCORES:
            yield f"resume/{task}", partial(self.resume, run=task)
            for kind in FORMATS.split():
                words = f"{task} --format {kind.replace('-', ' --precision ')}"
                yield f"export/{task}-{kind}", partial(self.export, words=words)
            yield f"quantize/{task}", partial(self.quantize, run=task)
        for name, words in EXPORTS.items():
            yield f"export/{name}", partial(self.export, words=words)
        for topic, (words, paths) in ASKED.items():
            yield topic, partial(self.ask, words=words, paths=paths)
        yield "table/sums-of-rows", self.sum_rows
        yield "golden", self.golden

    def results(self, only: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Topics with what an earlier call found, or with what is found now."""
        file = self.folder / "results.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        if not known:
            shutil.rmtree(self.folder, ignore_errors=True)  # a call that was killed
            self.folder.mkdir(parents=True)
        found = {}
        for topic, job in self.jobs():
            if only and not any(word in topic for word in only):
                continue
            try:
                value = known[topic] if known else json.loads(json.dumps(job(topic)))
            except (Failed, OSError, ValueError, LookupError) as error:
                value = {"failed": f"{type(error).__name__}: {error}"}
            found[topic] = value
            yield topic, value
        if not only and not any("failed" in value for value in found.values()):
            file.write_text(json.dumps(found))


def looked_up(value: Any, steps: list[str], path: str) -> Any:
    """The value at a path."""
    if not steps:
        return value
    if steps[0] == "*":
        inner = value.values() if isinstance(value, dict) else value
        return [looked_up(one, steps[1:], path) for one in inner]
    if not isinstance(value, dict) or steps[0] not in value:
        raise Failed(f"the output has no {path}; add it to DIALECTS")
    return looked_up(value[steps[0]], steps[1:], path)


def digest(content: bytes) -> str:
    """A short digest of bytes."""
    return f"{hashlib.sha256(content).hexdigest()[:16]} of {len(content)} bytes"


def draw(root: Path) -> None:
    """Write small data for each task: 24 images to train on, 9 to validate, 3 to test."""
    rng = np.random.default_rng(0)
    colours = np.array([[120, 170, 230], [90, 90, 90], [210, 60, 50]])
    for split, count in (("train", 24), ("val", 9), ("test", 3)):
        images, boxes = list[dict[str, Any]](), list[dict[str, Any]]()
        for i in range(count):
            pixels = rng.integers(0, 120, (40, 40, 3))
            pixels[..., i % 3] += 90
            save(pixels, root / f"classify/{split}/{'abc'[i % 3]}/{i}.png")
            pixels = rng.integers(110, 140, (48, 64, 3))
            for n in range(i % 3):
                side, x, y = 14 + i % 6, 2 + i % 10 + 32 * n, 1 + i
                pixels[y : y + side, x : x + side] = (250, 5)[(i + n) % 2]
                box = {"bbox": [x, y, side, side], "category_id": (2, 9)[(i + n) % 2]}
                boxes.append({"id": len(boxes) + 1, "image_id": i, **box})
            save(pixels, root / f"detect/images/{split}-{i}.png")
            images.append({"id": i, "file_name": f"{split}-{i}.png", "width": 64, "height": 48})
            mask = np.zeros((48, 64), np.int64)
            mask[16 + i % 16 :] = 1
            mask[8 : 20 + i % 20, 10 : 24 + i] = 2
            noisy = colours[mask] + rng.integers(-30, 31, (48, 64, 3))
            save(noisy, root / f"segment/{split}/{i:02}.png")
            save(mask, root / f"segment/{split}annot/{i:02}.png")
        categories = [{"id": 2, "name": "light"}, {"id": 9, "name": "dark"}]
        coco = {"images": images, "annotations": boxes, "categories": categories}
        (root / f"detect/instances_{split}.json").write_text(json.dumps(coco))
    (root / "segment/classes.txt").write_text("sky\nroad\nball\n")


def save(pixels: Any, path: Path) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def opened(which: str, root: Path, keep: Path) -> Tree:
    """The tree, with the folder that belongs to these sources in this dialect."""
    content = hashlib.sha256(json.dumps(DIALECTS[which]).encode())
    for path in sorted([*root.glob("src/**/*"), *root.glob("tests/**/golden/*.json")]):
        if path.is_file() and path.suffix != ".pyc":
            content.update(f"{path.relative_to(root)}".encode() + path.read_bytes())
    folder = keep / f"{which}-{content.hexdigest()[:12]}"
    return Tree(root.resolve(), DIALECTS[which], folder, keep)


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What of the old result differs in the new one, which may hold more; "" if nothing does."""
    for which, value in (("old", old), ("new", new)):
        if "failed" in value or not value:
            return f"{which} failed: {value.get('failed', 'it found nothing')}"
    keys = [key for key in old if old[key] != new.get(key, "-")]
    told = [f"{key}: {old[key]!s:.70} -> {new.get(key, '-')!s:.70}" for key in keys[:2]]
    return "; ".join(told) + (f"; and {len(keys) - 2} more" if len(keys) > 2 else "")


def compare(old: Path, new: Path, keep: Path, only: Sequence[str]) -> int:
    """Print the comparisons; how many differ."""
    draw(keep / "data")
    trees = [opened("old", old, keep), opened("new", new, keep)]
    if not (table := keep / "table.jsonl").is_file() and not only:
        trees[0].folder.mkdir(exist_ok=True)
        trees[0].run(f"table {SEED} --out {keep}/filling.jsonl")
        (keep / "filling.jsonl").rename(table)
    found, differing = dict(trees[0].results(only)), 0
    for topic, value in trees[1].results(only):
        what = difference(found[topic], value)
        differing += bool(what)
        print(f"DIFFERS  {topic}: {what}" if what else f"same     {topic}", flush=True)
    print(f"{len(found)} comparisons, {differing} differ")
    return differing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path, help="checkout whose results are right")
    parser.add_argument("new", type=Path, help="checkout to compare with it")
    parser.add_argument("--keep", type=Path, help="folder for results, which later calls use")
    parser.add_argument("--only", nargs="+", default=[], help="parts of topics, as count train/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        keep = (options.keep or Path(scratch)).resolve()
        sys.exit(compare(options.old, options.new, keep, options.only) > 0)
