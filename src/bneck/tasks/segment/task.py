"""Segmentation as a task: R-ASPP and LR-ASPP (section 6.4) around any backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Answers, Metric, Prediction, Size, Task, later
from bneck.tasks.options import sized
from bneck.tasks.segment.head import Aspp
from bneck.tasks.segment.options import SegmentOptions, count_of, named_segmenter, restored

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from bneck.devices.runtimes import Runtime, Session
    from bneck.graphs.forms import Precision
    from bneck.nets.quantize import Quantized
    from bneck.training.settings import Settings

EPOCHS, BATCH, LR = 50.0, 8, 0.1
FULL = (1024, 2048)  # Cityscapes, (height, width)


class Segment(Task):
    """A class for every pixel."""

    name = "segment"
    summary = "a class for every pixel (R-ASPP, LR-ASPP)"
    metric = Metric("mIOU", "miou")
    default_network = "v3-small+rf2"
    paints = ("mask",)
    any_size = True
    statistics = (64, 8)
    answer = "class scores per cell of 8 x 8 pixels; the largest is the class"
    agrees = "equal_pixels"
    Options = SegmentOptions
    cannot: ClassVar[Mapping[str, str]] = {
        "supernet": "a supernet scores classifiers only; leave it out, then every trial is trained",
        "stream": "a segmenter reads its images in every epoch anyway; leave it out",
        "lose": "a bound on the loss is known for classification alone; give a --target",
        "recipe": "recipes by name are for classification; leave it out",
        "choose": "one epoch behind a frozen backbone says too little of a segmenter, whose head has no "
        "weights yet; search from one network with --from",
    }
    data_type = later("bneck.tasks.segment.dataset:SegmentationData")
    find = later("bneck.tasks.segment.dataset:find")
    prepare = later("bneck.tasks.segment.dataset:prepare")
    evaluate = later("bneck.tasks.segment.dataset:evaluate")
    net = later("bneck.tasks.segment.module:SegmentNet")
    build = later("bneck.tasks.segment.module:build_segmenter")
    count = later("bneck.tasks.segment.tables:count_table")
    zoo = later("bneck.tasks.segment.tables:zoo_table")
    score_table = later("bneck.tasks.segment.tables:score_table")
    report = later("bneck.tasks.segment.report:report_lines")

    def arrange(
        self, network: str | Path | NetSpec, options: SegmentOptions, dataset: Any
    ) -> tuple[NetSpec, Wrapper]:
        """The head around a network.

        Without `output_stride` it is the paper's 16, unless the network's own is smaller or its name
        has one (`v3-large+rf2+os32`).
        """
        classes = count_of(options) if dataset is None else len(dataset.classes)
        seg = named_segmenter(network, options, classes=classes)
        shape = (sized(options.size) or FULL) if dataset is None else dataset.shape
        wrapper = Aspp(
            shape=shape, classes=classes, head=seg.head, filters=seg.filters,
            stride=seg.output_stride, global_pool=options.global_pool,
        )  # fmt: skip
        return seg.network, wrapper

    def elsewhere(self, options: SegmentOptions) -> SegmentOptions:
        """Without the class list of the run's own masks."""
        there: SegmentOptions = replace(options, classes=None)
        return there

    def restored(self, spec: NetSpec, stored: Mapping[str, Any], classes: int) -> Wrapper:
        """The head as a record has it."""
        return restored(stored, classes)

    def stored(self, spec: NetSpec, wrapper: Any) -> dict[str, Any]:
        """All fields of the wrapper."""
        return {
            "head": wrapper.head, "filters": wrapper.filters, "classes": wrapper.classes,
            "output_stride": wrapper.stride, "global_pool": wrapper.global_pool,
            "shape": list(wrapper.shape),
        }  # fmt: skip

    def told(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """The same from a file's metadata."""
        settings, size = json.loads(metadata["segmenter"]), json.loads(metadata["size"])
        return {
            "head": settings["head"], "filters": settings["filters"], "output_stride": None,
            "global_pool": settings["window"] == 0, "shape": size,
        }  # fmt: skip

    def recipe(
        self, name: str | None, *, images: int, epochs: float | None, started: bool, seed: int
    ) -> Settings:
        """The protocol of the DeepLab line, which the paper refers to (6.4).

        SGD with momentum 0.9, poly schedule, random scale from 0.5 to 2 in steps of 0.25, crop, flip.
        The paper's number of steps is unpublished. Changed for short trainings: batch norm's momentum
        0.1, a warm-up of an epoch at most, EMA of weights over about 100 steps.
        """
        from bneck.training.settings import Settings

        epochs = EPOCHS if epochs is None else epochs
        batch = min(BATCH, max(2, images // 2))
        return Settings(
            epochs=epochs, batch=batch, lr=LR * batch / BATCH, schedule="poly",
            warmup=min(1.0, epochs / 10), weight_decay=4e-5, average=0.99, bn_momentum=0.1,
            sgd_momentum=0.9, seed=seed,
        )  # fmt: skip

    def outputs(self, net: Any, images: Tensor) -> tuple[Tensor, ...]:
        """Class scores (N, classes, h, w) at the size of the map that the head works on."""
        return (net.head(*net.features(images)),)

    def predict(
        self, answers: Answers, path: Path, options: SegmentOptions, record: Mapping[str, Any]
    ) -> Prediction:
        """The class of every pixel, seen at the size that the run was trained at."""
        from bneck.tasks.segment.scoring import seen

        return seen(answers, path, record)

    def paint(self, name: str, prediction: Prediction) -> Image:
        """The ids of the classes, 8 bits per pixel, as the run's own masks have them."""
        import numpy as np
        from PIL import Image as Pictures

        _, classes, labels = prediction.raw
        ids = np.zeros(256, np.uint8)
        ids[: len(labels["ids"])] = labels["ids"]
        return Pictures.fromarray(ids[classes])

    def draw(self, path: Path, prediction: Prediction, answers: Answers) -> Image | None:
        """The classes painted over the picture, with a legend."""
        from bneck.tasks.segment.drawing import overlay

        pixels, classes, labels = prediction.raw
        return overlay(pixels, classes, labels["names"], labels["colours"])

    def size(self, spec: NetSpec, wrapper: Any, options: SegmentOptions) -> Size:
        """What was asked for, else the size that the run was trained at."""
        given: Size | None = sized(options.size)
        shape: Size = wrapper.shape
        return given or shape

    def title(self, spec: NetSpec, wrapper: Any) -> str:
        """`v3-small+rf2+os16 lraspp128`."""
        return f"{spec.name} {wrapper.head}{wrapper.filters}"

    def metadata(
        self, net: Any, record: Mapping[str, Any], engine: Runtime, precision: Precision,
        size: Size, options: SegmentOptions,
    ) -> dict[str, str]:  # fmt: skip
        """Names, colours and ids of the classes, the size, the order of axes, the head."""
        labels = (record.get("data") or {}).get("labels")
        if labels is None:
            labels = {"names": [str(i) for i in range(net.wrapped.classes)]}
        axes = "NHW" if options.argmax else "NHWC" if engine.suffix == ".tflite" else "NCHW"
        return {
            "task": "segment",
            "precision": precision,
            "classes": json.dumps(list(labels["names"])),
            "labels": json.dumps(dict(labels)),
            "mean": json.dumps(net.normalisation.mean),
            "std": json.dumps(net.normalisation.std),
            "size": json.dumps(size),
            "axes": axes,
            "spec": to_text(net.wrapped.network),
            "segmenter": json.dumps(net.wrapped.settings()),
        }

    def finished(self, options: SegmentOptions) -> bool:
        """The choice of the best class."""
        return options.argmax

    def compare(
        self, net: Any, session: Session, images: Tensor, quantized: Quantized | None,
        precision: Precision, options: SegmentOptions,
    ) -> dict[str, Any]:  # fmt: skip
        """Pixels of the same class and the largest difference of scores, see `segment.file.compare`."""
        from bneck.tasks.segment.file import compare

        return compare(net, session, images, quantized, precision, argmax=options.argmax)

    def check_line(self, check: Mapping[str, Any]) -> str:
        return (
            f"{check['equal_pixels']:.2%} of the pixels are equal, scores differ by "
            f"{check['largest_difference']:.1e} of the largest"
        )
