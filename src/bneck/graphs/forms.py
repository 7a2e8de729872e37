"""In which form a runtime's fast kernels take h-swish, by precision: the one table.

Figures behind every choice are in docs/lab-log.md ("int8 forms of h-swish"); tests/test_forms.py
inspects what each runtime makes of a file and fails where an operator leaves the fast path.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from bneck.specs.errors import InputError

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
"""fp16 keeps weights in half precision; what it computes in is the device's choice, float32 on CPUs."""

HSwish: TypeAlias = Literal["op", "split", "cut", "fused"]
"""h-swish as one operator; as relu6(x + 3) times x, 6 taken out of the weights after it; in 8 bits, as
x times its own integers, which begin at -3 and are cut off at 3; or, in 8 bits, as one operator inside
the convolution, whose 32-bit sums are not rounded to 8 bits before."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

FORMS: dict[tuple[str, str], HSwish] = {
    ("onnxruntime", "fp32"): "op",
    ("onnxruntime", "fp16"): "op",
    ("onnxruntime", "int8"): "cut",
    ("litert", "fp32"): "op",
    ("litert", "fp16"): "op",
    ("litert", "int8"): "split",  # XNNPACK has no int8 HARD_SWISH: each one would cut the graph
    ("openvino", "fp32"): "op",
    ("openvino", "fp16"): "op",
    ("openvino", "int8"): "fused",
    ("executorch", "fp32"): "op",
    ("executorch", "int8"): "op",  # in float between its roundings, which is the faster way here
    ("torch", "fp32"): "op",
    ("torch-compiled", "fp32"): "op",
}

GRAPH_RUNTIMES = ("onnxruntime", "litert", "openvino")
"""Runtimes whose files are written operator by operator, so also a task's head and a lone row."""

ONE_IMAGE = ("openvino",)
"""Runtimes whose files hold one image and, in float, matrix products after the pool: with an open
batch they leave fusions out, and a convolution of one pixel is slower than a product."""


def form(runtime: str, precision: str) -> HSwish:
    """The form of h-swish for a runtime and precision.

    Raises:
        InputError: the runtime does not run that precision.
    """
    if hswish := FORMS.get((runtime, precision)):
        return hswish
    runs = [known for name, known in FORMS if name == runtime]
    raise InputError(
        f"{runtime} does not run precision {precision!r}; it runs {', '.join(runs) or 'none'}"
    )
