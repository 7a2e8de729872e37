"""The task: what stands between the commands and the other files. Imports torch when it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.transforms import with_resolution
from bneck.tasks.contract import Answers, Metric, Prediction, Scores
from bneck.tasks.defaults import TaskDefaults
from bneck.tasks.options import option
from gauge.head import GaugeHead
from gauge.tables import Readings, find


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeOptions:
    resolution: int | None = option(
        None, "Input side in pixels; default the network's.", "train", "search", "count", "measure"
    )
    column: str = option("number", "Column of the tables to learn (gauge).", "train", "search")


class ReadGauge(TaskDefaults):
    name: ClassVar[str] = "gauge"
    summary: ClassVar[str] = "one number per image"
    metric: ClassVar[Metric] = Metric("R2", "r2")
    default_network: ClassVar[str] = "v3-small"
    Options: ClassVar[type[Any]] = GaugeOptions
    cannot: ClassVar[Mapping[str, str]] = {
        "recipe": "gauges have one recipe; leave it out",
        "stream": "gauges are read into memory; leave it out",
        "teacher": "gauges learn from their tables only; leave it out",
        "bad_share": "gauges need all of their images; leave it out",
        "supernet": "a supernet scores classifiers only; leave it out",
    }

    def find(self, data: str | None, options: GaugeOptions, *, seed: int) -> Readings:
        assert data is not None  # None is for tasks with built-in images
        return find(Path(data), options.column)

    def arrange(
        self, network: Any, options: GaugeOptions, dataset: Any
    ) -> tuple[NetSpec, GaugeHead]:
        spec = resolve(network)
        spec = with_resolution(spec, options.resolution or spec.resolution)
        return spec, GaugeHead() if dataset is None else GaugeHead(**dataset.facts())

    def restored(self, spec: NetSpec, stored: Mapping[str, Any], classes: int) -> GaugeHead:
        return GaugeHead(**stored)

    def recipe(self, name: Any, *, images: int, epochs: Any, started: bool, seed: int) -> Any:
        from bneck.training.settings import Settings

        batch = min(32, max(4, images // 8))
        return Settings(
            epochs=epochs or 30.0, batch=batch, lr=0.002, average=0.9, bn_momentum=0.1, seed=seed
        )

    def prepare(
        self, dataset: Any, spec: NetSpec, wrapper: Any, options: Any, *, scratch: Path, seed: int,
        heldout: float = 0.0, **unused: Any,
    ) -> Any:  # fmt: skip
        made = self.data_type()(
            root=dataset.root, classes=dataset.classes, side=spec.resolution, heldout_share=heldout,
            seed=seed, scratch=scratch,
        )  # fmt: skip
        made.counts()  # opens the images
        return made

    def data_type(self) -> Any:
        from gauge.learning import GaugeData

        return GaugeData

    def module(self, spec: NetSpec, wrapper: Any, *, seed: int | None = None) -> Any:
        from bneck.nets.build import seeded
        from gauge.learning import GaugeNet

        return seeded(lambda: GaugeNet(wrapper.around(spec)), seed)

    def evaluate(
        self, answers: Answers, data: str | None, options: Any, *, split: str, record: Any, seed: int,
        progress: Any, out: Path | None = None,
    ) -> Scores:  # fmt: skip
        root = data or record.get("data", {}).get("path")
        if root is None:
            raise InputError("the images to score on are needed; pass their folder with --data")
        images = self.data_type()(
            root=Path(root), classes=answers.labels, side=answers.spec.resolution, heldout_share=0.0,
            seed=seed, scratch=Path(),
        )  # fmt: skip
        return images.evaluate(answers, split, progress)

    def predict(self, answers: Answers, path: Path, options: Any, record: Any) -> Prediction:
        size, around = (answers.spec.resolution,) * 2, answers.wrapped
        image = self.samples([path], "", size=size, count=1, normalisation=answers.normalisation)
        number = around.low + float(answers(image)[0][0, 0]) * (around.high - around.low)
        (name,) = answers.labels
        return Prediction(found={name: number}, line=f"{name} {number:.4g}")

    def samples(self, source: Any, split: str, *, size: Any, count: int, normalisation: Any) -> Any:
        from bneck.data.read import read_images

        files = [file for file, _ in source.rows[split]] if isinstance(source, Readings) else source
        return read_images(files, size, count, normalisation)
