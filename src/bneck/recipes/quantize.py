"""Float, post-training and fine-tuned 8 bits side by side: the Python twin of `bneck quantize`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bneck.data.batches import eval_batches
from bneck.data.pack import Packed, Split
from bneck.data.sources import Sources
from bneck.data.vary import Augment
from bneck.devices.models import network_model
from bneck.devices.runtimes import Runtime, Session, runtime
from bneck.export.files import export_file
from bneck.graphs.forms import form
from bneck.nets.build import Net
from bneck.nets.calibrate import LayerError, calibrate, layer_errors, naive
from bneck.nets.quantize import Quantized
from bneck.recipes.export import BATCH, CALIBRATING, CHECKED, size_mb
from bneck.recipes.exported import task_of
from bneck.recipes.networks import Network, build
from bneck.recipes.pictures import class_names, packed_images, record_of, record_settings
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.quantize_heads import quantize_heads
from bneck.recipes.quantize_times import time_rows
from bneck.recipes.splits import BUILTIN, run_sources
from bneck.records.files import write_json
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.train.loop import Data, Settings
from bneck.train.quantized import fine_tune

WORST = 10  # layers named in the report
EPOCHS = 2.0
LR = 1e-4  # peak of fine-tuning at a batch of 64; docs/lab-log.md has others


def quantize(
    network: Network,
    *,
    data: str | Path | None = None,
    runtime_name: str = "litert",
    epochs: float | None = None,
    lr: float = LR,
    rounds: int = 20,
    out: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Quantise a trained network to 8 bits, post-training and by fine-tuning, and compare.

    Every file is written, checked against its module and judged on the val images in the runtime
    itself; the three are timed interleaved, and left untimed on too busy a machine. "naive" is what
    one scale a weight tensor and the plain extremes of activations would give, judged but not kept.
    Of a detector or segmenter float and post-training 8 bits are compared, by mAP or mIOU.

    Args:
        network: a finished run's or import's folder.
        data: labelled images; None takes those of the run. Of a detector or segmenter, pictures to
            calibrate and check with.
        runtime_name: the engine, "litert", "onnxruntime" or "openvino".
        epochs: of fine-tuning, 2 by default; 0 leaves it out. Detectors and segmenters have none.
        lr: its peak learning rate at a batch of 64.
        rounds: shuffled rounds of timing.
        out: the folder of the files and of quantize.json; None: `8bit` in the run's folder.
        seed: of the order of the images.
        progress: receives what happens; None tells nobody.

    Returns:
        the record that quantize.json holds: `rows` with top-1 (or AP and AP50, or miou and pixels),
        latency, ratio to float and size; `layers`, the ten whose rounding alone changes the scores most.

    Raises:
        InputError: an untrained network, no labelled images, no such runtime.
    """
    progress = progress or Silent()
    engine = runtime(runtime_name)
    form(engine.name, "int8")
    if task_of(_name(network)) != "classify":
        return _of_heads(network, data, engine, epochs, rounds, out, progress)
    epochs = EPOCHS if epochs is None else epochs
    if epochs < 0 or not lr > 0:
        raise InputError(f"epochs is {epochs} and lr {lr}; they must be at least 0 and above 0")
    sources = _images_of(network, data)
    net = build(network).eval()
    names = class_names(record_of(network), net.spec.classes)
    folder = Path(out) if out is not None else Path(str(network)) / "8bit"
    with tempfile.TemporaryDirectory() as scratch:
        packed = packed_images(sources, net, names, Path(scratch))
        job = _Job(net, packed, engine, folder, list(packed.classes), progress)
        settings = _settings(packed, epochs, lr, seed) if epochs else None
        errors = job.compare(settings, rounds)
    found = {
        "network": net.spec.name,
        "data": str(data or record_settings(network)["data"] or BUILTIN),
        "images": {"train": len(packed.train.labels), "val": len(packed.val.labels)},
        "runtime": engine.name,
        "runtime_version": engine.version,
        "epochs": epochs,
        "metrics": {"top1": "top-1"},
        "rows": list(job.rows.values()),
        "layers": [asdict(error) for error in errors[:WORST]],
    }
    write_json(folder / "quantize.json", found)
    return found


def _of_heads(
    network: Network,
    data: str | Path | None,
    engine: Runtime,
    epochs: float | None,
    rounds: int,
    out: str | Path | None,
    progress: Progress,
) -> dict[str, Any]:
    if epochs:
        raise InputError(
            f"epochs is {epochs}; detectors and segmenters are not fine-tuned in 8 bits: leave it out"
        )
    run = _name(network)
    if not Path(run).is_dir():
        raise InputError(f"{run} is a file already; give the folder of the run that it is of")
    found = quantize_heads(run, engine, data=data, rounds=rounds, out=out, progress=progress)
    write_json((Path(out) if out is not None else Path(run) / "8bit") / "quantize.json", found)
    return found


