"""Wrong and odd checkpoints for `bneck import`, for `odd_inputs.py`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from odd_cases import (
    TINY,
    Case,
    Place,
    case,
    sentences,
)
from safetensors.torch import save_file

from bneck.nets.build import build
from bneck.nets.weights import load_weights
from bneck.specs.zoo import network


class Checkpoints:
    """A run's weights, and files of weights like them."""

    def __init__(self, place: Place) -> None:
        self.place, self.run = place, place.user / "runs/classify"
        self.spec, self.folder = self.run / "spec.yaml", place.user / "checkpoints"
        self.folder.mkdir(exist_ok=True)
        self.state = load_weights(self.run / "weights.safetensors")
        self.stem = self.state["rows.0.conv.weight"]

    def file(self, name: str, held: Any) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(held, self.folder / name)
        return self.folder / name

    def imports(self, path: Path, stem: torch.Tensor, *more: str) -> Case:
        """One that must be read with these weights of the first row."""
        out = self.place.fresh()
        return case(
            "checkpoint", "import", path, "--as", self.spec, "--out", out, *more,
            right=lambda _: torch.equal(
                load_weights(out / "weights.safetensors")["rows.0.conv.weight"], stem
            ),
        )  # fmt: skip

    def refused(self, path: Path, *more: str) -> Case:
        return case(
            "checkpoint", "import", path, "--as", self.spec, "--out", self.place.fresh(), *more
        )


def prefixed(prefix: str, held: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in held.items()}


def checkpoints(place: Place) -> Iterator[Case]:
    """Weights as other programs write them."""
    made = Checkpoints(place)
    state, stem, file, imports = made.state, made.stem, made.file, made.imports
    other = {name: value + 1 if value.ndim == 4 else value for name, value in state.items()}
    changed = other["rows.0.conv.weight"]
    for prefix in (
        "module.",
        "_orig_mod.",
        "model.",
        "backbone.",
        "net.",
        "encoder.",
        "module._orig_mod.",
        "a.b.",
    ):
        yield imports(file(f"prefix-{prefix}pth", prefixed(prefix, state)), stem)
    for key in (
        "state_dict",
        "model",
        "model_state_dict",
        "net",
        "network",
        "weights",
        "params",
        "anything",
    ):
        yield imports(file(f"under-{key}.pth", {key: state, "epoch": 3, "best": 0.5}), stem)
    yield imports(file("deep.pth", {"checkpoint": {"model": prefixed("module.", state)}}), stem)
    yield imports(file("half.pth", {k: v.bfloat16().float() if v.is_floating_point() else v
                                    for k, v in state.items()}), stem.bfloat16().float())  # fmt: skip
    for name, kind in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp64", torch.float64)):
        rounded = {k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}
        yield imports(file(f"{name}.pth", rounded), stem.to(kind).float())
    for key in ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "swa_model"):
        both = file(f"both-{key}.pth", {"state_dict": state, key: prefixed("module.", other)})
        yield imports(both, changed)
        yield imports(both, stem, "--weights", "raw")
    flat = file("flat.pth", prefixed("model.", state) | prefixed("ema_model.", other))
    yield imports(flat, changed)
    yield imports(flat, stem, "--weights", "raw")
    save_file(
        {k: v.contiguous() for k, v in prefixed("model.", state).items()},
        made.folder / "prefix.safetensors",
    )
    yield imports(made.folder / "prefix.safetensors", stem)
    net = build(network(f"{TINY}@32"))
    save_file(net.state_dict(), made.folder / "zoo.safetensors")
    yield case("checkpoint", "import", made.folder / "zoo.safetensors", "--out", place.fresh(),
               right=sentences(f"{TINY} from bneck weights"))  # fmt: skip


