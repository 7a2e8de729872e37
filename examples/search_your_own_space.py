"""Search a space that you write down yourself, by your own judge or by training on your images.

    python examples/search_your_own_space.py                        # in small, a few seconds
    bneck search --from-scratch --space space.yaml --data photos --target 5ms     # the whole of it

A space is a network's table with lists in it. Here a study asks for networks, a few seconds of training
judge each on the built-in pictures, and multiply-adds stand for latency, which keeps it short. The
command above measures the latency of your device instead, and trains the winners in full. Needs
bneck[search].
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import bneck
from bneck.nas.reward import Reward
from bneck.nas.spaces import space as load_space
from bneck.nas.study import Study

SPACE = """\
space: 1
name: mine
stem: {op: conv, kernel: 3, out: 8, act: hswish, stride: 2}
blocks:
- {stride: 2, op: dconv, kernel: [3, 5], se: [0, 0.25], out: [8, 16], layers: 1}
- {stride: 2, op: [mbconv3, mbconv6], kernel: [3, 5], out: [16, 24, 32], layers: [1, 2], act: [relu, hswish]}
tail:
- {op: conv, kernel: 1, out: [96, 144], act: hswish}
- {op: pool}
"""
RESOLUTION, CLASSES = 32, 10


def judge(spec: bneck.NetSpec, epochs: float, folder: Path) -> float:
    """Top-1 on the built-in validation pictures after a short training."""
    run = bneck.train(spec, resolution=RESOLUTION, epochs=epochs, batch=64, out=folder)
    return float(run["scores"]["val"]["score"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--searcher", default="evolution", help="predictor, controller, tpe, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/space"))
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "space.yaml"
    file.write_text(SPACE)
    space = load_space(str(file), resolution=RESOLUTION, classes=CLASSES)
    print(f"{space.name}: {space.size:,} networks in {len(space.choices)} choices")

    def megamadds(spec: bneck.NetSpec) -> float:
        return bneck.count(spec).madds / 1e6

    study = Study(
        space,
        reward=Reward(kind="hard", target_ms=1.0),  # accuracy, dearer above a million multiply-adds
        estimate=megamadds,
        searcher=options.searcher,
        ledger=options.out / "trials.log",
    )
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.trials):
            asked = study.ask()
            if asked is None:  # every network of the space was judged
                break
            top1 = judge(asked.spec, options.epochs, Path(scratch) / str(number))
            study.tell(asked, top1)
            print(f"trial {number}: {megamadds(asked.spec):.2f}M multiply-adds, top-1 {top1:.1%}")

    best = space.decode(study.best(1)[0].tokens)
    (options.out / "spec.yaml").write_text(bneck.to_text(best))
    print(f"the best is {options.out / 'spec.yaml'}; every command takes it for a network:")
    print(f"  bneck train {options.out / 'spec.yaml'} --data photos")


if __name__ == "__main__":
    main()
