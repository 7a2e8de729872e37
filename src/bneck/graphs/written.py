"""Which operators a model file has, and which layer of the network each was written for."""

from __future__ import annotations

import re
from collections.abc import Iterator


def operators_of(model: bytes) -> Iterator[tuple[str, str]]:
    """Kind and name of every operator of a TFLite or ONNX file, in its order; none of other bytes."""
    if model[4:8] == b"TFL3":
        yield from _tflite(model)
        return
    try:
        import onnx

        graph = onnx.load_from_string(model).graph
    except Exception:  # not installed on a device; or the parser's own kind, in no typed package
        return
    for node in graph.node:
        yield node.op_type, node.name or node.output[0]


def place_of(name: str) -> str:
    """Where in the network an operator of that name is, in words."""
    row = re.match(r"rows\.(\d+)(\.|$)", name)
    return f"{name} in row {row[1]} of the network" if row else name


def _tflite(model: bytes) -> Iterator[tuple[str, str]]:
    from ai_edge_litert import schema_py_generated as schema

    root = schema.Model.GetRootAs(model, 0)
    kinds = {code: kind for kind, code in vars(schema.BuiltinOperator).items()}
    graph = root.Subgraphs(0)
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        code = root.OperatorCodes(operator.OpcodeIndex())
        kind = (code.CustomCode() or b"").decode() or kinds[code.BuiltinCode()]
        yield kind, (graph.Tensors(operator.Outputs(0)).Name() or b"").decode()
