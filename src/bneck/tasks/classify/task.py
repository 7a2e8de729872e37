"""Classification as a task: what it reads, how it learns, answers and is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bneck.data.depth import deep
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve, to_text
from bneck.specs.transforms import with_classes, with_resolution
from bneck.specs.wrapper import PLAIN, Wrapped, Wrapper
from bneck.tasks.contract import Answers, Dataset, Metric, Prediction, Size, Table, Task, later
from bneck.tasks.data import as_input, known_bits, told_bits
from bneck.tasks.options import option

if TYPE_CHECKING:
    from bneck.devices.runtimes import Runtime
    from bneck.graphs.forms import Precision
    from bneck.nets.build import Net
    from bneck.training.settings import Settings

BUILTIN_RESOLUTION = 48
LEAST_RESOLUTION = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions:
    """What can be told to classification."""

    resolution: int | None = option(
        None,
        "Input side in pixels; default the network's, 48 for the built-in images.",
        "train", "search", "evaluate",
    )  # fmt: skip
    crop: str | None = option(
        None,
        "Part of an image that is scored: central (the middle 87.5 %), resize (shorter side to 256 / 224) or "
        "published (as a config.json next to imported weights says); default published if known, else central.",
        "evaluate",
    )
    labels: str | None = option(
        None, "A list of the classes by index, or a labels.csv that lies elsewhere.", "evaluate"
    )
    top: int = option(5, "How many classes to print (classification).", "predict")
    pixels: bool = option(
        False, "Fold the normalization in: the file takes uint8 RGB (classification).", "export"
    )


class Classify(Task):
    """One class per image."""

    name = "classify"
    summary = "one class per image"
    metric = Metric("top-1", "top1")
    default_network = "v3-small"
    builtin = True
    answer = "a score per class before the softmax"
    agrees = "label_agreement"
    scores_epochs = True
    Options = ClassifyOptions
    data_type = later("bneck.tasks.classify.dataset:ImageData")
    find = later("bneck.tasks.classify.dataset:find")
    prepare = later("bneck.tasks.classify.dataset:prepare")
    renumbered = later("bneck.tasks.classify.dataset:renumbered")
    samples = later("bneck.tasks.classify.dataset:samples")
    supernet_problem = later("bneck.tasks.classify.supernet:supernet_problem")
    evaluate = later("bneck.tasks.classify.evaluate:evaluate")
    compare = later("bneck.tasks.classify.files:compare")
    zoo = later("bneck.tasks.classify.tables:zoo_table")
    published = later("bneck.tasks.classify.tables:published_table")

    def arrange(
        self, network: str | Path | NetSpec, options: ClassifyOptions, dataset: Dataset | None
    ) -> tuple[NetSpec, Wrapper]:
        """The network with the dataset's classes, at the resolution asked for."""
        spec = resolve(network)
        side = options.resolution
        if side is None and dataset is not None and dataset.facts.get("kind") == "built in":
            side = BUILTIN_RESOLUTION
        if side is not None:
            if side < LEAST_RESOLUTION:
                raise InputError(f"resolution is {side}; it must be at least {LEAST_RESOLUTION}")
            spec = with_resolution(spec, side)
        return (spec if dataset is None else with_classes(spec, len(dataset.classes))), PLAIN

    def restored(self, spec: NetSpec, stored: Mapping[str, Any], classes: int) -> Wrapper:
        """Nothing stands around a classifier."""
        return PLAIN

    def told(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Nothing."""
        return {}

    def recipe(
        self, name: str | None, *, images: int, epochs: float | None, started: bool, seed: int
    ) -> Settings:
        """One of `recipes.RECIPES`; "finetune" with a start, else "small-data"."""
        from bneck.tasks.classify.recipes import RECIPES

        chosen = name or ("finetune" if started else "small-data")
        if chosen not in RECIPES:
            raise InputError(f"there is no recipe {chosen!r}; known are {', '.join(RECIPES)}")
        return RECIPES[chosen](images=images, epochs=epochs, seed=seed)

    def net(self, wrapped: Wrapped) -> Net:
        from bneck.nets.build import Net

        return Net(wrapped.network)

    def predict(
        self, answers: Answers, path: Path, options: ClassifyOptions, record: Mapping[str, Any]
    ) -> Prediction:
        """The best classes with their softmax probabilities; the central square is looked at."""
        from bneck.data.pack import decode, stored_side

        if options.top < 1:
            raise InputError(f"top is {options.top}; it must be at least 1")
        side = (answers.size or (answers.spec.resolution,) * 2)[0]
        stored = decode(deep(path, known_bits(answers, record)), stored_side(side))
        start = (stored.shape[1] - side) // 2
        pixels = stored[:, start : start + side, start : start + side]
        scores = answers(as_input(pixels, answers.normalisation)[None])[0][0]
        shares = np.exp(scores.astype(np.float64) - scores.max())
        shares /= shares.sum()
        best = [(answers.labels[i], float(shares[i])) for i in np.argsort(-shares)[: options.top]]
        return Prediction(
            found={"classes": [{"label": name, "score": share} for name, share in best]},
            line=", ".join(f"{name} {share:.1%}" for name, share in best),
        )

    def metadata(
        self, net: Any, record: Mapping[str, Any], engine: Runtime, precision: Precision,
        size: Size, options: ClassifyOptions,
    ) -> dict[str, str]:  # fmt: skip
        """Class names, normalisation, resolution, precision, kind of input and the spec."""
        names = record.get("classes") or ()
        count = net.spec.classes
        names = names if len(names) == count else [str(i) for i in range(count)]
        return {
            "classes": json.dumps([str(name) for name in names]),
            "mean": json.dumps(net.normalisation.mean),
            "std": json.dumps(net.normalisation.std),
            "resolution": str(net.spec.resolution),
            "precision": precision,
            "input": "pixels" if options.pixels else "normalised",
            "spec": to_text(net.spec),
            **told_bits(record),
        }

    def pixels(self, options: ClassifyOptions) -> bool:
        return options.pixels

    def check_line(self, check: Mapping[str, Any]) -> str:
        if "roundings" in check:
            return f"labels agree with the float network's on {check['label_agreement']:.1%}"
        return (
            f"labels agree on {check['label_agreement']:.1%}, scores differ by "
            f"{check['largest_difference']:.1e} of the largest"
        )

    def score_table(self, scores: Sequence[Mapping[str, Any]]) -> Table | None:
        """Top-5 and loss next to top-1."""
        return Table(
            title="accuracy in percent",
            columns=("split", "images", "top-1", "top-5", "loss"),
            rows=[
                (
                    one["split"], str(one["images"]), f"{100 * one['score']:.1f}",
                    f"{100 * one['top5']:.1f}", f"{one['loss']:.3f}",
                )
                for one in scores
            ],
            values=scores,
        )  # fmt: skip

    def report(self, record: Mapping[str, Any]) -> list[str]:
        """Top-5 and loss, and how the exported file agrees with the module."""
        lines = [
            f"On {one['split']}: top-5 {100 * one['top5']:.1f} %, loss {one['loss']:.3f}."
            for one in record.get("scores", {}).values()
        ]
        for name, check in record.get("files", {}).items():
            lines += [
                "",
                f"{name} agrees with the module on {100 * check['label_agreement']:.1f} % of "
                f"{check['images']} images (largest difference {check['largest_difference']:.1e} of the "
                "largest score).",
            ]
        return [*lines, ""]
