"""Int8 exports of random networks: how many whole files are refused, and how many broken ones are kept.

python benchmarks/eight_bit_exports.py [EXPORTS] [FIRST]

Every export is of a network of random rows at 32 to 64 pixels, for each of three runtimes in turn, calibrated
and checked on pictures unlike those that its batch norms' statistics are of: dark, of little contrast, noise,
or of few colors. Every fourth network has random weights and no run. A whole file that is refused
is a dead end. Then the same file is broken on purpose, and checked again: a weight is transposed, a bias
forgotten, or, in ONNX, the integers of one tensor are read with another zero point. A broken file that is
kept, on these pictures and on the probes of the check, is no farther from the simulation than other roundings
of the whole network. It is printed with how far it is off; if every number that it answers there is the whole
file's, what was broken does nothing, and it is counted for itself.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image

import bneck
from bneck.devices.models import network_model
from bneck.devices.runtimes import FORMATS, runtime
from bneck.graphs.forms import form
from bneck.nets.batch_norm import reestimate
from bneck.nets.build import Net, build
from bneck.nets.calibrate import calibrate
from bneck.nets.quantize import Quantized
from bneck.nets.weights import save_weights
from bneck.records.files import write_json
from bneck.records.run import RunFolder
from bneck.runs.export import CALIBRATING, CHECKED
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool, Row
from bneck.specs.text import to_text
from bneck.tasks.checks import ExportError, probes
from bneck.tasks.classify.dataset import samples
from bneck.tasks.classify.files import compare

PICTURES = 24
KINDS = ("dark", "flat", "noise", "few colors")
ENGINES = ("onnx", "tflite", "openvino")


def main() -> None:
    """Export, break, count."""
    exports, first = (int(v) for v in (sys.argv[1:] + ["40", "0"][len(sys.argv) - 1 :])[:2])
    torch.set_num_threads(1)
    told: Counter[str] = Counter()
    farthest = 0.0
    for seed in range(first, first + exports):
        with tempfile.TemporaryDirectory() as scratch:
            for event, times in one(seed, Path(scratch)):
                told[event] += 1
                if event == "whole file kept":
                    farthest = max(farthest, times)
    for event, count in sorted(told.items()):
        print(f"{count:5} {event}")
    print(f"whole files were at most {farthest:.2f} times as far off as other roundings")


def one(seed: int, scratch: Path) -> Iterator[tuple[str, float]]:
    """What became of an export, and of the same file broken, with how many times rounding it was off."""
    rng = random.Random(seed)
    spec, trained = drawn(rng), seed % 4 != 0
    net = build(spec, seed=seed)
    if trained:
        as_trained(net, rng)
    network, pictures = saved(net, spec, scratch, trained=trained), scratch / "pictures"
    draw(pictures, KINDS[rng.randrange(len(KINDS))], seed)
    format = ENGINES[seed % len(ENGINES)]
    suffix = runtime(FORMATS[format]).suffix
    how: dict[str, Any] = {"data": pictures, "out": scratch / f"out{suffix}"}
    try:
        found = bneck.export(network, format, precision="int8", **how)
    except InputError as error:
        print(f"{seed}: {error}")
        yield f"dead end{'' if trained else ' (random weights)'}", 0.0
        return
    assert found["trained"] == trained
    yield "whole file kept", found["roundings"]
    if trained:
        yield from broken(net.eval(), spec, format, pictures, rng, seed)


def broken(
    net: Net, spec: NetSpec, format: str, pictures: Path, rng: random.Random, seed: int
) -> Iterator[tuple[str, float]]:
    """The file of a network, broken in one place after the other."""
    engine = runtime(FORMATS[format])
    size = (spec.resolution, spec.resolution)
    files = sorted(pictures.iterdir())
    fit, val = (
        samples(files, "", size=size, count=count, normalisation=net.normalisation)
        for count in (CALIBRATING, CHECKED)
    )
    whole = calibrate(net, [fit], form(engine.name, "int8"))
    seen = torch.cat([val, probes(val, net.normalisation)]).numpy()
    right = answers(engine, file(spec, engine, whole.weights, whole), seen)
    kinds = ("transposed", "bias", *(["zero point"] if format == "onnx" else []))
    for kind in kinds:
        model, where = spoilt(spec, engine, whole, kind, rng)
        try:
            check = compare(net, engine.load(model, threads=1), val, whole, "int8")
        except ExportError:
            yield f"broken file refused ({kind})", 0.0
        else:
            equal = np.array_equal(answers(engine, model, seen), right)
            told = "in all numbers" if equal else f"{check['roundings']:.2f} times rounding"
            print(f"{seed}: {kind} of {where} kept, {told}")
            what = "answers exactly as the whole one" if equal else "kept"
            yield f"broken file {what} ({kind})", check["roundings"]


def file(spec: NetSpec, engine: Any, weights: Any, whole: Quantized) -> bytes:
    """An int8 file with these weights and the ranges of `whole`."""
    return network_model(
        spec, engine, "int8", weights=weights, ranges=whole.ranges, resolution=spec.resolution
    )


def answers(engine: Any, model: bytes, images: Any) -> Any:
    """What a file answers for images, one by one: (N, classes)."""
    session = engine.load(model, threads=1)
    return np.stack([session.run(image[None]).ravel() for image in images])


def spoilt(
    spec: NetSpec, engine: Any, whole: Quantized, kind: str, rng: random.Random
) -> tuple[bytes, str]:
    """A file's bytes with one thing wrong, and what."""
    weights, name = dict(whole.weights), ""
    if kind == "transposed":
        square = [n for n, w in weights.items() if w.ndim == 4 and w.shape[2] > 1]
        name = rng.choice(square)
        weights[name] = np.ascontiguousarray(weights[name].transpose(0, 1, 3, 2))
    elif kind == "bias":
        sizes = {n: np.abs(w).max() for n, w in weights.items() if w.ndim == 1}
        name = rng.choice([n for n, size in sizes.items() if size > 0.1])
        weights[name] = np.zeros_like(weights[name])
    model = file(spec, engine, weights, whole)
    if kind != "zero point":
        return model, name
    loaded = onnx.load_from_string(model)
    zero = rng.choice([i for i in loaded.graph.initializer if i.name.endswith(".read.zero")])
    value = numpy_helper.to_array(zero)
    moved = value + np.uint8(30) if value < 200 else value - np.uint8(30)
    zero.CopyFrom(numpy_helper.from_array(moved, zero.name))
    return bytes(loaded.SerializeToString()), zero.name


