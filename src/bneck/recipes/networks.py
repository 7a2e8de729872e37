"""Count, build and measure networks by name: the Python twins of the small commands."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from bneck.costs.count import Count
from bneck.costs.count import count as count_spec
from bneck.costs.published import PUBLISHED, Published, published
from bneck.records.imported import normalisation
from bneck.records.measurement import Measurement
from bneck.records.run import RunFolder
from bneck.specs.errors import InputError
from bneck.specs.network import NetSpec
from bneck.specs.text import resolve
from bneck.specs.zoo import NETWORKS, family

if TYPE_CHECKING:
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
    *names: Network, threads: int = 1, rounds: int = 20, runtime: str = "onnxruntime"
) -> list[Measurement]:
    """Latency of networks on this machine at batch 1, interleaved in shuffled rounds.

    A finished run's folder is measured by its exported file, everything else by a graph of its spec
    with random weights.

    Raises:
        InputError: no such network or runtime, or a machine too busy to measure on.
    """
    from bneck.devices.measure import Candidate
    from bneck.devices.measure import measure as measure_candidates
    from bneck.devices.protocol import Protocol

    if not names:
        raise InputError(
            "there is nothing to measure; name a network, as in: bneck measure v3-small"
        )
    if threads < 1 or rounds < 3:
        raise InputError(f"threads is {threads} and rounds {rounds}; they must be at least 1 and 3")
    candidates = []
    for name in names:
        model = None if isinstance(name, NetSpec) else RunFolder(Path(name)).model
        candidates.append(
            Candidate(resolve(name), model.read_bytes() if model and model.is_file() else None)
        )
    protocol = Protocol(threads=threads, rounds=rounds)
    return measure_candidates(candidates, runtime_name=runtime, protocol=protocol)
