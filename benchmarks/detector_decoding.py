"""Time of decoding and suppression per image, on one thread: 320 px, 2,034 anchors.

python benchmarks/detector_decoding.py [RUN IMAGE...]

Without a run it takes made-up predictions of 90 classes at several densities; with a finished
detection run, what its file says of the pictures.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bneck.data.images import read_stretched
from bneck.runs.answers import FileAnswers
from bneck.tasks.detect.boxes import detections
from bneck.tasks.detect.head import anchors, ssdlite

REPEATS = 50


def cases() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Names with offsets, logits and anchors."""
    if len(sys.argv) > 2:
        answers = FileAnswers(Path(sys.argv[1]))
        places = np.array(anchors(answers.wrapped), np.float32)
        used = answers.normalisation
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (used.mean, used.std))
        for image in sys.argv[2:]:
            pixels = read_stretched(Path(image), answers.spec.resolution)
            x = (pixels.astype(np.float32) / 255 - mean) / std
            offsets, logits = answers.session.run_all(x[None])
            yield Path(image).name, offsets[0], logits[0], places
        return
    places = np.array(anchors(ssdlite("v3-small+dagger")), np.float32)
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 0.5, (len(places), 4)).astype(np.float32)
    # Scores of a trained net: nearly all far below 0.01, some anchors near objects high.
    for objects in (1, 10, 50):
        logits = rng.normal(-7, 1, (len(places), 91)).astype(np.float32)
        for centre in rng.integers(0, len(places), objects):
            near = np.abs(places[:, :2] - places[centre, :2]).max(1) < 0.06
            logits[near, rng.integers(1, 91)] += rng.uniform(4, 10, near.sum())
        yield f"{objects} objects of 90 classes", offsets, logits.astype(np.float32), places


def main() -> None:
    """Print medians; 1e-8 is the authors' least score (for COCO's numbers), 0.05 one to show boxes at."""
    for name, offsets, logits, places in cases():
        for least in (1e-8, 0.05):
            taken = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                found = detections(offsets, logits, places, least_score=least)
                taken.append((time.perf_counter() - start) * 1e3)
            print(
                f"{name}, score from {least:g}: median {statistics.median(taken):.2f} ms, least "
                f"{min(taken):.2f} ms, {len(found.scores)} boxes"
            )


if __name__ == "__main__":
    main()