def drawn(rng: random.Random) -> NetSpec:
    """A network of random rows."""
    acts = ("relu", "hswish", "relu6")
    rows: list[Row] = [Conv(3, rng.choice((8, 12, 16)), rng.choice(acts), 2)]
    width = rows[0].out  # type: ignore[union-attr]
    for _ in range(rng.randint(1, 6)):
        expanded, out = width * rng.choice((1, 2, 3, 4)), rng.choice((width, 8, 16, 24))
        gate = rng.choice((0, 0, 8))
        rows.append(
            Bneck(rng.choice((3, 5)), expanded, out, gate, rng.choice(acts), rng.choice((1, 1, 2)))
        )
        width = out
    rows += [Conv(1, 3 * width, "hswish"), Pool(), Conv(1, 48, "hswish", bn=False)]
    return NetSpec(
        name="drawn", rows=tuple(rows), resolution=rng.choice((32, 48, 64)),
        classes=rng.choice((1, 2, 10, 100)), se_gate=rng.choice(("hsigmoid", "sigmoid")),
        padding=rng.choice(("symmetric", "same")),
    )  # fmt: skip


def as_trained(net: Net, rng: random.Random) -> None:
    """Weights whose outputs follow the images, biases, and statistics of smooth pictures."""
    torch.manual_seed(rng.randrange(1 << 30))
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.bias, std=0.3)
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
    colours = torch.rand(32, 3, 5, 5)
    side = net.spec.resolution
    images = torch.nn.functional.interpolate(colours, (side, side), mode="bilinear")
    reestimate(net, [(images - 0.45) / 0.226])


def saved(net: Net, spec: NetSpec, scratch: Path, *, trained: bool) -> Path:
    """The network as a run's folder, or the file of its spec."""
    folder = RunFolder(scratch / "run")
    folder.path.mkdir()
    folder.spec.write_text(to_text(spec), encoding="utf-8")
    if not trained:
        return folder.spec.rename(scratch / "drawn.yaml")
    save_weights(net.state_dict(), folder.weights)
    write_json(
        folder.run_json,
        {
            "format": 2, "kind": "train", "task": "classify", "state": "finished",
            "classes": [str(i) for i in range(spec.classes)], "wrapper": {},
        },
    )  # fmt: skip
    return folder.path


def draw(folder: Path, kind: str, seed: int) -> None:
    """Pictures that do not fit the network."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(PICTURES):
        blobs = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        pixels = np.asarray(Image.fromarray(blobs).resize((64, 64), Image.Resampling.BICUBIC))
        if kind == "dark":
            pixels = pixels // 8
        elif kind == "flat":
            pixels = 120 + pixels // 32
        elif kind == "noise":
            pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        elif kind == "few colors":
            pixels = (pixels // 128) * 255
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")


if __name__ == "__main__":
    main()
