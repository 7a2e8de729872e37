"""Model files of detectors and segmenters in the form that each runtime runs fastest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bneck.devices.models import network_model
from bneck.devices.runtimes import Runtime
from bneck.graphs.forms import form
from bneck.graphs.heads import segmenter_points
from bneck.graphs.onnx_graph import Weights, halved, random_weights
from bneck.graphs.quantization import Ranges, points
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.wrapper import Aspp, Ssdlite, Wrapper
from bneck.tasks.detect.head import Detector, layers
from bneck.tasks.segment.head import Segmenter, segmenter_layers

FORMATS = ("onnx", "tflite", "openvino")  # the others' writers know networks alone


def detector_model(
    detector: Detector,
    engine: Runtime,
    precision: str = "fp32",
    *,
    weights: Weights | None = None,
    ranges: Ranges | None = None,
    decode: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A detector as the bytes of a file for a runtime.

    Args:
        detector: what to write.
        engine: which runtime shall load it.
        precision: "fp32", "fp16" or "int8".
        weights: batch norm folded; None draws random ones, good for timing.
        ranges: of 8-bit activations; None takes ordinary ones, good for timing.
        decode: with decoding and suppression inside the file; ONNX alone.
        metadata: goes into the file as it is.

    Raises:
        InputError: the runtime does not run that precision, or has no files of detectors.
    """
    hswish, walk = form(engine.name, precision), list(layers(detector))
    if weights is None:
        weights = random_weights(walk, np.random.default_rng(0))
    if ranges is None and precision == "int8":
        ranges = points(walk, hswish, detector.network.se_gate)
    if precision == "fp16":
        weights = halved(weights)
    match engine.suffix:
        case ".tflite":
            from bneck.graphs.tflite_heads import tflite_detector

            return tflite_detector(
                detector, weights, hswish=hswish, ranges=ranges, metadata=metadata
            )
        case ".onnx" | ".xml":
            from bneck.tasks.detect.graph import detector_graph

            graph = detector_graph(
                detector, weights, decode=decode, hswish=hswish, ranges=ranges, metadata=metadata
            )
            return engine.converted(bytes(graph.SerializeToString()), metadata or {})
    raise _none(engine)


def segmenter_model(
    seg: Segmenter,
    engine: Runtime,
    size: tuple[int, int],
    precision: str = "fp32",
    *,
    weights: Weights | None = None,
    ranges: Ranges | None = None,
    argmax: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A segmenter for images of `size`, (height, width), as the bytes of a file for a runtime.

    Args:
        seg: what to write.
        engine: which runtime shall load it.
        size: (height, width) in pixels.
        precision: "fp32", "fp16" or "int8".
        weights: batch norm folded; None draws random ones, good for timing.
        ranges: of 8-bit activations; None takes ordinary ones, good for timing.
        argmax: with the choice of the best class inside the file.
        metadata: goes into the file as it is.

    Raises:
        InputError: the runtime does not run that precision, or has no files of segmenters.
    """
    hswish = form(engine.name, precision)
    if weights is None:
        weights = random_weights(segmenter_layers(seg, size), np.random.default_rng(0))
    if ranges is None and precision == "int8":
        ranges = segmenter_points(seg, size, hswish)
    if precision == "fp16":
        weights = halved(weights)
    match engine.suffix:
        case ".tflite":
            from bneck.graphs.tflite_heads import tflite_segmenter

            return tflite_segmenter(
                seg, weights, size, argmax=argmax, hswish=hswish, ranges=ranges, metadata=metadata
            )
        case ".onnx" | ".xml":
            from bneck.tasks.segment.graph import segmenter_graph

            graph = segmenter_graph(
                seg, weights, size, argmax=argmax, hswish=hswish, ranges=ranges, metadata=metadata
            )
            return engine.converted(bytes(graph.SerializeToString()), metadata or {})
    raise _none(engine)


def wrapped_model(
    spec: NetSpec, wrapper: Wrapper, engine: Runtime, precision: str = "fp32"
) -> bytes:
    """A network in its wrapper as the bytes of a file for a runtime, with random weights: for timing.

    Raises:
        InputError: the runtime does not run that precision, or has no files of such a wrapper.
    """
    match wrapper:
        case Ssdlite():
            return detector_model(wrapper.detector(spec), engine, precision)
        case Aspp():
            return segmenter_model(wrapper.segmenter(spec), engine, wrapper.shape, precision)
        case _:
            return network_model(spec, engine, precision)


def check_engine(engine: Runtime) -> None:
    """Whether a runtime has files of detectors and segmenters.

    Raises:
        InputError: it has none.
    """
    if engine.suffix not in (".onnx", ".tflite", ".xml"):
        raise _none(engine)


def _none(engine: Runtime) -> InputError:
    return InputError(
        f"there are no files of detectors and segmenters for the runtime {engine.name}; take onnxruntime, "
        "litert or openvino"
    )
