"""Write a detector as a TFLite file, without decoding and suppression."""

from __future__ import annotations

from collections.abc import Mapping

from bneck.graphs.onnx_graph import Weights
from bneck.graphs.tflite_graph import Graph
from bneck.specs.detector import Detector, extra_layers, features, head_layers, maps


def tflite_detector(
    detector: Detector, weights: Weights, *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """The whole detector: input NHWC float32, batch 1.

    It gives `offsets` (1, anchors, 4) and `logits` (1, anchors, slots), as `detector_graph` does.
    Decoding and suppression stay outside: LiteRT's own operator for them is none of XNNPACK's, and
    knows other anchors.

    Raises:
        KeyError: `weights` lacks a layer of the detector's walk.
        InputError: LiteRT is not installed.
    """
    spec, side = detector.network, detector.resolution
    graph = Graph(weights, spec.padding, spec.se_gate, "op", None)
    x = graph.image((1, side, side, spec.channels), None)
    x = graph.through(features(detector), x)
    graph.through(extra_layers(detector), x)
    walk = list(head_layers(detector))
    outputs = {}
    for name, head, numbers in (("offsets", "boxes", 4), ("logits", "scores", detector.slots)):
        parts = []
        for index, source in enumerate(maps(detector)):
            layers = [one for one in walk if one.name.startswith(f"{head}.{index}.")]
            part = graph.through(layers, graph.made[source.layer])
            parts.append(graph.by_anchor(f"{head}.{index}.flat", part, numbers))
        outputs[name] = graph.joined(name, parts)
    return graph.finish(outputs, spec.name, metadata)
