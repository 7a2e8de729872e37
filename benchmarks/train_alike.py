"""Networks trained alike from scratch, several seeds each: top-1 with its spread.

The paper's comparison in small: V3-Small against V2 at 0.35, which takes as long (Table 3: 67.4 and 60.8 %).
Runs are kept in a folder and gone on with when the benchmark is started again.

    python benchmarks/train_alike.py RUNS [--data imagenette_224_sub.tar] [--resolution 96] [--epochs 30] \
        [--seeds 3] [--networks v3-small,v2-0.35]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import bneck


def trained(network: str, seed: int, place: Path, how: argparse.Namespace) -> dict[str, Any]:
    """The record of one training, begun, gone on with or read."""
    out = place / f"{network}-{seed}"
    if (out / "run.json").is_file():
        record = json.loads((out / "run.json").read_text())
        return record if record["state"] == "finished" else bneck.resume(out)
    return bneck.train(
        network, how.data, out=out, epochs=how.epochs, resolution=how.resolution, seed=seed
    )


def main() -> None:
    """Train in turn, seed by seed, and print a line for each network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path)
    parser.add_argument("--networks", default="v3-small,v2-0.35")
    parser.add_argument("--data")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--seeds", type=int, default=3)
    how = parser.parse_args()
    networks = how.networks.split(",")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in networks}
    for seed in range(how.seeds):
        for network in networks:
            found[network].append(trained(network, seed, how.runs, how))
    for network, records in found.items():
        top1 = [100 * record["scores"]["val"]["score"] for record in records]
        spread = stdev(top1) if len(top1) > 1 else 0.0
        seconds = mean(record["speed"]["train_seconds"] for record in records)
        params, madds = records[0]["params"] / 1e6, records[0]["madds"] / 1e6
        print(
            f"{network}: {params:.2f}M parameters, {madds:.1f}M multiply-adds; "
            f"top-1 {mean(top1):.1f} +- {spread:.1f} % ({', '.join(f'{value:.1f}' for value in top1)}); "
            f"{seconds:.0f} s each"
        )


if __name__ == "__main__":
    main()
