"""The detector's module and its losses: against the counts, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from bneck.nets.build import build
from bneck.nets.transfer import take_rows
from bneck.runs.answers import ModuleAnswers
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.zoo import network
from bneck.tasks.detect.boxes import as_boxes, corners, overlaps
from bneck.tasks.detect.count import count_detector
from bneck.tasks.detect.head import Detector, anchors, maps, ssdlite
from bneck.tasks.detect.loss import DetectionLoss, Targets, focal_loss, mining_loss
from bneck.tasks.detect.module import DetectorNet, build_detector
from bneck.tasks.detect.scoring import found_in
from bneck.tasks.detect.task import Detect
from drawn import specs


def measured(net: DetectorNet, size: int) -> tuple[int, int]:
    """Parameters and multiply-adds, from its tensors and its convolutions' outputs."""
    madds = 0

    def hook(conv: nn.Module, _: object, out: Tensor) -> None:
        nonlocal madds
        assert isinstance(conv, nn.Conv2d)
        madds += conv.weight[0].numel() * out[0].numel()

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(hook)
    with torch.inference_mode():
        net.eval()(torch.zeros(1, net.detector.network.channels, size, size))
    return sum(p.numel() for p in net.parameters()), madds


class TestModule:
    @pytest.mark.parametrize(
        "name", ["v3-small+dagger", "v1-0.25", "v2-0.35", "v3-edgetpu-0.35", "v4-conv-small-0.35"]
    )
    @pytest.mark.parametrize("resolution", [96, 75])
    def test_counts_are_the_module_s(self, name: str, resolution: int) -> None:
        detector = ssdlite(name, classes=5, resolution=resolution)
        costs = count_detector(detector)
        assert (costs.params, costs.madds) == measured(build_detector(detector), resolution)

    @settings(max_examples=25, deadline=None)
    @given(specs())
    def test_any_network(self, spec: NetSpec) -> None:
        if not any(not isinstance(r, Pool) and r.stride == 2 for r in spec.rows[1 : spec.pool_at]):
            return
        detector = Detector(network=spec, classes=2, resolution=32, extras=(24, 16))
        costs, net = count_detector(detector), build_detector(detector).eval()
        assert (costs.params, costs.madds) == measured(net, 32)
        images = torch.zeros(2, spec.channels, 32, 32)
        offsets, logits = net(images)
        assert offsets.shape == (2, costs.anchors, 4)
        assert logits.shape == (2, costs.anchors, 3)
        found = [tuple(one.shape[1:]) for one in net.maps(images)]
        assert found == [(m.width, *m.size) for m in maps(detector)]

    def test_parameters_have_the_names_of_the_walk(self) -> None:
        detector = ssdlite("v3-small", classes=2, resolution=64)
        convs = {
            name.removesuffix(".conv")
            for name, part in build_detector(detector).named_modules()
            if name.endswith(".conv")
        }
        assert convs == {layer.name for layer in detector.layers() if layer.kind != "squeeze"}

    def test_c4_is_the_expansion(self) -> None:
        net = build_detector(ssdlite("v3-small", classes=2, resolution=64)).eval()
        images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            x = images
            for row in net.rows[:9]:
                x = row(x)
            c4 = net.rows[9].get_submodule("expand")(x)
            for row in net.rows[9:]:
                x = row(x)
            found = net.maps(images)
        assert torch.equal(found[0], c4)
        assert torch.equal(found[1], x)

    def test_predictions_come_in_the_order_of_the_anchors(self) -> None:
        """A head that answers in one place answers for that place's anchor."""
        detector = ssdlite("v3-small", classes=2, resolution=64)
        net = build_detector(detector).eval()
        for head in net.boxes:
            nn.init.zeros_(head.get_submodule("predict.conv").weight)
        bias = net.boxes[1].get_submodule("predict.conv").bias
        assert isinstance(bias, Tensor)
        bias.data[2 * 4 : 3 * 4] = 7.0  # the third box of a cell: ratio 1/2
        with torch.inference_mode():
            offsets = net(torch.zeros(1, 3, 64, 64))[0][0]
        hit = offsets.eq(7.0).all(1).numpy()
        chosen = np.array(anchors(detector))[hit]
        assert len(chosen) == maps(detector)[1].size[0] ** 2
        assert np.allclose(chosen[:, 2] / chosen[:, 3], 0.5)
        assert np.allclose(chosen[:, 2] * chosen[:, 3], 0.35**2)

    def test_the_seed_decides(self) -> None:
        detector = ssdlite("v3-small", classes=1, resolution=32)
        one, two = build_detector(detector, seed=1), build_detector(detector, seed=1)
        pairs = zip(one.parameters(), two.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_a_trained_backbone_is_taken(self) -> None:
        source = build(network("v3-small"), seed=3)
        net = build_detector(ssdlite("v3-small", classes=2))
        take_rows(net, source.state_dict(), "source")
        rows = [n for n in net.state_dict() if n.startswith("rows.")]
        assert len(rows) > 100
        assert all(torch.equal(net.state_dict()[n], source.state_dict()[n]) for n in rows)

    def test_another_backbone_is_refused(self) -> None:
        net = build_detector(ssdlite("v3-small+dagger", classes=2))
        source = dict(build(network("v3-small")).state_dict())
        with pytest.raises(
            InputError, match=r"^mine does not hold this network's backbone: rows\.9\.project"
        ):
            take_rows(net, source, "mine")


LABELS = torch.tensor([[1, 0, 0, 0, 0, 2]])


def targets(labels: Tensor = LABELS) -> Targets:
    return Targets(labels, torch.zeros(*labels.shape, 4))


class TestLosses:
    def test_focal_by_hand(self) -> None:
        logits = torch.zeros(1, 6, 3)
        logits[0, 0, 1] = 2.0
        offsets = torch.zeros(1, 6, 4)
        offsets[0, 0] = torch.tensor([0.5, 0.0, 3.0, 0.0])  # smooth L1: 0.125 and 2.5
        p = 1 / (1 + math.exp(-2.0))
        right = 0.75 * (1 - p) ** 2 * -math.log(p)
        half = 0.25 * math.log(2)  # (1/2)^2 log 2, before alpha
        # 18 scores: the sure one, one more of an object, 16 that are to be 0.
        wanted = right + 0.75 * half + 16 * 0.25 * half + (0.125 + 2.5) / 4
        assert float(focal_loss(offsets, logits, targets())) == pytest.approx(wanted / 2, rel=1e-5)

    def test_mining_by_hand(self) -> None:
        labels = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
        logits = torch.full((2, 6, 2), -9.0)
        logits[0, 1:, 1] = torch.tensor([3.0, 1.0, 2.0, -1.0, 0.0])
        logits[1, :, 1] = torch.tensor([0.0, 1.0, 2.0, -2.0, -3.0, -4.0])

        def zero(logit: float) -> float:
            return math.log(1 + math.exp(logit))

        # Three negatives for one positive, and three where there is none.
        parts = [zero(9.0), zero(3.0), zero(2.0), zero(1.0), zero(2.0), zero(1.0), zero(0.0)]
        wanted = sum(parts) + 7 * zero(-9.0)  # slot 0 of the seven anchors is to be 0 too
        offsets = torch.zeros(2, 6, 4)
        assert float(mining_loss(offsets, logits, targets(labels))) == pytest.approx(
            wanted, rel=1e-5
        )

    @pytest.mark.parametrize("name", ["focal", "mining"])
    def test_images_without_boxes_give_a_finite_loss(self, name: str) -> None:
        detector = ssdlite("v3-small-0.35", classes=2, resolution=32)
        net, empty = build_detector(detector), (as_boxes([]), np.empty(0, np.int64))
        outputs = net(torch.zeros(2, 3, 32, 32))
        loss = DetectionLoss(detector, name).of(outputs, [empty[0]] * 2, [empty[1]] * 2)
        loss.backward()
        assert math.isfinite(float(loss.detach()))
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        assert all(bool(g.isfinite().all()) for g in grads)

    def test_an_anchor_is_told_its_box(self) -> None:
        detector = ssdlite("v3-small", classes=3, resolution=64)
        places = corners(np.array(anchors(detector), np.float32))
        target = DetectionLoss(detector).targets([places[[50]]], [np.array([3])])
        assert int(target.labels[0, 50]) == 3
        assert target.offsets[0, 50].abs().max() < 1e-5
        assert int((target.labels > 0).sum()) >= 1

    def test_an_unknown_loss(self) -> None:
        with pytest.raises(InputError, match="no detection loss 'l2'; known are focal, mining"):
            DetectionLoss(ssdlite("v3-small"), "l2")


@pytest.mark.parametrize("name", ["focal", "mining"])
def test_a_detector_learns_two_pictures(name: str) -> None:
    rows = (
        Conv(3, 8, "relu", 2),
        Bneck(3, 32, 16, 0, "hswish", 2),
        Bneck(3, 64, 32, 0, "hswish", 2),
    )
    spec = NetSpec(name="little", rows=(*rows, Pool()), bn_momentum=0.3)
    detector = Detector(network=spec, classes=2, resolution=32, extras=(32,))
    net, loss = build_detector(detector), DetectionLoss(detector, name)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    boxes = [as_boxes([[0.1, 0.1, 0.5, 0.6]]), as_boxes([[0.4, 0.3, 0.9, 0.8]])]
    labels = [np.array([1]), np.array([2])]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss.of(net(images), boxes, labels).backward()
        optimizer.step()
    seen = found_in(ModuleAnswers(Detect(), net), images)
    for found, box, label in zip(seen, boxes, labels, strict=True):
        assert found.labels[0] == label[0]
        assert overlaps(found.boxes[:1], box)[0, 0] > 0.7
