"""Our files of V3-Large against those that converters make of a torchvision-style module of the same weights.

python benchmarks/converted_graph.py write FOLDER     # needs onnxscript and litert-torch
python benchmarks/converted_graph.py race FOLDER [RUNTIME ...] [--rounds N] [--loads N]

`write` may run in a virtual environment of its own: converters want versions of their own. The
module is that of tests/foreign_nets.py: torchvision's names and operators, batch norm statistics
from noise. Both files of a runtime must agree to 1e-4 before they race.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bneck.specs.zoo import network
from foreign_nets import Torchvision

NAME = "v3-large"
SHAPE = (1, 3, 224, 224)


def module() -> Torchvision:
    """The same in every process: seeded weights, statistics of what flows through them."""
    torch.manual_seed(0)
    net = Torchvision(network(NAME), 1000)
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(8, *SHAPE[1:]))
    return net.eval()


def write(folder: Path) -> None:
    import litert_torch

    folder.mkdir(parents=True, exist_ok=True)
    net = module()
    save_file(net.state_dict(), folder / "weights.safetensors")
    image = (torch.zeros(SHAPE),)
    torch.onnx.export(net, image, folder / "converted.onnx", dynamo=True, external_data=False)
    last = litert_torch.to_channel_last_io(net, args=[0]).eval()
    edge = litert_torch.convert(last, (torch.zeros(1, *SHAPE[2:], 3),))
    edge.export(str(folder / "converted.tflite"))


def converted(folder: Path, name: str) -> bytes:
    from bneck.devices.runtimes import runtime

    if name == "executorch":
        from safetensors.torch import load_file

        from bneck.nets.lower import lowered

        net = Torchvision(network(NAME), 1000).eval()
        net.load_state_dict(load_file(folder / "weights.safetensors"))
        return lowered(net, SHAPE, {})
    if name == "litert":
        return (folder / "converted.tflite").read_bytes()
    return runtime(name).converted((folder / "converted.onnx").read_bytes(), {})


def race(folder: Path, names: list[str], rounds: int, loads: int) -> None:

    import bneck
    from bneck.devices.measure import Candidate, measure
    from bneck.devices.models import network_model
    from bneck.devices.protocol import Protocol
    from bneck.devices.runtimes import runtime
    from bneck.nets.fold import folded_weights
    from bneck.runs.networks import build

    run = folder / "imported"
    if not run.exists():
        bneck.import_weights(folder / "weights.safetensors", NAME, out=run)
    net = build(run).eval()
    image = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    for name in names:
        engine = runtime(name)
        files = [
            network_model(net.spec, engine, weights=folded_weights(net)),
            converted(folder, name),
        ]
        ours, theirs = (engine.load(file, threads=1).run(image) for file in files)
        apart = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        assert apart < 1e-4, f"{name}: the files differ by {apart}"
        protocol = Protocol(
            rounds=rounds, loads=loads, burst_ms=15, least_runs=2, max_repeats=2, max_spread=1e9
        )
        candidates = [Candidate(net.spec, file, name) for file in files]
        one, other = measure(candidates, protocol=protocol)
        cpu, wall = one.cpu_ratio(other), one.ratio(other)
        print(
            f"{name} {engine.version}: ours / converted {cpu.median:.3f} ({cpu.p10:.3f}-{cpu.p90:.3f}) of "
            f"CPU time, {wall.median:.3f} of wall time; answers differ by {apart:.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["write", "race"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("runtimes", nargs="*")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--loads", type=int, default=8)
    options = parser.parse_args()
    if options.what == "write":
        write(options.folder)
    else:
        names = options.runtimes or ["litert", "onnxruntime", "openvino", "executorch"]
        race(options.folder, names, options.rounds, options.loads)


if __name__ == "__main__":
    main()
