"""A training step on this machine, ours beside a plain PyTorch loop, interleaved.

The plain loop is eager float32 with torch's own RMSprop and convolutions and no weight average, on the
same network, batch and threads; once more in the channels-last order. Variants of ours: as it trains by
default, with torch's convolutions, in bfloat16, compiled. Each variant is a process of its own, asked for
one step at a time in turn; CPU time counts, so that a neighbour slows none.

    python benchmarks/train_step.py v3-small 32 224 [ROUNDS] [VARIANT ...]
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bneck.nets.build import build
from bneck.nets.ops import Conv2d
from bneck.specs.text import resolve
from bneck.specs.transforms import with_resolution
from bneck.training.loop import Settings, TrainingProblem, _Course
from bneck.training.processes import ALONE

VARIANTS = {
    "ours": {},
    "torch-conv": {},
    "bf16": {"precision": "bf16"},
    "compiled": {"compile": True},
}


def plain(name: str, batch: int, side: int, *, last: bool) -> Callable[[], None]:
    """Eager float32 with torch's optimiser, contiguous or with channels last."""
    order = torch.channels_last if last else torch.contiguous_format
    net = build(with_resolution(resolve(name), side)).to(memory_format=order)  # type: ignore[call-overload]
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-4, alpha=0.9, momentum=0.9, eps=1e-3)
    images, labels = examples(batch, side)
    images = images.contiguous(memory_format=order)
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

    lessons = TrainingProblem(images=batch, batches=lambda epoch, first: [one], loss=loss)
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


def child(variant: str, name: str, batch: int, side: int) -> None:
    """Take a step for every line that comes in; tell the seconds."""
    torch.set_num_threads(1)
    if variant.startswith("plain") or variant == "torch-conv":
        Conv2d._conv_forward = nn.Conv2d._conv_forward  # type: ignore[method-assign]
    if variant.startswith("plain"):
        step = plain(name, batch, side, last=variant == "plain-last")
    else:
        step = ours(name, batch, side, **VARIANTS[variant])
    step()  # compiles, allocates
    step()
    for _ in sys.stdin:
        begun = time.process_time()
        step()
        print(time.process_time() - begun, flush=True)


def main(name: str, batch: int, side: int, rounds: int, variants: list[str]) -> None:
    asked = [
        (
            variant,
            subprocess.Popen(
                [sys.executable, __file__, "--child", variant, name, str(batch), str(side)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ),
        )
        for variant in variants
    ]
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(rounds + 1):
        for variant, process in asked:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("step\n")
            process.stdin.flush()
            found = float(process.stdout.readline())
            if number:  # until the first all of them warm up at once
                seconds[variant].append(found)
    for _, process in asked:
        process.communicate()
    print(f"{name}, batch {batch} at {side} px, {rounds} rounds, one thread")
    for variant, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds[variants[0]], times, strict=True)]
        print(
            f"{variant:10} {1e3 * median(times):7.1f} ms a step, {batch / median(times):5.1f} images/s; "
            f"{median(ratios):.2f} times {variants[0]} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--child":
        child(arguments[1], arguments[2], int(arguments[3]), int(arguments[4]))
    else:
        main(
            arguments[0],
            int(arguments[1]),
            int(arguments[2]),
            int(arguments[3]) if len(arguments) > 3 else 10,
            arguments[4:] or ["plain", "plain-last", *VARIANTS],
        )
