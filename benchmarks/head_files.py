"""Files of a detection or segmentation run in every precision, judged in their own runtimes.

python benchmarks/head_files.py RUN [FORMAT ...]

Writes float, half and 8-bit files into a folder that is gone afterwards and evaluates each on the
run's val and test images. `bneck.export` compares every file with the module; what it says is printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import bneck
from bneck.graphs.forms import PRECISIONS


def main() -> None:
    """Print a line a file, the module's own scores first."""
    run, formats = Path(sys.argv[1]), sys.argv[2:] or ["tflite", "onnx"]
    print(f"the module: {scores(run)}")
    with tempfile.TemporaryDirectory() as folder:
        for format in formats:
            for precision in PRECISIONS:
                file = Path(folder) / f"{precision}.{format}"
                made = bneck.export(run, format, precision=precision, out=file)
                print(f"{format} {precision}: {scores(file)}; {made}", flush=True)


def scores(network: Path) -> str:
    """In percent, on val and test."""
    found = [(split, bneck.evaluate(network, split=split)) for split in ("val", "test")]
    return ", ".join(f"{split} {100 * one['score']:.1f}" for split, one in found)


if __name__ == "__main__":
    main()
