"""Where a network's time goes, operator by operator, in float and in int8.

python benchmarks/operator_profile.py NETWORK [RUNTIME ...] [--runs N] [--nodes]

One thread, batch 1, random weights. ONNX Runtime and OpenVINO time every operator themselves: printed is
the sum of each kind's medians over the runs, and its share. Timing adds a microsecond or two to every
operator, so the sum is more than the latency. `--nodes` prints every operator, ONNX Runtime's with its shape.
LiteRT's Python package prints no profile: there the network is timed, interleaved, with one part changed:
ReLU for h-swish, no squeeze-and-excite, no kernel larger than 5 x 5 or 3 x 3. Ratios are of CPU time: median,
10th to 90th percentile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bneck.devices.measure import Candidate, measure
from bneck.devices.models import network_model
from bneck.devices.protocol import Protocol
from bneck.devices.runtimes import runtime
from bneck.devices.timing import pinned
from bneck.specs.network import NetSpec
from bneck.specs.rows import Row
from bneck.specs.zoo import network

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class Node:
    """An operator with its median time in microseconds."""

    name: str
    kind: str
    us: float
    shape: str


def onnxruntime_nodes(spec: NetSpec, precision: str, runs: int) -> list[Node]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        model = network_model(spec, runtime("onnxruntime"), precision)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        with pinned(1):
            for _ in range(runs):
                session.run(None, {"image": image(spec)})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    times: dict[str, list[float]] = defaultdict(list)
    known: dict[str, Any] = {}
    for event in events:
        name, _, what = event["name"].rpartition("_kernel_time")
        if event["cat"] == "Node" and name and not what:
            times[name].append(event["dur"])
            known[name] = event["args"]
    return [
        Node(name, known[name]["op_name"], statistics.median(each), str(known[name]["output_type_shape"]))
        for name, each in times.items()
    ]  # fmt: skip


def openvino_nodes(spec: NetSpec, precision: str, runs: int) -> list[Node]:
    import openvino

    engine: Any = runtime("openvino")
    read = engine._unpacked(network_model(spec, engine, precision))
    read.reshape([1, spec.channels, spec.resolution, spec.resolution])
    settings = {
        "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True,
        "ENABLE_CPU_PINNING": False,
    }  # fmt: skip
    request = openvino.Core().compile_model(read, "CPU", settings).create_infer_request()
    times: dict[str, list[float]] = defaultdict(list)
    known: dict[str, Any] = {}
    with pinned(1):
        for _ in range(runs):
            request.infer([image(spec)])
            for one in request.get_profiling_info():
                if str(one.status).endswith("EXECUTED"):
                    times[one.node_name].append(one.real_time.total_seconds() * 1e6)
                    known[one.node_name] = one
    return [
        Node(name, f"{known[name].node_type} {known[name].exec_type}", statistics.median(each), "")
        for name, each in times.items()
    ]


def image(spec: NetSpec) -> Any:
    size = (1, spec.channels, spec.resolution, spec.resolution)
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


def print_shares(title: str, nodes: list[Node]) -> None:
    total = sum(node.us for node in nodes)
    times, counts = Counter[str](), Counter(node.kind for node in nodes)
    for node in nodes:
        times[node.kind] += node.us  # type: ignore[assignment]
    print(f"\n{title}: {total / 1000:.2f} ms in {len(nodes)} operators")
    for kind, us in times.most_common():
        print(f"{counts[kind]:5} {kind:44} {us:8.0f} us {us / total:7.1%}")


def left_out(spec: NetSpec) -> dict[str, NetSpec]:
    """A network without one of its parts, all else the same."""

    def changed(change: Callable[[Any], Row]) -> NetSpec:
        return replace(spec, rows=tuple(change(row) for row in spec.rows))

    def small(most: int) -> Callable[[Any], Row]:
        return lambda row: replace(row, kernel=most) if getattr(row, "kernel", 0) > most else row

    tried = {
        "whole": spec,
        "ReLU for h-swish": changed(
            lambda row: replace(row, act="relu") if getattr(row, "act", "") == "hswish" else row
        ),
        "no SE": changed(lambda row: replace(row, se=0) if getattr(row, "se", 0) else row),
        "kernels up to 5": changed(small(5)),
        "kernels up to 3": changed(small(3)),
    }
    return {name: one for name, one in tried.items() if name == "whole" or one != spec}


def race_parts(specs: Mapping[str, NetSpec], engine: str, rounds: int) -> None:
    keys = [(name, precision) for precision in PRECISIONS for name in specs]
    candidates = [Candidate(specs[name], None, engine, precision) for name, precision in keys]
    protocol = Protocol(
        rounds=rounds, burst_ms=10, least_runs=2, max_repeats=0, max_spread=float("inf")
    )
    found = dict(zip(keys, measure(candidates, protocol=protocol), strict=True))
    print(f"\n{engine} {found[keys[0]].runtime_version}, of the whole network's time")
    for precision in PRECISIONS:
        for name in specs:
            one = found[name, precision]
            ratio = one.cpu_ratio(found["whole", precision])
            print(
                f"{precision} {name:24} {one.cpu_ms:7.3f} ms  {ratio.median:.3f} "
                f"({ratio.p10:.3f}-{ratio.p90:.3f})"
            )


def main() -> None:
    """Print a table per runtime and precision."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network")
    parser.add_argument("runtimes", nargs="*", default=["onnxruntime", "openvino", "litert"])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--nodes", action="store_true")
    options = parser.parse_args()
    spec = network(options.network)
    profiled = {"onnxruntime": onnxruntime_nodes, "openvino": openvino_nodes}
    for engine in options.runtimes:
        if engine not in profiled:
            print(
                f"\n{engine} prints no profile of operators; the network with a part left out instead:"
            )
            race_parts(left_out(spec), engine, max(5, options.runs // 4))
            continue
        for precision in PRECISIONS:
            nodes = profiled[engine](spec, precision, options.runs)
            print_shares(f"{spec.name} in {engine} {runtime(engine).version}, {precision}", nodes)
            for node in nodes if options.nodes else ():
                print(f"{node.us:9.1f} us {node.kind:28} {node.name[:60]:60} {node.shape}")


if __name__ == "__main__":
    main()
