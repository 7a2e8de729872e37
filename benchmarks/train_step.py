"""A training step on this machine, ours beside a plain PyTorch loop, interleaved.

The plain loop is eager float32 with torch's own RMSprop and no weight average, on the same network,
batch and threads. Variants of ours: as it trains by default, in bfloat16, compiled. CPU time of the
process counts, so that a neighbour slows neither.

    python benchmarks/train_step.py v3-small 32 224 [ROUNDS] [VARIANT ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bneck.nets.build import build
from bneck.specs.text import resolve
from bneck.specs.transforms import with_resolution
from bneck.train.loop import Lessons, Settings, _Course
from bneck.train.team import ALONE

VARIANTS = {"ours": {}, "bf16": {"precision": "bf16"}, "compiled": {"compile": True}}


def plain(name: str, batch: int, side: int) -> Callable[[], None]:
    """Contiguous float32, eager, torch's optimiser."""
    net = build(with_resolution(resolve(name), side))
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-4, alpha=0.9, momentum=0.9, eps=1e-3)
    images, labels = examples(batch, side)
    net.train()

    def step() -> None:
        optimizer.zero_grad()
        loss = cross_entropy(net(images), labels, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def ours(name: str, batch: int, side: int, **settings: object) -> Callable[[], None]:
    """The loop that trains."""
    net = build(with_resolution(resolve(name), side))
    one = examples(batch, side)

    def loss(net: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        scores = net(batch[0].contiguous(memory_format=torch.channels_last)).float()
        return cross_entropy(scores, batch[1], label_smoothing=0.1)

    lessons = Lessons(images=batch, batches=lambda epoch, first: [one], loss=loss)
    how = Settings(epochs=1e6, batch=batch, lr=1e-4, **settings)  # type: ignore[arg-type]
    course = _Course(net, lessons, how, ALONE, None, 1e9)
    done = 0

    def step() -> None:
        nonlocal done
        done = course.epoch(done, done + 1, 10**9)

    return step


def examples(batch: int, side: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, side, side, generator=rng), torch.arange(batch) % 1000


def main(name: str, batch: int, side: int, rounds: int, variants: list[str]) -> None:
    torch.set_num_threads(1)
    steps = {"plain": plain(name, batch, side)}
    steps |= {v: ours(name, batch, side, **VARIANTS[v]) for v in variants}
    for step in steps.values():  # compiles, allocates
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for variant, step in steps.items():
            begun = time.process_time()
            step()
            seconds[variant].append(time.process_time() - begun)
    print(f"{name}, batch {batch} at {side} px, {rounds} rounds, one thread")
    for variant, found in seconds.items():
        ratios = [a / b for a, b in zip(seconds["plain"], found, strict=True)]
        print(
            f"{variant:9} {1e3 * median(found):7.1f} ms a step, {batch / median(found):5.1f} images/s; "
            f"{median(ratios):.2f} times plain ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        arguments[0],
        int(arguments[1]),
        int(arguments[2]),
        int(arguments[3]) if len(arguments) > 3 else 10,
        arguments[4:] or list(VARIANTS),
    )
