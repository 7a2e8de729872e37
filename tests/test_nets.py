"""Nets: the module is what its spec says, pads as TensorFlow does, and its weights survive a file."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from bneck.nets.build import Net, build
from bneck.nets.ops import SameConv2d
from bneck.nets.weights import fill, load_weights, save_weights
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Conv, Pool
from bneck.specs.transforms import scale_width
from bneck.specs.zoo import V3_LARGE, V3_SMALL
from drawn import specs

LITTLE = NetSpec(  # one row of every kind
    name="little",
    resolution=32,
    classes=3,
    rows=(
        Conv(3, 16, "hswish", 2),
        Bneck(3, 16, 16, 8, "relu", 2),  # no expand convolution
        Bneck(3, 48, 24, 0, "relu", 2),
        Bneck(5, 64, 24, 16, "hswish"),  # adds its input
        Conv(1, 96, "hswish"),
        Pool(),
        Conv(1, 64, "hswish", bn=False),
    ),
)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def equal(a: Net, b: Net) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


class TestBuild:
    def test_the_same_seed_gives_the_same_weights(self) -> None:
        assert equal(build(LITTLE, seed=3), build(LITTLE, seed=3))
        assert not equal(build(LITTLE, seed=3), build(LITTLE, seed=4))

    def test_the_random_numbers_of_others_are_left_alone(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        build(LITTLE, seed=9)
        assert torch.equal(torch.rand(3), expected)

    def test_names_follow_the_rows(self) -> None:
        def bn(name: str) -> set[str]:
            return {f"{name}.conv.weight", f"{name}.bn.weight", f"{name}.bn.bias"}

        def biased(name: str) -> set[str]:
            return {f"{name}.weight", f"{name}.bias"}

        assert {name for name, _ in build(LITTLE).named_parameters()} == {
            *bn("rows.0"),
            *bn("rows.1.depthwise"),
            *biased("rows.1.se.reduce"), *biased("rows.1.se.gate"), *bn("rows.1.project"),
            *bn("rows.2.expand"), *bn("rows.2.depthwise"), *bn("rows.2.project"),
            *bn("rows.3.expand"), *bn("rows.3.depthwise"),
            *biased("rows.3.se.reduce"), *biased("rows.3.se.gate"), *bn("rows.3.project"),
            *bn("rows.4"),
            *biased("rows.6.conv"),
            *biased("classifier"),
        }  # fmt: skip

    def test_shapes_are_the_specs_widths(self) -> None:
        shapes = {name: tuple(value.shape) for name, value in build(LITTLE).named_parameters()}
        assert shapes["rows.0.conv.weight"] == (16, 3, 3, 3)
        assert shapes["rows.1.depthwise.conv.weight"] == (16, 1, 3, 3)
        assert shapes["rows.1.se.reduce.weight"] == (8, 16, 1, 1)
        assert shapes["rows.3.expand.conv.weight"] == (64, 24, 1, 1)
        assert shapes["rows.3.depthwise.conv.weight"] == (64, 1, 5, 5)
        assert shapes["rows.3.project.conv.weight"] == (24, 64, 1, 1)
        assert shapes["rows.6.conv.weight"] == (64, 96, 1, 1)
        assert shapes["classifier.weight"] == (3, 64, 1, 1)

    def test_the_specs_numbers_reach_the_modules(self) -> None:
        spec = NetSpec(
            name="x", rows=(Conv(3, 8, "relu"), Pool()), bn_eps=0.5, bn_momentum=0.25, dropout=0.125
        )
        net = build(spec)
        norm: Any = net.get_submodule("rows.0.bn")
        assert (norm.eps, norm.momentum, net.dropout.p) == (0.5, 0.25, 0.125)


class TestForward:
    @pytest.mark.parametrize("name", ["v3-small", "v3-large"])
    @pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 47)])
    def test_scores_come_out_at_even_and_odd_sizes(self, name: str, size: tuple[int, int]) -> None:
        spec = scale_width({"v3-small": V3_SMALL, "v3-large": V3_LARGE}[name], 0.35)
        with torch.inference_mode():
            assert build(spec).eval()(images(2, 3, *size)).shape == (2, 1000)

    @settings(max_examples=40, deadline=None)
    @given(specs())
    def test_any_network_scores_finite_numbers(self, spec: NetSpec) -> None:
        with torch.inference_mode():
            scores = build(spec).eval()(images(2, spec.channels, spec.resolution, spec.resolution))
        assert scores.shape == (2, spec.classes)
        assert scores.isfinite().all()

    def test_one_row_by_hand(self) -> None:
        """Weights of 1 on a map of ones: expand, depthwise, squeeze-and-excite, project, add."""
        spec = NetSpec(
            name="x", channels=1, classes=1, bn_eps=1e-12, dropout=0,
            rows=(Conv(1, 1, "linear"), Bneck(3, 2, 1, 1, "relu", skip="yes"), Pool()),
        )  # fmt: skip
        net = build(spec).eval()
        with torch.no_grad():
            for name, value in net.named_parameters():
                value.fill_(0 if name.endswith("bias") else 1)
            net.get_parameter("rows.1.se.gate.bias").fill_(-2)
        # Depthwise: 4, 6 or 9 ones meet at corner, edge, middle, and the mean over 3 x 3 is 49 / 9.
        # Reduced over 2 channels: 98 / 9; the gate is hsigmoid(98 / 9 - 2) = 1, as it is beyond 3.
        expected = torch.tensor([[4.0, 6, 4], [6, 9, 6], [4, 6, 4]]) * 2 + 1
        row = net.rows[1]
        assert torch.allclose(row(torch.ones(1, 1, 3, 3)), expected[None, None])
        with torch.no_grad():
            net.get_parameter("rows.1.se.gate.bias").fill_(-98 / 9)  # hsigmoid(0) = 1/2 halves it
        assert torch.allclose(row(torch.ones(1, 1, 3, 3)), (expected[None, None] - 1) / 2 + 1)

    def test_in_evaluation_an_image_does_not_see_its_neighbours(self) -> None:
        net, batch = build(LITTLE).eval(), images(4, 3, 32, 32)
        with torch.inference_mode():
            together = net(batch)
            alone = torch.cat([net(image[None]) for image in batch])
        assert torch.allclose(together, alone, atol=1e-6)

    @pytest.mark.parametrize("name", ["little", "v3-small", "v3-large"])
    def test_gradient_reaches_every_parameter(self, name: str) -> None:
        spec = {"little": LITTLE, "v3-small": V3_SMALL, "v3-large": scale_width(V3_LARGE, 0.5)}[
            name
        ]
        net = build(spec).train()
        net(images(4, 3, 64, 64)).square().sum().backward()
        without = [
            n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
        ]
        assert without == []


def same_convolution(
    image: np.ndarray[Any, Any], kernel: np.ndarray[Any, Any], stride: int
) -> np.ndarray[Any, Any]:
    """One channel, as TensorFlow defines SAME: ceil(n / s) outputs, zeros around, the odd one behind."""
    k = kernel.shape[0]
    out = [-(-n // stride) for n in image.shape]
    total = [max((o - 1) * stride + k - n, 0) for o, n in zip(out, image.shape, strict=True)]
    padded = np.pad(image, [(t // 2, t - t // 2) for t in total])
    result = np.zeros(out)
    for y, x in product(*map(range, out)):
        result[y, x] = (
            padded[y * stride : y * stride + k, x * stride : x * stride + k] * kernel
        ).sum()
    return result


class TestSamePadding:
    def conv(self, kernel: int, stride: int) -> SameConv2d:
        conv = SameConv2d(1, 1, kernel, stride, bias=False)
        torch.nn.init.ones_(conv.weight)
        return conv

    def test_by_hand(self) -> None:
        # 1 2 3 4 in a row, 3 wide, stride 2: SAME pads only behind, so 1+2+3 and 3+4+0. Symmetric padding
        # would give 0+1+2 and 2+3+4.
        row = torch.tensor([1.0, 2, 3, 4])
        image = torch.zeros(1, 1, 4, 4)
        image[0, 0, 1] = row
        summed = self.conv(3, 2)(image)
        # Rows 0 to 2 hold the numbers, rows 2 to 4 do not.
        assert summed.tolist() == [[[[6.0, 7.0], [0.0, 0.0]]]]

    @pytest.mark.parametrize(
        ("kernel", "stride", "size"), [*product((3, 5), (1, 2), ((5, 5), (6, 6), (5, 6)))]
    )
    def test_against_numpy(self, kernel: int, stride: int, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(0)
        image, weights = rng.standard_normal(size), rng.standard_normal((kernel, kernel))
        conv = SameConv2d(1, 1, kernel, stride, bias=False).double()
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(weights))
            out = conv(torch.from_numpy(image)[None, None])[0, 0].numpy()
        assert np.allclose(out, same_convolution(image, weights, stride))

    def test_padding_is_a_property_of_the_spec(self) -> None:
        rows = (Conv(3, 8, "relu", 2), Pool())
        padded = {
            p: build(NetSpec(name="x", rows=rows, padding=p)).eval() for p in ("same", "symmetric")
        }
        with torch.inference_mode():
            even = [net(images(1, 3, 8, 8)) for net in padded.values()]
            odd = [net(images(1, 3, 9, 9)) for net in padded.values()]
        assert not torch.allclose(*even)
        assert torch.allclose(*odd)  # at odd sizes both pad one on each side


class TestWeights:
    def test_a_net_survives_its_file(self, tmp_path: Path) -> None:
        net = build(LITTLE, seed=1)
        net(images(4, 3, 32, 32))  # moves batch norm's statistics
        save_weights(net.state_dict(), tmp_path / "w.safetensors")
        again = Net(LITTLE)
        fill(again, tmp_path / "w.safetensors", "little")
        assert equal(net, again)

    def test_a_truncated_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        save_weights(build(LITTLE).state_dict(), path)
        whole = path.read_bytes()
        for cut in (0, 4, 100, len(whole) - 1):
            path.write_bytes(whole[:cut])
            with pytest.raises(InputError, match=r"w\.safetensors is not a whole safetensors file"):
                fill(Net(LITTLE), path, "little")

    def test_a_pickle_is_refused_unread(self, tmp_path: Path) -> None:
        torch.save(build(LITTLE).state_dict(), tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"w\.pt is not a whole safetensors file"):
            load_weights(tmp_path / "w.pt")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        for path in (tmp_path / "absent", tmp_path):
            with pytest.raises(InputError, match="there is no weights file"):
                load_weights(path)

    def test_weights_of_another_network_are_refused_by_name(self, tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        wider = NetSpec(
            name="wider", classes=3, rows=(*LITTLE.rows[:6], Conv(1, 80, "hswish", bn=False))
        )
        save_weights(build(wider).state_dict(), path)
        message = "does not hold the weights of little: 3 tensors differ, first "
        named = r"classifier\.weight, rows\.6\.conv\.bias, rows\.6\.conv\.weight"
        with pytest.raises(InputError, match=message + named):
            fill(Net(LITTLE), path, "little")

    def test_missing_and_surplus_weights_are_named(self, tmp_path: Path) -> None:
        path, state = tmp_path / "w.safetensors", build(LITTLE).state_dict()
        bias = state.pop("classifier.bias")
        save_weights({**state, "another.bias": bias}, path)
        with pytest.raises(
            InputError, match=r"2 tensors differ, first another\.bias, classifier\.bias"
        ):
            fill(Net(LITTLE), path, "little")

    def test_a_folder_that_is_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match=r"w\.safetensors cannot be written"):
            save_weights(build(LITTLE).state_dict(), tmp_path / "file" / "w.safetensors")
