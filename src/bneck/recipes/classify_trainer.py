"""How a search trains and judges classifiers: images packed once, mean probability as the judge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bneck.data.batches import eval_batches, holdout
from bneck.data.find import find_images
from bneck.data.pack import Packed, open_pack, pack_sources
from bneck.nets.build import Net, build
from bneck.nets.shrink import shrink
from bneck.nets.weights import load_net
from bneck.recipes.progress import Advancing
from bneck.recipes.run import Run
from bneck.recipes.shipping import ship
from bneck.recipes.splits import BUILTIN
from bneck.recipes.trainer import Judged
from bneck.records.files import write_bytes
from bneck.specs.network import NetSpec
from bneck.specs.transforms import with_classes
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.tasks.classify import evaluate
from bneck.train.loop import Data, Settings, train

EVAL_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyTrainer:
    """Which images: a pack's folder, and the share of its train split that is held out."""

    pack: Path
    classes: int
    heldout_share: float
    seed: int

    @property
    def metric(self) -> str:
        return "top-1"

    @property
    def wrapper(self) -> Wrapper:
        return PLAIN

    @property
    def chance(self) -> float:
        return 1 / self.classes

    def prepared(self, spec: NetSpec) -> NetSpec:
        return with_classes(spec, self.classes)

    def open(self) -> tuple[Packed, np.ndarray, np.ndarray]:
        """The pack, and the indices to fit on and those held out."""
        return _open(self.pack, self.heldout_share, self.seed)

    def fitted(self) -> int:
        return len(self.open()[1])

    def build(self, spec: NetSpec, seed: int) -> Net:
        return build(spec, seed=seed)

    def load(self, spec: NetSpec, weights: Path) -> Net:
        return load_net(spec, weights)

    def shrink(self, net: Net, spec: NetSpec) -> Net:
        return shrink(net, spec)

    def fit(self, net: Net, settings: Settings, *, heldout: bool, **how: Any) -> None:
        packed, fit, _ = self.open()
        indices = fit if heldout else np.arange(len(packed.train.labels))
        train(net, Data(packed.train, indices, net.spec.resolution), settings, **how)

    def judge(self, net: Net, *, heldout: bool) -> Judged:
        """Top-1, and the mean probability of the right class, which moves with every image."""
        packed, _, held = self.open()
        split = packed.train if heldout else packed.val
        batches = eval_batches(
            split,
            held if heldout else np.arange(len(split.labels)),
            resolution=net.spec.resolution,
            batch=EVAL_BATCH,
            normalisation=net.normalisation,
        )
        found = evaluate(net, batches)
        return Judged(score=found.top1, expected=found.expected, loss=found.loss)

    def ship(self, run: Run, spec: NetSpec, weights: Path) -> dict[str, Any]:
        write_bytes(run.folder.weights, weights.read_bytes())
        net = load_net(spec, run.folder.weights)
        return ship(run.folder, net, self.open()[0], run.settings.deployment)


@lru_cache(maxsize=1)
def _open(folder: Path, share: float, seed: int) -> tuple[Packed, np.ndarray, np.ndarray]:
    packed = open_pack(folder)
    return packed, *holdout(packed.train.labels, share, seed)


def classify_trainer(run: Run) -> ClassifyTrainer:
    """Decode the run's images once, for all its processes.

    Raises:
        InputError: no such folder, an empty class, too many bad images.
    """
    settings, folder = run.settings, run.folder.scratch / "pack"
    if "data" in run.record:  # a resumed run goes on with the images it began with
        return _trainer(run, open_pack(folder))
    found = find_images(run.data, seed=settings.seed)
    run.progress.stage("reading images", len(found.train.labels) + len(found.val.labels))
    packed = pack_sources(found, settings.resolution, folder, progress=Advancing(run.progress))
    trainer = _trainer(run, packed)
    run.record["data"] = {
        "name": BUILTIN if run.data is None else run.data.name,
        "classes": list(packed.classes),
        "resolution": settings.resolution,
        "train": len(packed.train.labels),
        "val": len(packed.val.labels),
        "heldout": len(trainer.open()[2]),
        "bad": [[str(bad.path), bad.reason] for bad in packed.bad],
    }
    run.save()
    if packed.bad:
        run.progress.say(
            f"{len(packed.bad)} unreadable images left out, listed in {run.folder.run_json}"
        )
    return trainer


def _trainer(run: Run, packed: Packed) -> ClassifyTrainer:
    return ClassifyTrainer(
        pack=run.folder.scratch / "pack",
        classes=len(packed.classes),
        heldout_share=run.settings.heldout,
        seed=run.settings.seed,
    )
