"""h-swish made of the operators that everybody has: the paper's "no-opt" column (Table 5, Fig. 8)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same float network with x relu6(x + 3) / 6 as four operators for every HardSwish.

    The answers are equal to rounding; only the time differs.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = []
    for node in model.graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        x, out = node.input[0], node.output[0]
        steps = (
            ("Add", [x, "hswish.three"], f"{out}.shifted"),
            ("Clip", [f"{out}.shifted", "hswish.zero", "hswish.six"], f"{out}.cut"),
            ("Mul", [x, f"{out}.cut"], f"{out}.times"),
            ("Mul", [f"{out}.times", "hswish.sixth"], out),
        )
        nodes += [helper.make_node(op, into, [name], name=name) for op, into, name in steps]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    numbers = {"three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6}
    made.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), f"hswish.{name}")
        for name, value in numbers.items()
    )
    return made
