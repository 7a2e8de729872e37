"""ExecuTorch's file of a network: exported by torch and lowered to the XNNPACK kernels."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

METADATA = "bneck"  # the method of the file that answers with its metadata


def lowered(net: nn.Module, shape: tuple[int, ...], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a .pte file whose method `forward` takes one image of `shape`, float32.

    Takes tens of seconds for a network of 50 convolutions.

    Raises:
        ImportError: ExecuTorch is not installed.
    """
    logging.getLogger("executorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own parts
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(net.eval(), (torch.zeros(shape),))
        constants: dict[str, Any] = {METADATA: json.dumps(dict(metadata))}
        edge = to_edge_transform_and_lower(
            exported, partitioner=[XnnpackPartitioner()], constant_methods=constants
        )
        return bytes(edge.to_executorch().buffer)
