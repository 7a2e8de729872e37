"""Importance of channels, against weights' gradients of one image after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bneck.nets.build import WrappedNet
from bneck.nets.importance import Importance, each_image, measure_importance
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.tasks.detect.head import Detector
from bneck.tasks.detect.loss import DetectionLoss
from bneck.tasks.detect.module import build_detector
from bneck.tasks.segment.head import segmenter
from bneck.tasks.segment.loss import loss as pixel_loss
from bneck.tasks.segment.module import build_segmenter
from test_shrink import UNIVERSAL, WIDE, numbers, trained, varied

# Which convolutions mix the channels of each group, written down by hand.
ROWS = {
    "rows.0.out": ["rows.1.se.reduce", "rows.1.project.conv", "rows.2.expand.conv"],
    "rows.1.se": ["rows.1.se.gate"],
    "rows.2.expanded": ["rows.2.project.conv"],
    "rows.2.out": ["rows.3.expand.conv", "rows.4.expand.conv", "rows.5.se.reduce", "rows.5.project.conv"],
    "rows.3.expanded": ["rows.3.se.reduce", "rows.3.project.conv"],
    "rows.3.se": ["rows.3.se.gate"],
    "rows.4.expanded": ["rows.4.se.reduce", "rows.4.project.conv"],
    "rows.4.se": ["rows.4.se.gate"],
    "rows.5.out": ["rows.6.conv"],
    "rows.5.se": ["rows.5.se.gate"],
}  # fmt: skip
PLAIN = ROWS | {"rows.6.out": ["rows.8.conv"], "rows.8.out": ["classifier"]}
BRANCHES = [1, 3, 4]
# A start keeps its input's channels; a channel is removed after it, with all that it adds.
OF_UNIVERSAL = {
    "rows.0.out": ["rows.1.expand.conv"],
    "rows.1.expanded": ["rows.1.project.conv"],
    "rows.1.out": [f"rows.{i}.expand.conv" for i in (2, 3, 4, 5)],
    "rows.2.expanded": ["rows.2.project.conv"],
    "rows.3.expanded": ["rows.3.se.reduce", "rows.3.project.conv"],
    "rows.3.se": ["rows.3.se.gate"],
    "rows.4.expanded": ["rows.4.project.conv"],
    "rows.5.expanded": ["rows.5.project.conv"],
    "rows.5.out": ["rows.6.conv"],
    "rows.6.out": ["rows.8.conv"],
    "rows.8.out": ["classifier"],
}

TAPPED = NetSpec(  # a detector takes its first map inside row 3, a segmenter inside row 2
    name="tapped",
    rows=(
        Conv(3, 8, "hswish", 2),
        Bneck(3, 16, 16, 8, "relu", 2),
        Bneck(3, 24, 16, 8, "hswish", 2),
        Bneck(5, 40, 24, 16, "hswish", 2),
        Bneck(3, 48, 24, 0, "relu"),
        Conv(1, 32, "hswish"),
        Pool(),
        Conv(1, 16, "hswish", bn=False),
    ),
)
OWN = {
    "rows.0.out": ["rows.1.expand.conv"],
    "rows.1.expanded": ["rows.1.se.reduce", "rows.1.project.conv"],
    "rows.1.se": ["rows.1.se.gate"],
    "rows.1.out": ["rows.2.expand.conv"],
    "rows.2.expanded": ["rows.2.se.reduce", "rows.2.project.conv"],
    "rows.2.se": ["rows.2.se.gate"],
    "rows.2.out": ["rows.3.expand.conv"],
    "rows.3.expanded": ["rows.3.se.reduce", "rows.3.project.conv"],
    "rows.3.se": ["rows.3.se.gate"],
    "rows.3.out": ["rows.4.expand.conv", "rows.5.conv"],
    "rows.4.expanded": ["rows.4.project.conv"],
}


def detected() -> dict[str, list[str]]:
    heads = ("boxes", "scores")
    return OWN | {
        "rows.3.expanded": [
            *OWN["rows.3.expanded"], *(f"{head}.0.predict.conv" for head in heads),
        ],
        "rows.5.out": ["extras.0.reduce.conv", *(f"{head}.1.predict.conv" for head in heads)],
    }  # fmt: skip


def segmented(*last: str, low: bool) -> dict[str, list[str]]:
    tapped = [*OWN["rows.2.expanded"], *(["head.low"] if low else [])]
    return OWN | {"rows.2.expanded": tapped, "rows.5.out": list(last)}


def label_loss(net: Any, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def mask_loss(net: Any, batch: Any) -> Tensor:
    return pixel_loss(net(batch[0]), batch[1])


def classifier(spec: NetSpec = WIDE) -> tuple[WrappedNet, Any, Any]:
    return trained(spec), (numbers(5, 3, 32, 40), torch.tensor([0, 6, 3, 3, 1])), label_loss


def detector() -> tuple[WrappedNet, Any, Any]:
    wrapped = Detector(network=TAPPED, classes=2, resolution=64, extras=(24, 16))
    net, own = build_detector(wrapped), DetectionLoss(wrapped)
    boxes = [np.array([[0.1, 0.1, 0.6, 0.7]], np.float32), np.zeros((0, 4), np.float32)]
    boxes.append(np.array([[0.0, 0.2, 0.3, 0.5], [0.5, 0.5, 1.0, 1.0]], np.float32))
    labels = [np.array([1]), np.zeros(0, np.int64), np.array([2, 1])]

    def loss(net: Any, batch: Any) -> Tensor:
        return own.of(net(batch[0]), batch[1], batch[2])

    return varied(net), (numbers(3, 3, 64, 64), boxes, labels), loss


def segmenter_with(head: Any) -> Callable[[], tuple[WrappedNet, Any, Any]]:
    def made() -> tuple[WrappedNet, Any, Any]:
        net = build_segmenter(segmenter(TAPPED, classes=3, head=head, filters=8))
        masks = torch.randint(0, 3, (3, 48, 64), generator=torch.Generator().manual_seed(1))
        return varied(net), (numbers(3, 3, 48, 64), masks), mask_loss

    return made


CASES: dict[str, tuple[Callable[[], tuple[WrappedNet, Any, Any]], dict[str, list[str]], list[int]]] = {
    "classifier": (classifier, PLAIN, BRANCHES),
    "universal": (partial(classifier, UNIVERSAL), OF_UNIVERSAL, [2, 3, 4]),
    "detector": (detector, detected(), [4]),
    "lraspp": (
        segmenter_with("lraspp"), segmented("head.conv.conv", "head.gate", low=True), [4]
    ),
    "raspp": (
        segmenter_with("raspp"), segmented("head.conv.conv", "head.pooled.conv", low=False), [4]
    ),
}  # fmt: skip


def one_by_one(
    net: WrappedNet, batch: Any, loss: Any, readers: dict[str, list[str]], branches: list[int]
) -> tuple[dict[str, Tensor], int]:
    """Key -> gradients by gates (images, channels): weights times their gradients, image by image.

    Scaling a channel where it is read is scaling the weights that read it.
    """
    found: dict[str, list[Tensor]] = {}
    count = len(batch[0])
    for i in range(count):
        net.zero_grad()
        loss(net, tuple(part[i : i + 1] for part in batch)).backward()
        for key, names in readers.items():
            total = torch.zeros(())
            for name in names:
                weight = net.get_submodule(name).weight
                assert isinstance(weight, nn.Parameter)
                assert weight.grad is not None
                products = (weight * weight.grad).detach()
                # The filters of a depthwise head conv stand before the conv that mixes.
                total = total + products.sum((0, 2, 3))
            found.setdefault(key, []).append(total)
        for row in branches:
            norm: Any = net.get_submodule(f"rows.{row}.project.bn")
            both = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
            found.setdefault(f"rows.{row}.branch", []).append(both.detach().sum()[None])
    return {key: torch.stack(rows) for key, rows in found.items()}, count


@pytest.mark.parametrize("power", [2, 1])
@pytest.mark.parametrize("case", CASES)
def test_importance_is_the_mean_of_each_images_gradient_to_the_power(case: str, power: int) -> None:
    make, readers, branches = CASES[case]
    net, batch, loss = make()
    expected, count = one_by_one(net, batch, loss, readers, branches)
    found = measure_importance(net, [batch], each_image(loss), power=power)
    assert found.images == count
    assert set(found.groups) == set(expected)
    for key, gradients in expected.items():
        wanted = gradients.double().abs().pow(power).mean(0)
        assert wanted.max() > 0, key
        np.testing.assert_allclose(
            found.groups[key], wanted, rtol=1e-3, atol=1e-4 * float(wanted.max()), err_msg=key
        )


def test_batches_add_up_and_the_last_one_is_cut() -> None:
    net, (images, labels), loss = classifier()
    parts = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    whole = measure_importance(net, [(images[:4], labels[:4])], each_image(loss))
    cut = measure_importance(net, parts, each_image(loss), images=4)
    assert cut.images == 4
    for key, values in whole.groups.items():
        np.testing.assert_allclose(cut.groups[key], values, rtol=1e-4, atol=1e-12)


def test_the_net_comes_back_as_it_was() -> None:
    net, batch, loss = classifier()
    net.train()
    net.classifier.requires_grad_(False)  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure_importance(net, [batch], each_image(loss))
    assert net.training
    assert not net.get_parameter("classifier.weight").requires_grad
    assert net.get_parameter("rows.0.conv.weight").requires_grad
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(not module._forward_pre_hooks for module in net.modules())
    assert all(not module._forward_hooks for module in net.modules())


def test_a_silent_row_has_no_importance() -> None:
    net, batch, loss = classifier()
    norm: Any = net.get_submodule("rows.3.project.bn")
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.zero_()
    found = measure_importance(net, [batch], each_image(loss)).groups
    assert found["rows.3.branch"] == 0
    assert not found["rows.3.expanded"].any()
    assert found["rows.4.branch"] > 0


def test_a_file_holds_it(tmp_path: Path) -> None:
    net, batch, loss = classifier()
    found = measure_importance(net, [batch], each_image(loss))
    found.save(tmp_path / "importance.safetensors")
    again = Importance.load(tmp_path / "importance.safetensors")
    assert again.images == found.images
    assert set(again.groups) == set(found.groups)
    assert all(np.array_equal(again.groups[key], found.groups[key]) for key in found.groups)


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_another_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "importance.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="holds no importance of channels; remove it"):
        Importance.load(path)


def test_without_images_or_with_a_broken_loss_there_is_none() -> None:
    net, batch, loss = classifier()
    with pytest.raises(InputError, match="no images to measure"):
        measure_importance(net, [], each_image(loss))
    with torch.no_grad():
        net.get_parameter("classifier.bias").fill_(torch.nan)
    with pytest.raises(InputError, match="the loss of wide is not finite"):
        measure_importance(net, [batch], each_image(loss))
