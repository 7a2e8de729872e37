"""What the found network gets wrong, next to the seed network: for the report of a search."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from bneck.runs.answers import ModuleAnswers
from bneck.runs.search.experiment import Experiment
from bneck.runs.search.run import Run
from bneck.runs.search.ship import Result
from bneck.specs.text import from_text
from bneck.tasks.contract import Classified

PAIRS, PICTURES = 10, 8
SIDE = 96  # pixels of a picture at most


def compare_mistakes(run: Run, result: Result) -> None:
    """Keep which classes are confused, and the worst images, of the found network and the seed network.

    Nothing is kept for a task whose images have no one class, or where no seed network was trained.
    """
    kept = [run.folder.scratch / f"{name}.safetensors" for name in ("seed-longer", "seed-0")]
    weights = next((path for path in kept if path.is_file()), None)
    if weights is None:
        return
    seed = from_text(run.record["seed_network"]["spec"])
    ours = _classified(run, result.experiment, result.found, result.weights)
    theirs = _classified(run, run.experiment, seed, weights)
    if ours is None or theirs is None or not np.array_equal(ours.index, theirs.index):
        return
    classes = run.record["classes"]
    found, before = _confused(ours), _confused(theirs)
    pairs = sorted({*found, *before}, key=lambda pair: (-found[pair], -before[pair], pair))
    wrong = [one.guess != one.truth for one in (ours, theirs)]
    worst = np.argsort(ours.probability, kind="stable")
    run.record["mistakes"] = {
        "images": len(ours.index),
        "found": int(wrong[0].sum()), "seed": int(wrong[1].sum()), "both": int((wrong[0] & wrong[1]).sum()),
        "confused": [
            {"true": classes[a], "predicted": classes[b], "found": found[a, b], "seed": before[a, b]}
            for a, b in pairs[:PAIRS]
        ],
        "worst": [
            {
                "true": classes[ours.truth[at]], "picture": _picture(run, result, int(ours.index[at]), number),
                **_said("found", ours, at, classes), **_said("seed", theirs, at, classes),
            }
            for number, at in enumerate(worst[wrong[0][worst]][:PICTURES])
        ],
    }  # fmt: skip
    run.save()


def _classified(run: Run, experiment: Experiment, spec: Any, weights: Any) -> Classified | None:
    answers = ModuleAnswers(experiment.task, experiment.load(spec, weights))
    return experiment.data.classified(answers, "val", run.progress)


def _confused(one: Classified) -> Counter[tuple[int, int]]:
    wrong = one.guess != one.truth
    pairs = zip(one.truth[wrong].tolist(), one.guess[wrong].tolist(), strict=True)
    return Counter(pairs)


def _said(role: str, one: Classified, at: Any, classes: list[str]) -> dict[str, Any]:
    """What a network says of an image, and the probability that it gives the true class."""
    return {role: classes[one.guess[at]], f"{role}_probability": float(one.probability[at])}


def _picture(run: Run, result: Result, index: int, number: int) -> str:
    folder = run.folder.path / "mistakes"
    folder.mkdir(exist_ok=True)
    pixels = result.experiment.data.picture("val", index, result.found.resolution)
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.thumbnail((SIDE, SIDE))
    image.save(folder / f"{number}.jpg", quality=85)
    return f"mistakes/{number}.jpg"
