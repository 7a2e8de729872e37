"""A supernet: slices are networks of the space, share what they share, and learn together."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bneck.data.batches import eval_batches
from bneck.data.pack import Packed
from bneck.nas.spaces import mnasnet, space_from_text, v3, v4_like
from bneck.nets.build import Net
from bneck.nets.supernet import Supernet, largest, smallest
from bneck.specs.errors import InputError
from bneck.tasks.classify.dataset import ImageData
from bneck.tasks.classify.scoring import evaluate
from bneck.tasks.classify.supernet import supernet_problem
from bneck.training.loop import OnStep, fit
from bneck.training.settings import Settings
from learning import Module

SPACE = space_from_text(
    """
space: 1
name: shared
resolution: 32
classes: 3
stem: {op: conv, kernel: 3, out: [16, 24], act: hswish, stride: 2}
blocks:
- {stride: 2, op: [conv, dconv], kernel: [3, 5], se: [0, 0.25], out: 24, layers: 1}
- {stride: 2, op: [mbconv4, mbconv2], kernel: [5, 3], se: [0, 0.25], out: [32, 48], layers: [1, 2]}
tail: [{op: conv, kernel: 1, out: [64, 128], act: hswish}, {op: pool}]
"""
)
SETTINGS = Settings(epochs=2.0, batch=16, lr=0.003, average=0.9, bn_momentum=0.1, warmup=0.5)


def train_supernet(
    net: Supernet, data: ImageData, settings: Settings, *, sampling: Any = "uniform", **how: Any
) -> Any:
    """Train in place; `how` as in `training.loop.fit`."""
    return fit(net, supernet_problem(net, data, settings, sampling=sampling), settings, **how)


class Killed(Exception):
    """A training broken off."""


def kill_after(steps: int) -> OnStep:
    def on_step(done: int, total: int, loss: float) -> None:
        if done == steps:
            raise Killed

    return on_step


@pytest.mark.parametrize(
    "space", [SPACE, mnasnet(resolution=32), v3("v3-small", resolution=32), v4_like(resolution=32)]
)
def test_every_network_of_the_space_is_a_slice_with_its_own_shapes(space) -> None:  # type: ignore[no-untyped-def]
    net, rng = Supernet(space), random.Random(0)
    for tokens in [largest(space), smallest(space), *(space.sample(rng) for _ in range(8))]:
        shapes = {name: p.shape for name, p in Net(space.decode(tokens)).named_parameters()}
        assert {name: p.shape for name, p in net.sliced(tokens).items()} == shapes


def test_slices_take_the_first_channels_and_the_middle_of_the_kernel() -> None:
    net = Supernet(SPACE, seed=1)
    wide, narrow = largest(SPACE), smallest(SPACE)
    part = "rows.2.depthwise.conv.weight"
    big, small = net.sliced(wide)[part], net.sliced(narrow)[part]
    assert big.shape[2:] == (5, 5)
    assert small.shape[2:] == (3, 3)
    assert torch.equal(small, big[: len(small), :, 1:4, 1:4])
    # Views: what one network learns the others have.
    big.detach()[0, 0, 2, 2] = 7.0
    assert net.sliced(narrow)[part][0, 0, 1, 1] == 7.0


def test_a_conv_and_a_depthwise_block_share_nothing_there() -> None:
    net = Supernet(SPACE)
    names = {name.split("/")[2] for name in net.weights if name.startswith("block0/")}
    assert names == {"conv", "dconv"}


def test_forward_is_the_network_by_itself_on_the_batchs_statistics() -> None:
    net, rng = Supernet(SPACE).train(), random.Random(3)
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        tokens = SPACE.sample(rng)
        spec = replace(SPACE.decode(tokens), dropout=0.0)
        alone = Net(spec).train()
        alone.load_state_dict(net.sliced(tokens), strict=False)
        flat = Supernet(replace(SPACE, dropout=0.0)).train()
        flat.load_state_dict(net.state_dict())
        assert torch.allclose(flat(images, tokens), alone(images), atol=1e-5)


def test_a_network_taken_out_has_the_statistics_of_the_images() -> None:
    net = Supernet(SPACE)
    tokens = largest(SPACE)
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    taken = net.network(tokens, [images[:32], images[32:]])
    assert not taken.training
    first = taken.rows[0]
    with torch.no_grad():
        entering = first.conv(images)
    assert torch.allclose(first.bn.running_mean, entering.mean((0, 2, 3)), atol=1e-4)
    assert first.bn.momentum == SPACE.decode(tokens).bn_momentum


def test_a_step_moves_only_what_its_network_has(image_data: ImageData) -> None:
    net = Supernet(SPACE)
    before = {name: p.detach().clone() for name, p in net.weights.items()}
    with pytest.raises(Killed):
        train_supernet(net, image_data, SETTINGS, on_step=kill_after(1))
    moved = {name for name, p in net.weights.items() if not torch.equal(before[name], p)}
    tokens = SPACE.sample(random.Random("0 0"))
    kind = SPACE.decode(tokens).rows[1].op
    assert any(name.startswith("block0/") for name in moved)
    assert all(
        ("dconv" in name) == (kind == "bneck") for name in moved if name.startswith("block0/")
    )


@pytest.mark.parametrize("sampling", ["uniform", pytest.param("sandwich", marks=pytest.mark.slow)])
def test_networks_of_a_trained_supernet_answer_above_chance(
    packed: Packed, image_data: ImageData, sampling: str
) -> None:
    net = Supernet(SPACE)
    settings = replace(SETTINGS, epochs=12.0)
    train_supernet(net, image_data, settings, sampling=sampling)
    judged = []
    for tokens in (largest(SPACE), smallest(SPACE)):
        batches = eval_batches(packed.train, np.arange(96), resolution=32, batch=48)
        taken = net.network(tokens, [images for images, _ in batches])
        batches = eval_batches(packed.val, np.arange(30), resolution=32, batch=30)
        judged.append(evaluate(Module(taken), batches).expected)
    assert min(judged) > 0.45  # three classes


def test_a_broken_training_goes_on_to_the_same_weights(image_data: ImageData, tmp_path) -> None:  # type: ignore[no-untyped-def]
    whole = train_supernet(Supernet(SPACE), image_data, SETTINGS)

    with pytest.raises(Killed):  # six steps an epoch
        train_supernet(
            Supernet(SPACE), image_data, SETTINGS, checkpoint=tmp_path / "c", on_step=kill_after(8)
        )
    resumed = train_supernet(
        Supernet(SPACE, seed=5), image_data, SETTINGS, checkpoint=tmp_path / "c"
    )
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6)


def test_an_unknown_sampling(image_data: ImageData) -> None:
    with pytest.raises(InputError, match="no sampling 'all'; known are uniform, sandwich"):
        train_supernet(Supernet(SPACE), image_data, SETTINGS, sampling="all")
