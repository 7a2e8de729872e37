"""Train one classifier: from scratch, or from the weights of an import or an earlier run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bneck.costs.count import count
from bneck.data.batches import eval_batches
from bneck.data.builtin import fashion_pack
from bneck.data.folders import list_images
from bneck.data.pack import Packed, open_pack, pack
from bneck.export.files import export_file
from bneck.nets.build import Net, build
from bneck.nets.transfer import is_folded, restore_statistics, transferred
from bneck.nets.weights import load_net, save_weights
from bneck.recipes.command import command_line
from bneck.recipes.networks import Network
from bneck.recipes.networks import build as build_named
from bneck.recipes.progress import Progress, Silent
from bneck.recipes.run import check_empty
from bneck.recipes.training import RECIPES, stored_settings
from bneck.records.commit import commit
from bneck.records.files import locked, write_json, write_text
from bneck.records.run import FORMAT, RunFolder
from bneck.report.classify import write_classify_report
from bneck.specs.errors import InputError
from bneck.specs.normalisation import IMAGENET, Normalisation
from bneck.specs.text import load, resolve, to_text
from bneck.specs.transforms import with_classes, with_resolution
from bneck.tasks.classify import evaluate
from bneck.train.loop import Data, Settings, train

KIND = "classify"
BUILTIN_RESOLUTION = 48
STATISTICS_IMAGES = 512  # from which folded batch norms learn their statistics
CHECK_IMAGES = 256
EVAL_BATCH = 250


def train_classify(
    network: Network,
    data: str | Path | None = None,
    *,
    start: str | Path | None = None,
    recipe: str | None = None,
    frozen: bool = False,
    resolution: int | None = None,
    epochs: float | None = None,
    batch: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a network on a folder of images, judge it, export it.

    Args:
        network: a zoo name, a spec file, a run's folder; what is trained.
        data: a folder `train/CLASS/*` and `val/CLASS/*`, or `CLASS/*`, which is split; None takes
            the built-in images.
        start: the folder of an import or a run to take weights from; a narrower `network` keeps the
            strongest channels. None trains from scratch.
        recipe: "small-data", "finetune" or "paper"; None takes "finetune" with a start, else
            "small-data".
        frozen: train only what stands behind the pool.
        resolution: input side in pixels; None: 48 for the built-in images, else the network's own.
        epochs: of training; None takes the recipe's.
        batch: images a step; None takes the recipe's. The rate follows it.
        lr: the peak rate; None takes the recipe's.
        seed: everything random follows from it.
        out: the run's folder, new or empty; None makes one under runs/.
        progress: receives what happens; None tells nobody.

    Returns:
        The run's record, as in its `run.json`, with its folder under "run".

    Raises:
        InputError: wrong input; the message is one sentence.
    """
    root = None if data is None else Path(data)
    spec = resolve(network)
    side = resolution or (BUILTIN_RESOLUTION if root is None else spec.resolution)
    if side < 32:
        raise InputError(f"resolution is {side}; it must be at least 32")
    images = 5_000 if root is None else len(list_images(root, seed=seed).train)
    settings = _settings(recipe, start is not None, images, epochs, batch, lr, seed, frozen)
    folder = RunFolder(Path(out) if out is not None else _fresh_folder())
    check_empty(folder.path)
    if start is not None:
        _check_start(Path(start))
    folder.path.mkdir(parents=True, exist_ok=True)
    with locked(folder.path / ".lock"):
        record = _new_record(root, start, side, settings)
        write_text(folder.scratch / "begin.yaml", to_text(with_resolution(spec, side)))
        write_json(folder.run_json, record)
        try:
            return _carry(folder, record, progress or Silent())
        except InputError:
            if not (folder.scratch / "checkpoint").is_file() and not folder.weights.is_file():
                shutil.rmtree(folder.path)  # refused before anything was learnt
            raise


