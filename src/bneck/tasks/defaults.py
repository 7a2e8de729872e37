"""What a task does where it says nothing else: one network, one float file, outputs compared as numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bneck.costs.count import count_whole
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import to_text
from bneck.specs.wrapper import Wrapper
from bneck.tasks.checks import TOLERANCE, TOLERANCE_8_BIT, TOLERANCE_HALF, ExportError
from bneck.tasks.contract import Answers, Array, Left, Prediction, Size, Table, Task

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from bneck.devices.runtimes import Runtime, Session
    from bneck.graphs.forms import Precision
    from bneck.nets.quantize import Quantized
    from bneck.training.loop import TrainingProblem
    from bneck.training.processes import ProcessGroup
    from bneck.training.settings import Settings


class TaskDefaults(Task):
    """A task derives from it and gives the rest of the contract.

    A run's record and its files keep what `Wrapped.settings` says; `restored` gets it back, from files
    with lists in place of tuples.
    """

    builtin: ClassVar[bool] = False
    paints: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = False
    converts: ClassVar[bool] = False
    scores_epochs: ClassVar[bool] = False
    statistics: ClassVar[tuple[int, int]] = (512, 32)
    cannot: ClassVar[Mapping[str, str]] = {}

    def stored(self, spec: NetSpec, wrapper: Wrapper) -> dict[str, Any]:
        """The settings of the wrapped network."""
        return wrapper.around(spec).settings()

    def told(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """The same, as `metadata` wrote it."""
        return dict(json.loads(metadata["wrapper"]))

    def convert(self, data: Path, out: Path | None) -> tuple[dict[str, Path], tuple[Left, ...]]:
        """There is nothing to convert."""
        raise NotImplementedError

    def supernet_problem(
        self, net: Any, data: Any, settings: Settings, group: ProcessGroup
    ) -> TrainingProblem[Any]:
        """There is none; the task has "supernet" in `cannot`."""
        raise NotImplementedError

    def outputs(self, net: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """What the module returns."""
        found = net(images)
        return found if isinstance(found, tuple) else (found,)

    def draw(self, path: Path, prediction: Prediction, answers: Answers) -> Image | None:
        """Nothing to paint."""
        return None

    def paint(self, name: str, prediction: Prediction) -> Image:
        """There is none."""
        raise NotImplementedError(name)

    def size(self, spec: NetSpec, wrapper: Wrapper, options: Any) -> Size:
        """The wrapper's."""
        return wrapper.size(spec)

    def title(self, spec: NetSpec, wrapper: Wrapper) -> str:
        """The wrapped network's name."""
        return wrapper.around(spec).name

    def variants(self) -> Sequence[tuple[str, Any]]:
        """`model.onnx`."""
        return [("model.onnx", self.Options())]

    def metadata(
        self,
        net: Any,
        record: Mapping[str, Any],
        engine: Runtime,
        precision: Precision,
        size: Size,
        options: Any,
    ) -> dict[str, str]:
        """All that it takes to use the file without the run; without a record, outputs go unnamed."""
        return {
            "task": self.name,
            "precision": precision,
            "classes": json.dumps(list(record.get("classes") or [])),
            "mean": json.dumps(net.normalisation.mean),
            "std": json.dumps(net.normalisation.std),
            "size": json.dumps(size),
            "spec": to_text(net.spec),
            "wrapper": json.dumps(net.wrapped.settings()),
        }

    def finished(self, options: Any) -> bool:
        """There is no last step."""
        return False

    def pixels(self, options: Any) -> bool:
        """Never."""
        return False

    def compare(
        self,
        net: Any,
        session: Session,
        images: Tensor,
        quantized: Quantized | None,
        precision: Precision,
        options: Any,
    ) -> dict[str, Any]:
        """The largest difference of all outputs, relative to the largest output.

        For outputs that every runtime gives in the same shape: vectors, no maps.

        Raises:
            ExportError: more than `checks` allows.
        """
        import torch

        from bneck.nets.quantize import emulation

        module = emulation(net, quantized) if quantized else net.eval()
        with torch.inference_mode():
            wanted = _flat([one.numpy() for one in self.outputs(module, images)])
        each = [session.run_all(image[None].numpy()) for image in images]
        gap = np.abs(_flat([np.concatenate(part) for part in zip(*each, strict=True)]) - wanted)
        largest = float(gap.max() / max(np.abs(wanted).max(), 1e-9))
        off, allowed = largest, TOLERANCE_HALF if precision == "fp16" else TOLERANCE
        if quantized:
            off, allowed = float(np.sqrt((gap**2).mean() / (wanted**2).mean())), TOLERANCE_8_BIT
        if not off <= allowed:  # written so that a NaN fails too
            raise ExportError(
                f"the exported file does not answer as the network does on {len(images)} images: outputs "
                f"differ by {largest:.2g} of the largest; no file was kept"
            )
        return {"images": len(images), "largest_difference": largest}

    def check_line(self, check: Mapping[str, Any]) -> str:
        """How the file's outputs compare with the module's."""
        return f"outputs differ by {check['largest_difference']:.1e} of the largest"

    def count(self, networks: Iterable[str], options: Any) -> Table:
        """Parameters, multiply-adds and activation memory of each network in its wrapper."""
        counted = [(name, count_whole(*self.arrange(name, options, None))) for name in networks]
        return Table(
            title="",
            columns=("network", "params", "MAdds", "peak activations kB"),
            rows=[
                (name, f"{one.params:,}", f"{one.madds:,}", f"{one.activation_bytes / 1024:,.0f}")
                for name, one in counted
            ],
            values=[
                {
                    "network": name, "params": one.params, "madds": one.madds,
                    "activation_bytes": one.activation_bytes,
                }
                for name, one in counted
            ],
        )  # fmt: skip

    def zoo(self, pattern: str, options: Any) -> Table:
        """The paper has none.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"the paper has no networks of the task {self.name}; choose another --task, or see: bneck zoo"
        )

    def score_table(self, scores: Sequence[Mapping[str, Any]]) -> Table | None:
        """The one line says all."""
        return None

    def report(self, record: Mapping[str, Any]) -> list[str]:
        """Nothing to add."""
        return []


def _flat(outputs: Sequence[Array]) -> Array:
    return np.concatenate([one.ravel() for one in outputs])
