"""MobileNetV4, LCNet and EfficientNet-Lite0 under timm's names: an import answers as the file's network.

No file of theirs was at hand. The networks here are written from their papers' tables and timm's
names, knowing nothing of bneck; they make their weights as they go, and so the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import bneck
from bneck.devices.models import network_model
from bneck.devices.runtimes import runtime
from bneck.imports.match import matched
from bneck.imports.read import read_source
from bneck.specs import zoo
from foreign_nets import Torchvision

State = dict[str, Tensor]


class File:
    """The tensors of a file, each drawn when it is first needed."""

    def __init__(self) -> None:
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(0)

    def drawn(self, name: str, *shape: int, low: float = -0.5, high: float = 0.5) -> Tensor:
        if name not in self.state:
            self.state[name] = torch.empty(shape).uniform_(low, high, generator=self.generator)
        return self.state[name]

    def conv(
        self, x: Tensor, name: str, out: int, kernel: int = 1, stride: int = 1, *,
        depthwise: bool = False, bias: bool = False,
    ) -> Tensor:  # fmt: skip
        into = 1 if depthwise else x.shape[1]
        size = 2 * (into * kernel**2) ** -0.5
        weight = self.drawn(f"{name}.weight", out, into, kernel, kernel, low=-size, high=size)
        shift = self.drawn(f"{name}.bias", out) if bias else None
        groups = out if depthwise else 1
        return F.conv2d(x, weight, shift, stride, kernel // 2, groups=groups)

    def bn(self, x: Tensor, name: str) -> Tensor:
        width = x.shape[1]
        scale = self.drawn(f"{name}.weight", width, low=0.5, high=1.5)
        shift, mean = (self.drawn(f"{name}.{part}", width) for part in ("bias", "running_mean"))
        variance = self.drawn(f"{name}.running_var", width, low=0.01, high=1.0)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-5)

    def classifier(self, x: Tensor) -> Tensor:
        weight = self.drawn("classifier.weight", 1000, x.shape[1])
        return F.linear(x.flatten(1), weight, self.drawn("classifier.bias", 1000))


def divisible(value: float) -> int:
    near = max(8, int(value + 4) // 8 * 8)
    return near + 8 if near < 0.9 * value else near


def universal(
    file: File, x: Tensor, at: str, start: int, kernel: int, stride: int, out: int, ratio: int
) -> Tensor:
    y, wide = x, divisible(x.shape[1] * ratio)
    if start:
        step = 1 if kernel else stride
        y = file.conv(y, f"{at}.dw_start.conv", y.shape[1], start, step, depthwise=True)
        y = file.bn(y, f"{at}.dw_start.bn")
    y = F.relu(file.bn(file.conv(y, f"{at}.pw_exp.conv", wide), f"{at}.pw_exp.bn"))
    if kernel:
        y = file.conv(y, f"{at}.dw_mid.conv", wide, kernel, stride, depthwise=True)
        y = F.relu(file.bn(y, f"{at}.dw_mid.bn"))
    y = file.bn(file.conv(y, f"{at}.pw_proj.conv", out), f"{at}.pw_proj.bn")
    return x + y if x.shape == y.shape else y


def v4(stages: list[list[tuple[int, ...]]], width: float = 1.0) -> Callable[[File, Tensor], Tensor]:
    """A block of three numbers is a conv (kernel, stride, out), of four a fused one with its expansion
    last, of five (start, kernel, stride, out, ratio)."""

    def forward(file: File, x: Tensor) -> Tensor:
        x = F.relu(file.bn(file.conv(x, "conv_stem", 32, 3, 2), "bn1"))
        for i, stage in enumerate(stages):
            for j, (first, second, *rest) in enumerate(stage):
                at = f"blocks.{i}.{j}"
                match rest:
                    case [out]:
                        x = file.conv(x, f"{at}.conv", divisible(out * width), first, second)
                        x = F.relu(file.bn(x, f"{at}.bn1"))
                    case [out, ratio]:
                        wide = ratio * x.shape[1]
                        x = file.conv(x, f"{at}.conv_exp", wide, first, second)
                        x = F.relu(file.bn(x, f"{at}.bn1"))
                        x = file.bn(file.conv(x, f"{at}.conv_pwl", out), f"{at}.bn2")
                    case [stride, out, ratio]:
                        out = divisible(out * width)
                        x = universal(file, x, at, first, second, stride, out, ratio)
        x = file.conv(x.mean((2, 3), keepdim=True), "conv_head", 1280)
        return file.classifier(F.relu(file.bn(x, "norm_head")))

    return forward


V4_SMALL = [
    [(3, 2, 32), (1, 1, 32)],
    [(3, 2, 96), (1, 1, 64)],
    [(5, 5, 2, 96, 3), *[(0, 3, 1, 96, 2)] * 4, (3, 0, 1, 96, 4)],
    [
        (3, 3, 2, 128, 6), (5, 5, 1, 128, 4), (0, 5, 1, 128, 4), (0, 5, 1, 128, 3),
        *[(0, 3, 1, 128, 4)] * 2,
    ],
    [(1, 1, 960)],
]  # fmt: skip
V4_MEDIUM = [
    [(3, 2, 48, 4)],
    [(3, 5, 2, 80, 4), (3, 3, 1, 80, 2)],
    [
        (3, 5, 2, 160, 6), *[(3, 3, 1, 160, 4)] * 2, (3, 5, 1, 160, 4), (3, 3, 1, 160, 4),
        (3, 0, 1, 160, 4), (0, 0, 1, 160, 2), (3, 0, 1, 160, 4),
    ],
    [
        (5, 5, 2, 256, 6), (5, 5, 1, 256, 4), *[(3, 5, 1, 256, 4)] * 2, (0, 0, 1, 256, 4),
        (3, 0, 1, 256, 4), (3, 5, 1, 256, 2), (5, 5, 1, 256, 4), *[(0, 0, 1, 256, 4)] * 2,
        (5, 0, 1, 256, 2),
    ],
    [(1, 1, 960)],
]  # fmt: skip


def lcnet(width: float = 1.0) -> Callable[[File, Tensor], Tensor]:
    stages = [
        [(3, 1, 32)], [(3, 2, 64), (3, 1, 64)], [(3, 2, 128), (3, 1, 128)],
        [(3, 2, 256), (5, 1, 256)], [(5, 1, 256)] * 4, [(5, 2, 512), (5, 1, 512)],
    ]  # fmt: skip

    def blocks() -> Iterator[tuple[str, int, int, int, bool]]:
        for i, stage in enumerate(stages):
            for j, (kernel, stride, out) in enumerate(stage):
                yield f"blocks.{i}.{j}", kernel, stride, out, i == 5

    def forward(file: File, x: Tensor) -> Tensor:
        x = F.hardswish(file.bn(file.conv(x, "conv_stem", divisible(16 * width), 3, 2), "bn1"))
        for at, kernel, stride, out, squeezes in blocks():
            into = x.shape[1]
            x = file.conv(x, f"{at}.conv_dw", into, kernel, stride, depthwise=True)
            x = F.hardswish(file.bn(x, f"{at}.bn1"))
            if squeezes:
                mean = x.mean((2, 3), keepdim=True)
                small = file.conv(mean, f"{at}.se.conv_reduce", into // 4, bias=True)
                gate = file.conv(F.relu(small), f"{at}.se.conv_expand", into, bias=True)
                x = x * F.hardsigmoid(gate)
            x = file.conv(x, f"{at}.conv_pw", divisible(out * width))
            x = F.hardswish(file.bn(x, f"{at}.bn2"))
        x = file.conv(x.mean((2, 3), keepdim=True), "conv_head", 1280, bias=True)
        return file.classifier(F.hardswish(x))

    return forward


def lite0(file: File, x: Tensor) -> Tensor:
    stages = [
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
    ]  # fmt: skip
    x = F.relu6(file.bn(file.conv(x, "conv_stem", 32, 3, 2), "bn1"))
    for i, (repeats, kernel, stride, ratio, out) in enumerate(stages):
        for j in range(repeats):
            at, y, wide, step = f"blocks.{i}.{j}", x, x.shape[1] * ratio, 1 if j else stride
            names = [("conv_dw", "bn2"), ("conv_pwl", "bn3")]
            if ratio == 1:
                names = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
            else:
                y = F.relu6(file.bn(file.conv(y, f"{at}.conv_pw", wide), f"{at}.bn1"))
            (deep, deep_bn), (point, point_bn) = names
            y = file.conv(y, f"{at}.{deep}", wide, kernel, step, depthwise=True)
            y = F.relu6(file.bn(y, f"{at}.{deep_bn}"))
            y = file.bn(file.conv(y, f"{at}.{point}", out), f"{at}.{point_bn}")
            x = x + y if x.shape == y.shape else y
    x = F.relu6(file.bn(file.conv(x, "conv_head", 1280), "bn2"))
    return file.classifier(x.mean((2, 3)))


NETWORKS: dict[str, Callable[[File, Tensor], Tensor]] = {
    "v4-conv-small": v4(V4_SMALL),
    "v4-conv-small-0.5": v4(V4_SMALL, 0.5),
    "v4-conv-medium": v4(V4_MEDIUM),
    "lcnet": lcnet(),
    "lcnet-0.35": lcnet(0.35),
    "efficientnet-lite0": lite0,
}


def written(name: str, path: Path, images: Tensor) -> Tensor:
    """What a network answers, its weights being written to a file."""
    file = File()
    with torch.inference_mode():
        answer = NETWORKS[name](file, images)
    save_file({key: value.contiguous() for key, value in file.state.items()}, path)
    return answer


@pytest.mark.parametrize("name", NETWORKS)
def test_an_import_answers_as_the_network_itself_and_is_known_by_its_weights(
    name: str, tmp_path: Path
) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wanted = written(name, tmp_path / "model.safetensors", images)
    assert wanted.std(0).mean() > 1e-3  # from image to image
    record = bneck.import_weights(tmp_path / "model.safetensors", out=tmp_path / "run")
    assert (record["name"], record["source"]["layout"]) == (name, "timm")
    assert (record["padding"], record["bn_eps"]) == ("symmetric", 1e-5)
    ours = bneck.build(tmp_path / "run")
    with torch.inference_mode():
        got = ours(images)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_another_width_of_the_family_is_refused_and_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    written("v4-conv-small-0.5", file, torch.zeros(1, 3, 32, 32))
    with pytest.raises(bneck.InputError) as refused:
        bneck.import_weights(file, "v4-conv-small", out=tmp_path / "run")
    assert str(refused.value) == (
        f"{file} holds v4-conv-small-0.5, not v4-conv-small; import it with bneck import --as "
        "v4-conv-small-0.5"
    )
    assert not (tmp_path / "run").exists()


def torchvision_v3(path: Path) -> None:
    torch.save(Torchvision(zoo.network("v3-small-0.5"), 1000).state_dict(), path)


def tflite_v3(path: Path) -> None:
    engine = runtime("litert")
    engine.write(path, network_model(zoo.network("v3-small-0.5@32"), engine))


ZEROS = torch.zeros(1, 3, 32, 32)
FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "lcnet-0.35": ("lcnet.safetensors", lambda path: written("lcnet-0.35", path, ZEROS)),
    "v4-conv-small-0.5": ("v4.safetensors", lambda path: written("v4-conv-small-0.5", path, ZEROS)),
    "v3-small-0.5 of torchvision": ("v3.pth", torchvision_v3),
    "v3-small-0.5 of TFLite": ("v3.tflite", tflite_v3),
}


@pytest.mark.parametrize("name", FILES)
def test_weights_of_another_family_are_refused_and_named(name: str, tmp_path: Path) -> None:
    """As every network of the zoo, those with parts that the file's layout has no names for too."""
    file, write = FILES[name]
    if file.endswith(".tflite"):
        pytest.importorskip("ai_edge_litert")
    write(tmp_path / file)
    source = read_source(tmp_path / file)
    for other in zoo.NETWORKS:
        with pytest.raises(bneck.InputError, match=f"holds {name.partition(' ')[0]}, not {other};"):
            matched(zoo.network(other), source, path=tmp_path / file)
