"""Classification as a task: what it reads, how it learns, answers and is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bneck.records.progress import Progress
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import Normalisation
from bneck.specs.text import resolve, to_text
from bneck.specs.transforms import with_classes, with_resolution
from bneck.specs.wrapper import PLAIN, Wrapper
from bneck.tasks.contract import Answers, Dataset, Metric, Prediction, Scores, Size, Table
from bneck.tasks.defaults import TaskDefaults
from bneck.tasks.options import option

if TYPE_CHECKING:
    from torch import Tensor

    from bneck.devices.runtimes import Runtime, Session
    from bneck.graphs.forms import Precision
    from bneck.nets.build import WrappedNet
    from bneck.nets.quantize import Quantized
    from bneck.tasks.classify.dataset import ImageData, LabelledImages
    from bneck.training.loop import TrainingProblem
    from bneck.training.processes import ProcessGroup
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
        False, "Fold the normalisation in: the file takes uint8 RGB (classification).", "export"
    )


class Classify(TaskDefaults):
    """One class per image."""

    name: ClassVar[str] = "classify"
    summary: ClassVar[str] = "one class per image"
    metric: ClassVar[Metric] = Metric("top-1", "top1")
    default_network: ClassVar[str] = "v3-small"
    builtin: ClassVar[bool] = True
    scores_epochs: ClassVar[bool] = True
    Options: ClassVar[type[Any]] = ClassifyOptions

    def find(self, data: str | None, options: ClassifyOptions, *, seed: int) -> LabelledImages:
        """Class folders, tar shards, tables or a URL; None takes the built-in images."""
        from bneck.tasks.classify.dataset import find

        return find(data, seed=seed)

    def arrange(
        self, network: str | Path | NetSpec, options: ClassifyOptions, dataset: Dataset | None
    ) -> tuple[NetSpec, Wrapper]:
        """The network with the dataset's classes, at the resolution asked for."""
        spec = resolve(network)
        side = options.resolution
        if side is None and dataset is not None and dataset.facts().get("kind") == "built in":
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

    def prepare(
        self,
        dataset: Any,
        spec: NetSpec,
        wrapper: Wrapper,
        options: ClassifyOptions,
        *,
        scratch: Path,
        seed: int,
        heldout: float = 0.0,
        stream: bool = False,
        bad_share: float = 0.01,
        processes: int = 1,
        progress: Progress,
    ) -> ImageData:
        """Decode the images into a cache once, or leave them to be streamed."""
        from bneck.tasks.classify.dataset import prepare

        return prepare(
            dataset, spec.resolution, scratch=scratch, seed=seed, heldout=heldout, stream=stream,
            bad_share=bad_share, progress=progress,
        )  # fmt: skip

    def data_type(self) -> type[Any]:
        """See `classify.dataset`."""
        from bneck.tasks.classify.dataset import ImageData

        return ImageData

    def module(self, spec: NetSpec, wrapper: Wrapper, *, seed: int | None = None) -> WrappedNet:
        """The network itself."""
        from bneck.nets.build import Net, build

        return Net(spec) if seed is None else build(spec, seed=seed)

    def supernet_problem(
        self, net: Any, data: Any, settings: Settings, group: ProcessGroup
    ) -> TrainingProblem[Any]:
        """One random network per step."""
        from bneck.tasks.classify.supernet import supernet_problem

        return supernet_problem(net, data, settings, group)

    def evaluate(
        self,
        answers: Answers,
        data: str | None,
        options: ClassifyOptions,
        *,
        split: str,
        record: Mapping[str, Any],
        seed: int,
        progress: Progress,
        out: Path | None = None,
    ) -> Scores:
        """Top-1, top-5 and loss on labelled images, see `classify.evaluate`."""
        from bneck.tasks.classify.evaluate import evaluate

        return evaluate(
            answers, data, options, split=split, record=record, seed=seed, progress=progress
        )

    def predict(
        self, answers: Answers, path: Path, options: ClassifyOptions, record: Mapping[str, Any]
    ) -> Prediction:
        """The best classes with their softmax probabilities; the central square is looked at."""
        from bneck.data.pack import decode, stored_side

        if options.top < 1:
            raise InputError(f"top is {options.top}; it must be at least 1")
        side = (answers.size or (answers.spec.resolution,) * 2)[0]
        stored = decode(path, stored_side(side))
        start = (stored.shape[1] - side) // 2
        pixels = stored[:, start : start + side, start : start + side]
        mean, std = (
            np.array(v, np.float32)[:, None, None]
            for v in (answers.normalisation.mean, answers.normalisation.std)
        )
        scores = answers(((pixels.astype(np.float32) / 255 - mean) / std)[None])[0][0]
        shares = np.exp(scores.astype(np.float64) - scores.max())
        shares /= shares.sum()
        best = [(answers.labels[i], float(shares[i])) for i in np.argsort(-shares)[: options.top]]
        return Prediction(
            found={"classes": [{"label": name, "score": share} for name, share in best]},
            line=", ".join(f"{name} {share:.1%}" for name, share in best),
        )

    def samples(
        self, source: Any, split: str, *, size: Size, count: int, normalisation: Normalisation
    ) -> Tensor:
        """Central squares."""
        from bneck.tasks.classify.dataset import samples

        return samples(source, split, size[0], count, normalisation)

    def metadata(
        self,
        net: Any,
        record: Mapping[str, Any],
        engine: Runtime,
        precision: Precision,
        size: Size,
        options: ClassifyOptions,
    ) -> dict[str, str]:
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
        }

    def pixels(self, options: Any) -> bool:
        """As `pixels` says."""
        return bool(options.pixels)

    def compare(
        self,
        net: Any,
        session: Session,
        images: Tensor,
        quantized: Quantized | None,
        precision: Precision,
        options: Any,
    ) -> dict[str, Any]:
        """Labels that agree and the largest difference of scores, see `classify.files`."""
        from bneck.tasks.classify.files import compare

        return compare(net, session, images, quantized, precision)

    def check_line(self, check: Mapping[str, Any]) -> str:
        """How the file's outputs compare with the module's."""
        return (
            f"labels agree on {check['label_agreement']:.1%}, scores differ by "
            f"{check['largest_difference']:.1e} of the largest"
        )

    def count(self, networks: Iterable[str], options: Any) -> Table:
        """Parameters, multiply-adds and activation memory."""
        from bneck.tasks.classify.tables import count_table

        return count_table(networks)

    def zoo(self, pattern: str, options: Any) -> Table:
        """Every network of the paper with what was printed about it."""
        from bneck.tasks.classify.tables import zoo_table

        return zoo_table(pattern)

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
