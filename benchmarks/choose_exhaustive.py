"""What `bneck choose` chooses, next to every network that it chooses among taken to its end.

    python benchmarks/choose_exhaustive.py PHOTOS FOLDER --target 5ms --from A --from B --from C \\
        [--resolution 128] [--epochs 5] [--repeats 2] [--seed 0] [--device local] [--runtime onnxruntime]

PHOTOS are images as `bneck train` reads them, A, B and C trained weights; imports in the cache folder take
part too. After the choice every network is taken to its end by itself: one above the target is narrowed to
it by `bneck search`, one within it is trained for as long as a search trains in all, all of them with the same
epochs and seed. FOLDER keeps what is done: the same command goes on after a kill. The table has latency
and the frozen epoch's score, by which `choose` ranks, then the final score and latency, and what was chosen.
The last line says what the choice loses to the best.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import bneck
from bneck.cli.bars import bars
from bneck.cli.options import new_table, print_table
from bneck.records.files import write_json
from bneck.records.run import RunFolder
from bneck.runs.search.main import RECOVERY


def choice(args: argparse.Namespace, settings: dict[str, Any], progress: Any) -> dict[str, Any]:
    """The record of the choice, made or gone on with."""
    folder = args.folder / "choice"
    if RunFolder(folder).run_json.is_file():
        return bneck.resume(folder, progress=progress)
    return bneck.choose(
        args.photos, args.target, start=args.start, out=folder, device=args.device,
        runtime=args.runtime, repeats=args.repeats, progress=progress, **settings,
    )  # fmt: skip


def taken_to_its_end(
    args: argparse.Namespace, settings: dict[str, Any], one: dict[str, Any], limit_ms: float,
    folder: Path, progress: Any,
) -> dict[str, Any]:  # fmt: skip
    """score, latency_ms and how of one network; `refused` says why a search would not have it."""
    searched = one["measured_ms"] > limit_ms
    if RunFolder(folder).run_json.is_file():
        record = bneck.resume(folder, progress=progress)
    elif searched:
        try:
            record = bneck.search(
                args.photos, args.target, start=one["weights"], out=folder, device=args.device,
                runtime=args.runtime, repeats=args.repeats, progress=progress, **settings,
            )  # fmt: skip
        except bneck.InputError as error:
            return {"refused": str(error)}
    else:
        epochs = (1 + RECOVERY) * settings["epochs"]
        record = bneck.train(
            None, args.photos, start=one["weights"], out=folder, progress=progress,
            **{**settings, "epochs": epochs},
        )  # fmt: skip
    if not searched:
        score = record["scores"]["val"]["score"]
        return {"score": score, "latency_ms": one["measured_ms"], "how": "trained as it is"}
    title = record["found"].get("title", "importance")
    return {"score": record["score"], "latency_ms": record["measured_latency_ms"], "how": title}


def rows(record: dict[str, Any], ends: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table's rows, the best in the end first."""
    frozen = {one["weights"]: one["score"] for one in record["scored"]}
    chosen = [one["weights"] for one in record["chosen"]]
    found = []
    for one in sorted(record["scored"], key=lambda one: -ends[one["weights"]].get("score", 0.0)):
        weights = one["weights"]
        end = ends[weights]
        done = ("-", "-", "refused")
        if "score" in end:
            done = (f"{end['score']:.1%}", f"{end['latency_ms']:.3f}", end["how"])
        found.append((
            one["network"], one["origin"], f"{one['measured_ms']:.3f}", f"{frozen[weights]:.1%}", *done,
            "yes" if weights in chosen else "",
        ))  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--from", dest="start", action="append", default=[])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="local")
    parser.add_argument("--runtime")
    args = parser.parse_args()
    settings = {"resolution": args.resolution, "epochs": args.epochs, "seed": args.seed}
    args.folder.mkdir(parents=True, exist_ok=True)
    asked = {**vars(args), "folder": str(args.folder)}
    known = args.folder / "asked.json"
    if known.is_file() and json.loads(known.read_text(encoding="utf-8")) != asked:
        raise SystemExit(f"{args.folder} was begun with other options, see {known}; choose another")
    write_json(known, asked)
    with bars() as progress:
        record = choice(args, settings, progress)
        ends = {}
        for number, one in enumerate(record["scored"]):
            folder = args.folder / f"{number:02d}-{one['network']}"
            ends[one["weights"]] = taken_to_its_end(
                args, settings, one, record["target_ms"], folder, progress
            )
    columns = (
        "network", "weights", "median ms", "frozen epoch", "in the end", "median ms", "how", "chosen",
    )  # fmt: skip
    metric = record["metric"]
    title = f"{metric}, target {record['target_ms']:.3f} ms"
    print_table(new_table(title, columns, rows(record, ends), left=(0, 1, 6, 7)))
    best = max((end["score"] for end in ends.values() if "score" in end), default=0.0)
    print(
        f"bneck choose: {metric} {record['score']:.1%} at {record['measured_latency_ms']:.3f} ms, "
        f"{100 * (record['score'] - best):+.1f} points from the best of all taken to their end"
    )


if __name__ == "__main__":
    main()