def bad_checkpoints(place: Place) -> Iterator[Case]:
    """Files of weights that are none, or of another network, and options that do not fit."""
    made = Checkpoints(place)
    state, stem, file = made.state, made.stem, made.file
    folder, spec, run_ = made.folder, made.spec, made.run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rounded = torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8)
    bad = {
        "no-ema.pth": (state, "--weights", "ema"), "neither.pth": (state, "--weights", "best"),
        "two.pth": ({"left": state, "right": {**state, "rows.0.conv.weight": stem + 1}},),
        "pair.pth": ((state, 3),), "whole numbers.pth": ({k: (10 * v).int() for k, v in state.items()},),
        "capitals.pth": ({k.upper(): v for k, v in state.items()},),
        "infinite.pth": ({**state, "classifier.bias": state["classifier.bias"] / 0},),
        "list.pth": ([1, 2],), "number.pth": (3,),
        "empty.pth": ({},), "text.pth": ({"a": "b"},), "vectors.pth": ({"a.weight": torch.zeros(3)},),
        "whole.pth": (torch.nn.Linear(2, 2),), "nan.pth": ({**state, "rows.0.conv.weight": stem * torch.nan},),
        "missing.pth": ({k: v for k, v in state.items() if "rows.3" not in k},),
        "more.pth": ({**state, "extra.weight": torch.zeros(2, 2)},),
        "shape.pth": ({**state, "rows.0.conv.weight": stem[:3]},),
        "sparse.pth": ({**state, "classifier.weight": torch.eye(3).to_sparse()},),
        "int8.pth": ({**state, "classifier.weight": rounded},),
        "meta.pth": ({**state, "classifier.weight": state["classifier.weight"].to("meta")},),
        "complex.pth": ({**state, "classifier.bias": state["classifier.bias"].to(torch.complex64)},),
        "variance.pth": ({**state, "rows.0.bn.running_var": -state["rows.0.bn.running_var"]},),
        "mixed.pth": ({("module." if i % 2 else "") + k: v for i, (k, v) in enumerate(state.items())},),
        "pairs.pth": (list(state.items()),), "numpy.pth": ({k: v.numpy() for k, v in state.items()},),
        "optimizer.pth": ({"state": {0: {"exp_avg": stem}}, "param_groups": []},),
        "deep-list.pth": ({"state_dict": [state]},), "nested.pth": ({**state, "x": {"y": 1}},),
    }  # fmt: skip
    for name, (held, *more) in bad.items():
        yield made.refused(file(name, held), *more)
    torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "script.pt")
    whole = (folder / "under-net.pth").read_bytes()
    for name, data in {
        "torn.pth": whole[:3000], "zero.pth": bytes(50), "text.txt": b"hello", "png.pth": b"\x89PNG\r\n",
        "torn.safetensors": (run_ / "weights.safetensors").read_bytes()[:1000],
        "torn.tflite": b"\x1c\0\0\0TFL3" + bytes(40), "pickle.pkl": b"\x80\x04N.", "none.npz": b"PK\x03\x04",
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    for name in ("torn.pth", "zero.pth", "text.txt", "png.pth", "torn.safetensors", "torn.tflite", "pickle.pkl",
                 "none.npz", "script.pt", "nowhere.pth"):  # fmt: skip
        yield made.refused(folder / name)
        yield case("checkpoint", "train", TINY, "--data", place.user / "classify", "--from", folder / name,
                   "--out", place.fresh())  # fmt: skip
    for flags in (("--classes", "7"), ("--padding", "zero"), ("--mean", "a,b"), ("--mean", "1"),
                  ("--mean", "123.7,116.3,103.5"), ("--bn-eps", "nan"),
                  ("--std", "0,0,0"), ("--bn-eps", "-1"), ("--source", "keras"),
                  ("--labels", place.user / "segment/classes.txt"),
                  ("--as", "v2"), ("--as", "nothing")):  # fmt: skip
        given = () if flags[0] == "--as" else ("--as", spec)
        yield case(
            "checkpoint", "import", folder / "under-net.pth", *given, *flags, "--out", place.fresh()
        )
