"""Spec and weights -> ONNX graph, written operator by operator. No torch."""
