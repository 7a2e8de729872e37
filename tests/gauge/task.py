"""The task: what stands between the commands and the other files. Imports torch when it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.transforms import with_resolution
from bneck.tasks.contract import Answers, Metric, Prediction, Task, later
from bneck.tasks.options import option
from gauge.head import GaugeHead


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeOptions:
    resolution: int | None = option(
        None, "Input side in pixels; default the network's.", "train", "search", "count", "measure"
    )
    column: str = option("number", "Column of the tables to learn (gauge).", "train", "search")


class ReadGauge(Task):
    name = "gauge"
    summary = "one number per image"
    metric = Metric("R2", "r2")
    default_network = "v3-small"
    Options = GaugeOptions
    cannot: ClassVar[Mapping[str, str]] = {
        "recipe": "gauges have one recipe; leave it out",
        "stream": "gauges are read into memory; leave it out",
        "teacher": "gauges learn from their tables only; leave it out",
        "bad_share": "gauges need all of their images; leave it out",
        "supernet": "a supernet scores classifiers only; leave it out",
    }
    data_type = later("gauge.learning:GaugeData")
    find = later("gauge.tables:find")
    prepare = later("gauge.learning:prepare")
    evaluate = later("gauge.learning:evaluate")
    net = later("gauge.learning:GaugeNet")

    def arrange(
        self, network: Any, options: GaugeOptions, dataset: Any
    ) -> tuple[NetSpec, GaugeHead]:
        spec = resolve(network)
        spec = with_resolution(spec, options.resolution or spec.resolution)
        return spec, GaugeHead() if dataset is None else GaugeHead(**dataset.facts)

    def restored(self, spec: NetSpec, stored: Mapping[str, Any], classes: int) -> GaugeHead:
        return GaugeHead(**stored)

    def recipe(self, name: Any, *, images: int, epochs: Any, started: bool, seed: int) -> Any:
        from bneck.training.settings import Settings

        batch = min(32, max(4, images // 8))
        return Settings(
            epochs=epochs or 30.0, batch=batch, lr=0.002, average=0.9, bn_momentum=0.1, seed=seed
        )

    def predict(self, answers: Answers, path: Path, options: Any, record: Any) -> Prediction:
        size, around = (answers.spec.resolution,) * 2, answers.wrapped
        image = self.samples([path], "", size=size, count=1, normalisation=answers.normalisation)
        number = around.low + float(answers(image)[0][0, 0]) * (around.high - around.low)
        (name,) = answers.labels
        return Prediction(found={name: number}, line=f"{name} {number:.4g}")
