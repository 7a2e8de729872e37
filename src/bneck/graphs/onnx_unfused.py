"""h-swish made of the operators that everybody has: the paper's "no-opt" column (Table 5, Fig. 8)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same float network with x relu6(x + 3) / 6 as four operators for every HardSwish.

    The outputs are equal to rounding; only the time differs.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    for node in model.graph.node:
        if node.op_type != "HardSwish":
            made.graph.node.append(node)
            continue
        x, out = node.input[0], node.output[0]
        for op, inputs, name in (
            ("Add", [x, "hswish.three"], f"{out}.shifted"),
            ("Clip", [f"{out}.shifted", "hswish.zero", "hswish.six"], f"{out}.cut"),
            ("Mul", [x, f"{out}.cut"], f"{out}.times"),
            ("Mul", [f"{out}.times", "hswish.sixth"], out),
        ):
            made.graph.node.append(helper.make_node(op, inputs, [name], name=name))
    for name, value in {"three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6}.items():
        number = numpy_helper.from_array(np.float32(value), f"hswish.{name}")
        made.graph.initializer.append(number)
    return made
