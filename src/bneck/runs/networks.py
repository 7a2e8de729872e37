"""Count, build and measure networks by name: the Python twins of the small commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from bneck.costs.count import Count
from bneck.costs.count import count as count_spec
from bneck.costs.published import PUBLISHED, Published, published
from bneck.records.imported import normalisation
from bneck.records.measurement import Measurement
from bneck.records.run import RunFolder, task_run
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import from_text, load, resolve
from bneck.specs.transforms import rename
from bneck.specs.zoo import NETWORKS, family

if TYPE_CHECKING:
    from bneck.devices.measure import Candidate
    from bneck.nets.build import Net

Network = str | Path | NetSpec


def network(name: Network) -> NetSpec:
    """The spec behind a zoo name (`v3-small-0.75@192`), a spec file or a run's folder.

    Raises:
        InputError: it is none of them; the nearest names are offered.
    """
    return resolve(name)


def count(name: Network) -> Count:
    """Parameters, multiply-adds and activation memory of a network, in total and by row.

    Raises:
        InputError: no such network.
    """
    return count_spec(resolve(name))


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """A network by name, its exact counts, and what was printed about it."""

    name: str
    costs: Count
    published: tuple[Published, ...]


def zoo(pattern: str = "*") -> list[ZooEntry]:
    """Every family of the zoo and every width and resolution of it that the paper has a row for.

    Args:
        pattern: shell-style, as "v3-small*"; a name without wildcards stands for what begins with it.

    Raises:
        InputError: nothing has such a name.
    """
    wanted = pattern if any(c in pattern for c in "*?[") else f"{pattern}*"
    names = dict.fromkeys([*NETWORKS, *(row.network for row in PUBLISHED)])
    found = [
        ZooEntry(name, count_spec(resolve(name)), published(name))
        for name in names
        if fnmatchcase(name, wanted)
    ]
    if not found:
        raise InputError(f"no network of the zoo is called {pattern!r}; see: bneck zoo")
    order = list(NETWORKS)
    return sorted(found, key=lambda entry: order.index(family(entry.name)))


def build(name: Network, *, seed: int = 0) -> Net:
    """The torch module of a network; a finished run's folder gives its trained weights.

    `normalisation` of the module says what input they were made for.

    Raises:
        InputError: no such network.
    """
    from bneck.nets import build as nets
    from bneck.nets.weights import load_net

    spec = resolve(name)
    if not isinstance(name, NetSpec) and (folder := RunFolder(Path(name))).weights.is_file():
        net = load_net(spec, folder.weights)
        net.normalisation = normalisation(folder)
        return net
    return nets.build(spec, seed=seed)


def measure(
    *names: Network,
    threads: int = 1,
    rounds: int = 20,
    device: str = "local",
    runtime: str | Sequence[str] | None = None,
    precision: str | Sequence[str] = "fp32",
    profile: bool = False,
    on_round: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Latency of networks on a device at batch 1, all interleaved in shuffled rounds.

    Every network runs in every runtime and precision given; without one, in the device's usual
    runtime. A file that bneck export has written is measured as it is, in the runtime of its format.
    A finished run's folder is measured by its exported file in ONNX Runtime (a detector's or segmenter's
    in any runtime and precision that it was exported for), everything else by a file of its spec with
    random weights. docs/devices.md has the devices; `profile` asks one for the
    times of single operators, too.

    Raises:
        InputError: no such network, device or runtime, or a machine too busy to measure on.
    """
    from bneck.devices.measure import measure as measure_candidates
    from bneck.devices.places import usual_runtime
    from bneck.devices.protocol import Protocol

    if not names:
        raise InputError(
            "there is nothing to measure; name a network, as in: bneck measure v3-small"
        )
    if threads < 1 or rounds < 3:
        raise InputError(f"threads is {threads} and rounds {rounds}; they must be at least 1 and 3")
    runtimes = [runtime] if isinstance(runtime, str) else list(runtime or [usual_runtime(device)])
    precisions = [precision] if isinstance(precision, str) else list(precision)
    candidates = [
        candidate
        for engine, kind in product(runtimes, precisions)
        for name in names
        for candidate in _candidates(name, engine, kind)
    ]
    # A file runs once, however many runtimes and precisions there are for the others.
    candidates = list(dict.fromkeys(candidates))
    protocol = Protocol(threads=threads, rounds=rounds)
    return measure_candidates(
        candidates, place=device, protocol=protocol, profile=profile, on_round=on_round
    )


def _candidates(name: Network, engine: str, precision: str) -> list[Candidate]:
    from bneck.devices.measure import Candidate
    from bneck.devices.runtimes import file_runtimes

    if isinstance(name, NetSpec):
        return [Candidate(name, None, engine, precision)]
    path = Path(name)
    if path.is_file() and (fitting := file_runtimes(path)):
        chosen = engine if engine in fitting else fitting[0]
        return [candidate_of_file(path, chosen)]
    folder = RunFolder(task_run(path))
    if folder.kind() in ("detect", "segment"):
        candidate = candidate_of_file(_exported(folder, engine, precision), engine)
        return [replace(candidate, spec=rename(candidate.spec, load(folder.spec).name))]
    model = folder.model
    if model.is_file() and (engine, precision) == ("onnxruntime", "fp32"):
        return [Candidate(resolve(name), model.read_bytes(), engine, precision)]
    return [Candidate(resolve(name), None, engine, precision)]


def _exported(folder: RunFolder, engine: str, precision: str) -> Path:
    """The file of a detector's or segmenter's run for a runtime and precision."""
    from bneck.devices.runtimes import runtime
    from bneck.recipes.shipping import ending

    file = folder.path / f"model{ending(precision)}{runtime(engine).suffix}"
    if not file.is_file():
        raise InputError(
            f"there is no {file} to measure; write it with bneck export, or measure the network with "
            f"random weights by --task {folder.kind()}"
        )
    return file


def candidate_of_file(path: Path, engine_name: str) -> Candidate:
    """An exported file as it is measured: its spec, precision and image as its metadata say.

    Raises:
        InputError: the runtime cannot load it, or it is none of bneck's.
    """
    from bneck.devices.measure import Candidate
    from bneck.devices.runtimes import runtime

    engine = runtime(engine_name)
    model = engine.read(path)
    metadata = engine.load(model, threads=1).metadata
    if "spec" not in metadata:
        raise InputError(f"{path} was not exported by bneck: its metadata lacks the spec")
    pixels = None
    if metadata.get("task") == "segment":
        if "size" not in metadata:
            raise InputError(
                f"{path} does not say its image's size; export it again with bneck export"
            )
        height, width = json.loads(metadata["size"])
        pixels = (height, width)
    elif "resolution" in metadata:
        pixels = (int(metadata["resolution"]), int(metadata["resolution"]))
    return Candidate(
        rename(from_text(metadata["spec"]), path.name),
        model,
        engine_name,
        metadata.get("precision", "fp32"),
        pixels=pixels,
    )
