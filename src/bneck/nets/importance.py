"""Fisher importance of a trained network's channels: what the loss does where they are taken away.

A channel is taken away wherever it is read: by every convolution that mixes channels, however many
rows a residual ties together and whatever a head takes from them. A gate of one per image stands
before each of these, one and the same for all that read a group of channels; the loss's gradient by
it is summed over them, squared, and averaged over images (Molchanov et al. 2019; Liu et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from bneck.nets.build import SIZE, WrappedNet
from bneck.records.files import write_bytes
from bneck.specs.errors import InputError
from bneck.specs.transforms import stages
from bneck.specs.wrapper import Wrapped

IMAGES = 1000

B = TypeVar("B")  # a batch
N = TypeVar("N", bound=nn.Module)
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Importance:
    """Importance of every channel of a network, and of its residual rows, from so many `images`.

    Keys of `groups`, with arrays of one number >= 0 a channel:

    - `rows.N.out`: what comes out of row N, a conv or the first row of a stage; rows that residuals
      tie to it (`specs.transforms.stages`) have its channels and no key of their own.
    - `rows.N.expanded`: the expansion of row N; a row without an expand convolution has none.
    - `rows.N.se`: the squeeze width of row N.
    - `rows.N.branch`, one number: row N itself, which adds to its input and could be left out.
    """

    groups: Mapping[str, Array]
    images: int

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        write_bytes(path, save(dict(self.groups), {"images": str(self.images)}))

    @staticmethod
    def load(path: Path) -> Importance:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or another one.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                images = int(file.metadata()["images"])
                return Importance({key: file.get_tensor(key) for key in file.keys()}, images)  # noqa: SIM118
        except (OSError, SafetensorError, TypeError, LookupError, ValueError):
            raise InputError(
                f"{path} holds no importance of channels; remove it, and it is measured again"
            ) from None


@dataclass(frozen=True, slots=True)
class Channels:
    """Which channels belong together in a wrapped network, by the keys of `Importance`.

    `behind`: layer -> the group of its outputs, for what a narrower network has narrower. `reads`:
    module -> the group whose channels it mixes. `branches`: module -> the residual row it ends.
    """

    behind: dict[str, str | None] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)


def channels(wrapped: Wrapped) -> Channels:
    """The groups of channels of a network with what surrounds it."""
    spec, found, feeds = wrapped.network, Channels(), wrapped.feeds()
    out = {i: f"rows.{group[0]}.out" for group in stages(spec) for i in group}
    out |= {i: f"rows.{i}.out" for i in range(spec.pool_at + 1, len(spec.rows))}
    here: str | None = None  # the image's channels belong to no group
    for layer in wrapped.layers(SIZE):
        own = layer.name.startswith("rows.")
        if not own and layer.name not in feeds:
            continue
        group = here if own else found.behind[feeds[layer.name]]
        match layer.kind:
            case "squeeze":
                assert group is not None
                found.reads[f"{layer.name}.reduce"] = group
                found.reads[f"{layer.name}.gate"] = f"rows.{layer.row}.se"
            case "conv":
                if group is not None:
                    found.reads[layer.name] = group
                if not own:
                    continue  # a head keeps the channels that it makes
                expands = layer.name.endswith(".expand")
                group = f"rows.{layer.row}.expanded" if expands else out[layer.row]
                if layer.adds:
                    found.branches[layer.name] = f"rows.{layer.row}.branch"
        found.behind[layer.name] = group
        if own:
            here = group
    return found


def measure_importance(
    net: WrappedNet,
    batches: Iterable[B],
    loss: Callable[[Any, B], Tensor],
    *,
    images: int = IMAGES,
    power: int = 2,
) -> Importance:
    """Importance of every channel, from one pass forward and back over images; exact for each of them.

    Args:
        net: a trained network; it comes back as it was.
        batches: of training images, as training sees them.
        loss: of a net on a batch: the sum of every image's own loss, see `each_image`. It calls the net
            once.
        images: stop after so many.
        power: of an image's gradient before the mean is taken: 2 for Fisher, 1 for its size.

    Raises:
        InputError: no images, or a loss that is not finite.
    """
    sums: dict[str, Tensor] = {}
    seen = 0
    for gradients in image_gradients(net, batches, loss):
        left = images - seen
        for key, one in gradients.items():
            total = one[:left].double().abs().pow(power).sum(0)
            sums[key] = sums[key] + total if key in sums else total
        seen += min(left, len(next(iter(gradients.values()))))
        if seen >= images:
            break
    if not seen:
        raise InputError("there are no images to measure the importance of channels on; add some")
    groups = {key: (total / seen).cpu().numpy() for key, total in sorted(sums.items())}
    if not all(np.isfinite(values).all() for values in groups.values()):
        raise InputError(
            f"the loss of {net.wrapped.name} is not finite, so no channel's importance can be measured; "
            "train it with a smaller learning rate first"
        )
    return Importance(groups, seen)


def image_gradients(
    net: WrappedNet, batches: Iterable[B], loss: Callable[[Any, B], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """For every batch, key -> gradients of each image's loss by its gates: (N, channels)."""
    gates: dict[str, Tensor] = {}
    with _gated(net, gates):
        for batch in batches:
            gates.clear()
            total = loss(net, batch)
            found = torch.autograd.grad(total, list(gates.values()))
            yield {key: one.flatten(1) for key, one in zip(gates, found, strict=True)}


def each_image(loss: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """The sum of every image's own loss, from a loss that means something over a batch.

    Args:
        loss: of a net on a batch: a tuple with the images first, one entry per image in each part.
            It calls the net once.
    """

    def summed(net: Any, batch: Any) -> Tensor:
        whole = net(batch[0])
        total = torch.zeros(())
        for i in range(len(batch[0])):
            answer = _Answer(_cut(whole, i))
            total = total + loss(answer, tuple(part[i : i + 1] for part in batch))
        return total

    return summed


class _Answer(nn.Module):
    """A net that has answered already."""

    def __init__(self, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *_: Any) -> Any:
        """What was answered."""
        return self.outputs


def _cut(outputs: Any, i: int) -> Any:
    if isinstance(outputs, tuple):
        return tuple(one[i : i + 1] for one in outputs)
    return outputs[i : i + 1]


@contextmanager
def _gated(net: WrappedNet, gates: dict[str, Tensor]) -> Iterator[None]:
    """Let `net`, in evaluation mode, put its gates into `gates` when it is called."""

    def gate(key: str, x: Tensor, width: int) -> Tensor:
        if key not in gates:
            gates[key] = x.new_ones((len(x), width, 1, 1), requires_grad=True)
        return x * gates[key]

    def reading(key: str) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        return lambda _, inputs: (gate(key, inputs[0], inputs[0].shape[1]),)

    def ending(key: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        return lambda _, __, made: gate(key, made, 1)

    found, training = channels(net.wrapped), net.training
    learning = [value for value in net.parameters() if value.requires_grad]
    handles = [
        net.get_submodule(name).register_forward_pre_hook(reading(key))
        for name, key in found.reads.items()
    ]
    handles += [
        net.get_submodule(name).register_forward_hook(ending(key))
        for name, key in found.branches.items()
    ]
    net.eval().requires_grad_(False)  # gradients of weights would cost half as much again
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for value in learning:
            value.requires_grad_(True)
        net.train(training)
