"""Segmentation as a task: R-ASPP and LR-ASPP (section 6.4) around any backbone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bneck.records.progress import Progress
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.normalisation import Normalisation
from bneck.specs.text import to_text
from bneck.specs.wrapper import Wrapper
from bneck.tasks.contract import Answers, Metric, Prediction, Scores, Size, Table
from bneck.tasks.defaults import TaskDefaults
from bneck.tasks.options import sized
from bneck.tasks.segment.head import Aspp
from bneck.tasks.segment.options import SegmentOptions, count_of, named_segmenter, restored

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from bneck.devices.runtimes import Runtime, Session
    from bneck.graphs.forms import Precision
    from bneck.nets.build import WrappedNet
    from bneck.nets.quantize import Quantized
    from bneck.tasks.segment.dataset import MaskedImages, SegmentationData
    from bneck.training.settings import Settings

EPOCHS, BATCH, LR = 50.0, 8, 0.1
FULL = (1024, 2048)  # Cityscapes, (height, width)
LEAST_WINDOW = 32  # a side of a sliding window: one pixel of the coarsest map


class Segment(TaskDefaults):
    """A class for every pixel."""

    name: ClassVar[str] = "segment"
    summary: ClassVar[str] = "a class for every pixel (R-ASPP, LR-ASPP)"
    metric: ClassVar[Metric] = Metric("mIOU", "miou")
    default_network: ClassVar[str] = "v3-small+rf2"
    paints: ClassVar[tuple[str, ...]] = ("mask",)
    any_size: ClassVar[bool] = True
    statistics: ClassVar[tuple[int, int]] = (64, 8)
    Options: ClassVar[type[Any]] = SegmentOptions
    cannot: ClassVar[Mapping[str, str]] = {
        "supernet": "a supernet scores classifiers only; leave it out, then every trial is trained",
        "stream": "a segmenter reads its images in every epoch anyway; leave it out",
    }

    def find(self, data: str | None, options: SegmentOptions, *, seed: int) -> MaskedImages:
        """A folder of images and masks."""
        from bneck.tasks.segment.dataset import find

        assert data is not None
        return find(Path(data), options, seed=seed)

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

        if name is not None:
            raise InputError(
                f"the recipe {name} is for classification; leave --recipe out for segmentation"
            )
        epochs = EPOCHS if epochs is None else epochs
        batch = min(BATCH, max(2, images // 2))
        return Settings(
            epochs=epochs, batch=batch, lr=LR * batch / BATCH, schedule="poly",
            warmup=min(1.0, epochs / 10), weight_decay=4e-5, average=0.99, bn_momentum=0.1,
            sgd_momentum=0.9, seed=seed,
        )  # fmt: skip

    def prepare(
        self,
        dataset: Any,
        spec: NetSpec,
        wrapper: Wrapper,
        options: SegmentOptions,
        *,
        scratch: Path,
        seed: int,
        heldout: float = 0.0,
        stream: bool = False,
        bad_share: float = 0.01,
        processes: int = 1,
        progress: Progress,
    ) -> SegmentationData:
        """Read all train masks once."""
        from bneck.tasks.segment.dataset import prepare

        return prepare(
            dataset, options, scratch=scratch, seed=seed, heldout=heldout, processes=processes,
            progress=progress,
        )  # fmt: skip

    def data_type(self) -> type[Any]:
        """See `segment.dataset`."""
        from bneck.tasks.segment.dataset import SegmentationData

        return SegmentationData

    def module(self, spec: NetSpec, wrapper: Any, *, seed: int | None = None) -> WrappedNet:
        """The segmenter."""
        from bneck.tasks.segment.module import SegmentNet, build_segmenter

        seg = wrapper.around(spec)
        return SegmentNet(seg) if seed is None else build_segmenter(seg, seed=seed)

    def outputs(self, net: Any, images: Tensor) -> tuple[Tensor, ...]:
        """Class scores (N, classes, h, w) at the size of the map that the head works on."""
        return (net.head(*net.features(images)),)

    def evaluate(
        self,
        answers: Answers,
        data: str | None,
        options: SegmentOptions,
        *,
        split: str,
        record: Mapping[str, Any],
        seed: int,
        progress: Progress,
        out: Path | None = None,
    ) -> Scores:
        """mIOU from one confusion matrix, at the masks' own size."""
        from bneck.tasks.segment.scoring import score, split_scenes

        window = sized(options.sliding)
        if window is not None and answers.net is None:
            raise InputError(
                "an exported file is made for one size; --sliding is for a run's folder"
            )
        if window is not None and min(window) < LEAST_WINDOW:
            raise InputError(
                f"the window is {window[0]} x {window[1]} pixels; it must be at least {LEAST_WINDOW} per side"
            )
        scenes = split_scenes(answers, data, options, split, record, seed)
        return score(answers, scenes, split, progress, sliding=window, out=out)

    def predict(
        self, answers: Answers, path: Path, options: SegmentOptions, record: Mapping[str, Any]
    ) -> Prediction:
        """The class of every pixel, seen at the size that the run was trained at."""
        from bneck.tasks.segment.scoring import seen

        return seen(answers, path, record)

    def samples(
        self, source: Any, split: str, *, size: Size, count: int, normalisation: Normalisation
    ) -> Tensor:
        """Whole images, brought to the size."""
        from bneck.data.read import read_images

        files = source
        if not isinstance(source, Sequence):
            files = [pair.image for pair in source.scenery.split(split)]
        return read_images(files, size, count, normalisation)

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
        self,
        net: Any,
        record: Mapping[str, Any],
        engine: Runtime,
        precision: Precision,
        size: Size,
        options: SegmentOptions,
    ) -> dict[str, str]:
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

    def finished(self, options: Any) -> bool:
        """The choice of the best class."""
        return bool(options.argmax)

    def compare(
        self,
        net: Any,
        session: Session,
        images: Tensor,
        quantized: Quantized | None,
        precision: Precision,
        options: SegmentOptions,
    ) -> dict[str, Any]:
        """Pixels of the same class and the largest difference of scores, see `segment.file.compare`."""
        from bneck.tasks.segment.file import compare

        return compare(net, session, images, quantized, precision, argmax=options.argmax)

    def check_line(self, check: Mapping[str, Any]) -> str:
        """How the file's outputs compare with the module's."""
        return (
            f"{check['equal_pixels']:.2%} of the pixels are equal, scores differ by "
            f"{check['largest_difference']:.1e} of the largest"
        )

    def count(self, networks: Iterable[str], options: SegmentOptions) -> Table:
        """Parameters, multiply-adds ours and as Table 7 counts, activation memory."""
        from bneck.tasks.segment.tables import count_table

        return count_table(networks, options)

    def zoo(self, pattern: str, options: Any) -> Table:
        """Tables 7 and 8 next to exact counts."""
        from bneck.tasks.segment.tables import zoo_table

        return zoo_table(pattern)

    def score_table(self, scores: Sequence[Mapping[str, Any]]) -> Table | None:
        """IOU of every class."""
        from bneck.tasks.segment.tables import score_table

        return score_table(scores)

    def report(self, record: Mapping[str, Any]) -> list[str]:
        """IOU of every class, the best and the worst images."""
        from bneck.tasks.segment.report import report_lines

        return report_lines(record)
