"""Narrow MobileNetV3 to a latency on a Raspberry Pi, or on any machine that is at hand.

    python examples/adapt_v3_to_raspberry_pi.py             # a miniature, on this machine
    python examples/adapt_v3_to_raspberry_pi.py --device ssh:pi@raspberrypi --images photos \
        --network v3-small --resolution 128 --target 20ms --epochs 15

NetAdapt (section 4.2 of the paper) cuts widths step by step until the target is met on the device, and
trains the result beside the plainly narrowed network. Needs bneck[search].
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bneck

# In small form: V3's kinds of rows, few enough for their latency table to take seconds.
MINIATURE = """\
bneck: 1
name: miniature
resolution: 64
classes: 10
rows:
- {op: conv,  kernel: 3, out: 16, act: hswish, stride: 2}
- {op: bneck, kernel: 3, expanded: 48, out: 16, se: 0,  act: relu,   stride: 2}
- {op: bneck, kernel: 5, expanded: 96, out: 32, se: 24, act: hswish, stride: 2}
- {op: conv,  kernel: 1, out: 192, act: hswish}
- {op: pool}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="local", help="where latency counts")
    parser.add_argument("--images", type=Path, help="your folder; default: the built-in pictures")
    parser.add_argument("--network", help="what is narrowed; default: a miniature of V3")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--target", default="85%", help="5ms, or a share of the network's latency")
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=1, help="T: training steps that judge a cut")
    parser.add_argument("--delta", type=float, default=0.08, help="least cut of a step")
    parser.add_argument("--out", type=Path, default=Path("runs/pi"))
    options = parser.parse_args()

    options.out.parent.mkdir(parents=True, exist_ok=True)
    network = options.network
    if network is None:
        network = options.out.with_suffix(".yaml")
        network.write_text(MINIATURE)

    run = bneck.search(
        options.images,
        options.target,
        device=options.device,
        seed_network=str(network),
        resolution=options.resolution,
        epochs=options.epochs,
        steps=options.steps,
        delta=options.delta,
        repeats=1,
        out=options.out,
    )
    seed, found, uniform = run["seed_network"], run["found"], run["uniform"]
    print(f"target {run['target_ms']:.3f} ms on {run['device']['processor']}")
    for name, network in (("seed", seed), ("found", found), ("uniform width", uniform)):
        top1 = max(network["scores"])
        print(f"{name:14}{network['measured_ms']:8.3f} ms  top-1 {top1:.1%}")
    for step in run["steps"]:
        cut = step["proposal"]
        print(
            f"step {step['number']}: {cut['kind']} of rows {cut['rows']}, {cut['before']} to {cut['after']}"
        )
    print(f"the target is {'met' if run['meets_target'] else 'NOT met'}: {run['run']}/report.html")


if __name__ == "__main__":
    main()