def _name(network: Network) -> str | Path:
    return network.name if isinstance(network, NetSpec) else network


def _images_of(network: Network, data: str | Path | None) -> Sources:
    if isinstance(network, NetSpec) or not RunFolder(Path(network)).weights.is_file():
        raise InputError(
            f"{getattr(network, 'name', network)} has no trained weights; give the folder of a finished "
            "search or of bneck import"
        )
    settings = record_settings(network)
    if data is None and "data" not in settings:
        raise InputError(
            "8 bits need labelled images to calibrate with; give their folder by --data"
        )
    return run_sources(settings, data)


class _Job:
    """The files of one comparison."""

    def __init__(
        self,
        net: Net,
        packed: Packed,
        engine: Runtime,
        folder: Path,
        classes: list[str],
        progress: Progress,
    ) -> None:
        self.net, self.packed, self.engine = net, packed, engine
        self.folder, self.classes, self.progress = folder, classes, progress
        self.rows: dict[str, dict[str, Any]] = {}

    def compare(self, settings: Settings | None, rounds: int) -> list[LayerError]:
        """Write, judge and time all; what rounding each layer alone does comes back."""
        hswish = form(self.engine.name, "int8")
        post = calibrate(self.net, self.calibrating(), hswish)
        self.add("fp32", None)
        self.compare_with("naive", naive(self.net, self.calibrating(), hswish))
        self.add("ptq", post)
        if settings:
            tuned = fine_tune(self.net, post, self.data(), settings, on_step=self.stepping())
            self.add("qat", tuned)
        time_rows(list(self.rows.values()), self.engine.name, rounds, self.progress)
        return layer_errors(self.net, post, next(iter(self.calibrating())))

    def calibrating(self) -> list[Tensor]:
        count = len(self.packed.train.labels)
        indices = np.unique(np.linspace(0, count - 1, CALIBRATING).astype(np.int64))
        return [images for images, _ in self._batches(self.packed.train, indices)]

    def data(self) -> Data:
        count = len(self.packed.train.labels)
        return Data(self.packed.train, np.arange(count), self.net.spec.resolution)

    def compare_with(self, name: str, quantized: Quantized) -> None:
        """Judge a file that nobody keeps, so how near it comes to its emulation is not asked."""
        model = network_model(
            self.net.spec,
            self.engine,
            "int8",
            weights=quantized.weights,
            ranges=quantized.ranges,
        )
        top1 = self._top1(self.engine.load(model, threads=1), name)
        self.rows[name] = {"name": name, "top1": top1, "size_mb": len(model) / 1e6}

    def add(self, name: str, quantized: Quantized | None) -> None:
        """Write, check and judge one file."""
        path = self.folder / f"{name}{self.engine.suffix}"
        images = next(iter(self.calibrating()))[:CHECKED]
        check = export_file(
            self.net, path, images, classes=self.classes, engine=self.engine, quantized=quantized
        )
        session = self.engine.load(self.engine.read(path), threads=1)
        top1 = self._top1(session, name)
        self.rows[name] = {
            "name": name,
            "top1": top1,
            "size_mb": size_mb(path),
            "file": str(path),
            **check.as_json(),
        }

    def stepping(self) -> Callable[[int, int, float], None]:
        """Shows the steps of fine-tuning."""

        def on_step(done: int, total: int, loss: float) -> None:
            if done == 1:
                self.progress.stage("fine-tuning in 8 bits", total)
            self.progress.advance(1)

        return on_step

    def _batches(
        self, split: Split, indices: np.ndarray[Any, np.dtype[np.int64]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return eval_batches(
            split,
            indices,
            resolution=self.net.spec.resolution,
            batch=BATCH,
            normalisation=self.net.normalisation,
        )

    def _top1(self, session: Session, name: str) -> float:
        split = self.packed.val
        indices = np.arange(len(split.labels))
        self.progress.stage(f"judging {name}", len(indices))
        right = 0
        for images, labels in self._batches(split, indices):
            scores = np.concatenate([session.run(image[None]) for image in images.numpy()])
            right += int((scores.argmax(1) == labels.numpy()).sum())
            self.progress.advance(len(labels))
        return right / len(indices)


def _settings(packed: Packed, epochs: float, lr: float, seed: int) -> Settings:
    count = len(packed.train.labels)
    batch = min(64, max(4, count // 10))
    return Settings(
        epochs=epochs,
        batch=batch,
        lr=lr * batch / 64,
        schedule="cosine",
        warmup=min(0.25, epochs / 4),
        smoothing=0.1,
        average=0.99,
        augment=Augment(area=(0.6, 1.0)),
        seed=seed,
    )
