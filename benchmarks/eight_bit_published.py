"""Published int8 weights, imported to float and quantized again: what each runtime's file loses to float.

python benchmarks/eight_bit_published.py WEIGHTS SAMPLE [EVERY]

WEIGHTS is a folder of the authors' TFLite files. SAMPLE is a folder of images with a labels.csv (columns path
and index). Every fourth image (or every EVERY-th) is for calibration, all others are for scoring. Each
network is imported, exported in int8 for each runtime with `--data` of the former, and scored on the latter in
that runtime: top-1 in percent, in brackets the points against float, the imported network itself.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from pathlib import Path

import bneck
from bneck.devices.runtimes import FORMATS

FORMS = ("onnx", "tflite", "openvino")


def main() -> None:
    """Print a row per network and runtime."""
    weights, sample = Path(sys.argv[1]), Path(sys.argv[2])
    every = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    with tempfile.TemporaryDirectory() as scratch:
        fit, judged = divided(sample, every, Path(scratch))
        print("| weights | float | " + " | ".join(f"{FORMATS[form]}" for form in FORMS) + " |")
        print("|---|--:|" + "--:|" * len(FORMS))
        for file in sorted(weights.glob("*.tflite")):
            run = Path(scratch) / file.stem
            bneck.import_weights(file, out=run)
            base = score(run, sample, judged)
            cells = []
            for form in FORMS:
                made = bneck.export(run, form, precision="int8", data=fit)
                found = score(Path(made["file"]), sample, judged)
                cells.append(f"{100 * found:.1f} ({100 * (found - base):+.1f})")
            print(f"| {file.stem} | {100 * base:.1f} | {' | '.join(cells)} |", flush=True)


def divided(sample: Path, every: int, scratch: Path) -> tuple[Path, Path]:
    """A folder of images to calibrate with, and a labels.csv of the others."""
    with (sample / "labels.csv").open(encoding="utf-8") as table:
        rows = [(row["path"], int(row["index"])) for row in csv.DictReader(table)]
    fit, judged = scratch / "fit", scratch / "judged.csv"
    fit.mkdir()
    for number, (path, _) in enumerate(rows[::every]):
        shutil.copy(sample / path, fit / f"{number:05}{Path(path).suffix}")
    with judged.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("path", "index"))
        writer.writerows(row for number, row in enumerate(rows) if number % every)
    return fit, judged


def score(network: Path, sample: Path, judged: Path) -> float:
    """Top-1 on the images of a list."""
    return float(bneck.evaluate(network, sample, labels=str(judged))["score"])


if __name__ == "__main__":
    main()
