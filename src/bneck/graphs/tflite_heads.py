"""The operators of detectors' and segmenters' heads in TFLite files, and the files of both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bneck.graphs.forms import HSwish
from bneck.graphs.heads import Heads, Size, Values, class_scores, predictions, split_project
from bneck.graphs.onnx_graph import Weights
from bneck.graphs.quantization import Ranges
from bneck.graphs.tflite_graph import Graph, Tensor
from bneck.specs.network import Layer
from bneck.tasks.detect.head import Detector
from bneck.tasks.segment.head import Segmenter

JOINED = 4  # tensors at a time; XNNPACK's limit is five


def tflite_detector(
    detector: Detector,
    weights: Weights,
    *,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The whole detector: input NHWC float32, batch 1.

    It gives `offsets` (1, anchors, 4) and `logits` (1, anchors, slots), as `detector_graph` does.
    Decoding and suppression stay outside: LiteRT's own operator for them is none of XNNPACK's, and
    knows other anchors.

    Args:
        detector: what to write.
        weights: batch norm folded.
        hswish: the form of h-swish.
        ranges: of all points, for 8 bits inside; None writes float32.
        metadata: goes into the file as it is.

    Raises:
        KeyError: `weights` or `ranges` lacks a layer of the detector's walk.
        InputError: LiteRT is not installed.
    """
    spec, side = detector.network, detector.resolution
    graph = TfliteHeads(weights, spec.padding, spec.se_gate, hswish, ranges)
    x = graph.image((1, side, side, spec.channels), None)
    offsets, logits = predictions(graph, detector, x)
    return graph.finish({"offsets": offsets, "logits": logits}, spec.name, metadata)


def tflite_segmenter(
    seg: Segmenter,
    weights: Weights,
    size: Size,
    *,
    argmax: bool = False,
    hswish: HSwish = "op",
    ranges: Ranges | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The whole segmenter for one image size: input NHWC float32, batch 1.

    It gives `scores` (1, *size, classes), or with `argmax` the best class of every pixel, `classes`
    (1, *size) int32; choosing is LiteRT's own operator, none of XNNPACK's.

    Args:
        seg: what to write.
        weights: names of `onnx_graph.weight_shapes` for every layer of the walk.
        size: (height, width) in pixels; resizes and pooling windows are made for it.
        argmax: with the choice of the best class inside the file.
        hswish: the form of h-swish.
        ranges: of all points, for 8 bits inside; None writes float32.
        metadata: texts that the file carries.

    Raises:
        KeyError: `weights` or `ranges` lacks a layer of the walk.
        InputError: LiteRT is not installed.
    """
    spec = seg.network
    graph = TfliteHeads(split_project(weights), spec.padding, spec.se_gate, hswish, ranges)
    x = graph.image((1, *size, spec.channels), None)
    scores = class_scores(graph, seg, size, x)
    if argmax:
        return graph.finish({"classes": graph.best("classes", scores)}, seg.name, metadata)
    return graph.finish({"scores": scores}, seg.name, metadata)


class TfliteHeads(Graph, Heads[Tensor]):
    """A graph with heads."""

    def floats(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> Tensor:
        """A tensor of real numbers, also where others are 8-bit."""
        return Tensor(self.file.tensor(name, shape), shape, None, gain)

    def by_anchor(self, name: str, x: Tensor, numbers: int) -> Tensor:
        x = self.plain(x)
        shape = (1, math.prod(x.shape) // numbers, numbers)
        y = replace(x, index=self.file.tensor(name, shape, scale=x.scale), shape=shape)
        wanted = self.file.constant(f"{name}.shape", np.array(shape, np.int32))
        self.file.operator("RESHAPE", [x.index, wanted], [y.index])
        return y

    def joined(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        if len(parts) > JOINED:
            first = self.joined(f"{name}.{len(parts)}", parts[:JOINED])
            return self.joined(name, [first, *parts[JOINED:]])
        count, numbers = sum(part.shape[1] for part in parts), parts[0].shape[2]
        y = self.floats(name, (1, count, numbers))
        self.file.operator("CONCATENATION", [part.index for part in parts], [y.index], axis=1)
        return y

    def windows(self, layer: Layer, x: Tensor, window: Size, strides: Size) -> Tensor:
        # In float also where all else is 8-bit: an 8-bit pool may not change the range, and is none
        # of XNNPACK's.
        if x.scale is not None:
            whole = self.floats(f"{layer.name}.real", x.shape, x.gain)
            self.file.operator("DEQUANTIZE", [x.index], [whole.index])
            x = whole
        shape = (1, *layer.size_out, layer.out)
        mean = self.floats(f"{layer.name}.mean", shape, x.gain)
        (high, wide), (down, right) = window, strides
        self.file.operator(
            "AVERAGE_POOL_2D", [x.index], [mean.index], same=False, filterHeight=high, filterWidth=wide,
            strideH=down, strideW=right,
        )  # fmt: skip
        if self.ranges is None:
            return mean
        y = self.tensor(layer.name, shape, x.gain)
        self.file.operator("QUANTIZE", [mean.index], [y.index])
        return y

    def resized(
        self, name: str, x: Tensor, size: Size, have: Size, values: Values | None = None
    ) -> Tensor:
        if have == size:
            return x
        shape = (1, *size, x.shape[3])
        y = replace(x, index=self.file.tensor(name, shape, scale=x.scale), shape=shape)
        wanted = self.file.constant(f"{name}.size", np.array(size, np.int32))
        self.file.operator("RESIZE_BILINEAR", [x.index, wanted], [y.index], alignCorners=True)
        return y

    def total(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        z = self.floats(name, x.shape)
        self.file.operator("ADD", [x.index, y.index], [z.index])
        return z

    def raised(self, name: str, x: Tensor, by: Tensor) -> Tensor:
        y = self.tensor(name, x.shape)
        self.file.operator("ADD", [x.index, by.index], [y.index], fused="relu")
        return y

    def best(self, name: str, scores: Tensor) -> Tensor:
        """The channel with the largest number, of every pixel."""
        shape = scores.shape[:3]
        y = Tensor(self.file.tensor(name, shape, kind="int32"), shape, None)
        axis = self.file.constant(f"{name}.axis", np.array(3, np.int32))
        whole = self.file.kind("int32")
        self.file.operator("ARG_MAX", [scores.index, axis], [y.index], outputType=whole)
        return y