def resume_classify(run: str | Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Go on with a training that was broken off, from its last epoch.

    Raises:
        InputError: no training run, or one that another process works on.
    """
    folder = RunFolder(Path(run))
    record = folder.read()
    if record.get("kind") != KIND:
        raise InputError(
            f"{folder.path} is a run of kind {record.get('kind')!r}, not {KIND!r}; give a training's folder"
        )
    with locked(folder.path / ".lock"):
        return _carry(folder, record, progress or Silent())


def _new_record(
    root: Path | None, start: str | Path | None, side: int, settings: Settings
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": KIND,
        "state": "running",
        "version": metadata.version("bneck"),
        "commit": commit(),
        "command": command_line("bneck.train_classify(...)"),
        "started": _now(),
        "settings": {
            "data": None if root is None else str(root.resolve()),
            "start": None if start is None else str(Path(start).resolve()),
            "resolution": side,
            "seed": settings.seed,
            "training": asdict(settings),
        },
    }


def _carry(folder: RunFolder, record: dict[str, Any], progress: Progress) -> dict[str, Any]:
    if record["state"] != "finished":
        packed = _packed(folder, record, progress)
        net = _trained(folder, record, packed, progress)
        _finish(folder, record, net, packed)
    write_classify_report(folder.path)
    shutil.rmtree(folder.scratch, ignore_errors=True)
    return {"run": str(folder.path), **record}


def _packed(folder: RunFolder, record: dict[str, Any], progress: Progress) -> Packed:
    settings, place = record["settings"], folder.scratch / "pack"
    if "data" in record:
        return open_pack(place)
    if settings["data"] is None:
        packed, name = fashion_pack(place, settings["resolution"]), "Fashion-MNIST (built in)"
    else:
        listing = list_images(Path(settings["data"]), seed=settings["seed"])
        name = Path(settings["data"]).name
        progress.stage("reading images", len(listing.train) + len(listing.val))
        before = 0

        def advance(done: int, total: int) -> None:
            nonlocal before
            progress.advance(done - before)
            before = done

        packed = pack(listing, settings["resolution"], place, progress=advance)
    record["data"] = {
        "name": name,
        "classes": list(packed.classes),
        "resolution": settings["resolution"],
        "train": len(packed.train.labels),
        "val": len(packed.val.labels),
        "bad": [[str(bad.path), bad.reason] for bad in packed.bad],
    }
    write_json(folder.run_json, record)
    return packed


def _trained(folder: RunFolder, record: dict[str, Any], packed: Packed, progress: Progress) -> Net:
    settings = stored_settings(record["settings"]["training"])
    spec = with_classes(load(folder.scratch / "begin.yaml"), len(packed.classes))
    net = _begun(record, spec, settings, packed, progress)
    record["normalisation"] = net.normalisation.as_json()
    write_json(folder.run_json, record)  # the export reads it
    write_text(folder.spec, to_text(net.spec))
    begun = 0

    def on_step(done: int, total: int, loss: float) -> None:
        nonlocal begun
        if not begun:
            progress.stage(f"training {spec.name}", total)
        progress.advance(done - begun)
        begun = done

    indices = np.arange(len(packed.train.labels))
    train(
        net,
        Data(packed.train, indices, spec.resolution),
        settings,
        checkpoint=folder.scratch / "checkpoint",
        on_step=on_step,
    )
    return net


def _begun(
    record: dict[str, Any], spec: Any, settings: Settings, packed: Packed, progress: Progress
) -> Net:
    start = record["settings"]["start"]
    if start is None:
        return build(spec, seed=settings.seed)
    source = build_named(start)
    net = transferred(source, spec, seed=settings.seed)
    if is_folded(net):
        progress.say(
            "batch norm was folded in the start's weights: its statistics are made from the images"
        )
        restore_statistics(net, _some(packed, spec.resolution, net.normalisation))
    return net


def _some(packed: Packed, resolution: int, normalisation: Normalisation) -> Iterator[Tensor]:
    """Central crops of train images, spread evenly."""
    count_ = len(packed.train.labels)
    indices = np.unique(np.linspace(0, count_ - 1, STATISTICS_IMAGES).astype(np.int64))
    batches = eval_batches(
        packed.train, indices, resolution=resolution, batch=32, normalisation=normalisation
    )
    return (images for images, _ in batches)


def _finish(folder: RunFolder, record: dict[str, Any], net: Net, packed: Packed) -> None:
    split, side = packed.val, net.spec.resolution
    everything = np.arange(len(split.labels))
    how: dict[str, Any] = {"resolution": side, "normalisation": net.normalisation}
    accuracy = evaluate(net, eval_batches(split, everything, batch=EVAL_BATCH, **how))
    save_weights(net.state_dict(), folder.weights)
    some = np.unique(np.linspace(0, len(split.labels) - 1, CHECK_IMAGES).astype(np.int64))
    images = next(iter(eval_batches(split, some, batch=len(some), **how)))[0]
    check = export_file(load_trained(folder), folder.model, images, classes=packed.classes)
    costs = count(net.spec)
    record |= {
        "name": net.spec.name,
        "digest": net.spec.digest(),
        "params": costs.params,
        "madds": costs.madds,
        **asdict(accuracy),
        "export": check.as_json(),
        "state": "finished",
        "finished": _now(),
    }
    write_json(folder.run_json, record)


def load_trained(folder: RunFolder) -> Net:
    """The net of a run folder, with its normalisation."""
    net = load_net(load(folder.spec), folder.weights)
    stored = folder.read().get("normalisation")
    net.normalisation = IMAGENET if stored is None else Normalisation.from_json(stored)
    return net


def _settings(
    recipe: str | None,
    started: bool,
    images: int,
    epochs: float | None,
    batch: int | None,
    lr: float | None,
    seed: int,
    frozen: bool,
) -> Settings:
    name = recipe or ("finetune" if started else "small-data")
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; known are {', '.join(RECIPES)}")
    if frozen and not started:
        raise InputError("frozen rows need weights to keep; name a start, or leave --frozen out")
    if epochs is not None and not 0 < epochs < float("inf"):
        raise InputError(f"epochs is {epochs}; it must be a number above 0")
    if batch is not None and batch < 2:
        raise InputError(f"batch is {batch}; batch norm needs at least 2 images")
    if lr is not None and not 0 < lr < float("inf"):
        raise InputError(f"lr is {lr}; it must be a number above 0")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must be at least 0 and below 2^32")
    settings = RECIPES[name](images=images, epochs=epochs, seed=seed)
    if batch is not None:
        settings = replace(settings, batch=batch, lr=settings.lr * batch / settings.batch)
    if lr is not None:
        settings = replace(settings, lr=lr)
    return replace(settings, frozen=frozen)


def _check_start(path: Path) -> None:
    if not RunFolder(path).weights.is_file():
        raise InputError(
            f"{path} has no trained weights; give the folder of a finished run or of bneck import"
        )


def _fresh_folder() -> Path:
    return Path("runs") / f"train-{datetime.now():%Y%m%d-%H%M%S}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
