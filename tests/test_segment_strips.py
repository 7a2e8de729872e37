"""Huge images in strips: the whole image's scores, whatever the strips' height, and little memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bneck.runs.answers import ModuleAnswers
from bneck.specs.zoo import network
from bneck.tasks.segment import scoring
from bneck.tasks.segment.head import segmenter
from bneck.tasks.segment.module import build_segmenter
from bneck.tasks.segment.scenes import as_batch
from bneck.tasks.segment.scoring import predict, predict_huge
from bneck.tasks.segment.strips import Source, scores_in_strips
from bneck.tasks.segment.task import Segment
from test_segment_export import images, trained
from test_segmenter import LITTLE


def in_strips(net: object, x: torch.Tensor, numbers: int) -> torch.Tensor:
    source = Source(lambda top, bottom: x[:, :, top:bottom], x.shape[2], x.shape[3])
    return scores_in_strips(net, source, strip_numbers=numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "v3-small-0.35+rf2+os16", "v3-large-0.35+rf2+os8", "v2-0.35+rf2+os16", "v1-0.25",
        "v3-edgetpu-0.35", "mnasnet-a1-0.35+os16", "v3-small-0.35+rf2+os32",
        "v4-conv-small-0.35+os16", "v4-conv-medium-0.25",
    ],
)  # fmt: skip
@pytest.mark.parametrize("head", ["lraspp", "raspp"])
def test_every_family_gives_the_whole_image_s_scores(name: str, head: str) -> None:
    """Squeezing, fused, dilated and plain rows; strips of a single line at the wide maps."""
    net = trained(segmenter(network(name), classes=3, filters=8, head=head))  # type: ignore[arg-type]
    x = images(1, 3, 141, 107)
    with torch.inference_mode():
        wanted = net.head(*net.features(x))
    for numbers in (1, 40_000):
        torch.testing.assert_close(in_strips(net, x, numbers), wanted, rtol=1e-3, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 80), st.integers(1, 80), st.integers(1, 30_000), st.sampled_from(["symmetric", "same"])
)  # fmt: skip
def test_any_size_strip_and_padding(height: int, width: int, numbers: int, padding: str) -> None:
    from dataclasses import replace

    spec = replace(LITTLE, padding=padding)  # type: ignore[arg-type]
    net = build_segmenter(segmenter(spec, classes=3, filters=8)).eval()
    x = images(1, 3, height, width)
    with torch.inference_mode():
        wanted = net.head(*net.features(x))
    torch.testing.assert_close(in_strips(net, x, numbers), wanted, rtol=1e-4, atol=1e-5)


def test_classes_of_a_picture_are_those_of_the_whole() -> None:
    net = trained(segmenter(LITTLE, classes=4, filters=8))
    picture = np.random.default_rng(0).integers(0, 256, (121, 90, 3), dtype=np.uint8)
    whole = predict(net, as_batch(picture), (121, 90))
    found = predict_huge(net, picture, strip_numbers=5_000)
    assert (found == whole).mean() > 0.999  # scores may be equal to rounding


@pytest.mark.slow
def test_a_picture_of_4096_x_8192_stays_under_2_gb() -> None:
    """In a process of its own, by its largest resident memory."""
    import subprocess
    import sys

    program = (
        "import resource, numpy as np, torch\n"
        "torch.set_num_threads(1)\n"
        "from bneck.tasks.segment.module import build_segmenter\n"
        "from bneck.tasks.segment.head import segmenter\n"
        "from bneck.specs.zoo import network\n"
        "from bneck.tasks.segment.scoring import predict_huge\n"
        "net = build_segmenter(segmenter(network('v3-large+rf2+os16')))\n"
        "found = predict_huge(net, np.zeros((4096, 8192, 3), np.uint8))\n"
        "assert found.shape == (4096, 8192)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2e9


def test_large_pictures_are_painted_in_strips(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Above the limit of pixels, at their own size; below it, and where a size is set, whole."""
    net = trained(segmenter(LITTLE, classes=3, filters=8))
    labels = {
        "names": ["a", "b", "c"],
        "colours": [[9, 0, 0], [0, 9, 0], [0, 0, 9]],
        "ids": [0, 1, 2],
    }
    called: list[str] = []
    monkeypatch.setattr(scoring, "WHOLE_PIXELS", 40 * 50)
    for name in ("predict", "predict_huge"):
        own = getattr(scoring, name)

        def spy(*args: object, name: str = name, own: Any = own, **more: object) -> object:
            called.append(name)
            return own(*args, **more)

        monkeypatch.setattr(scoring, name, spy)
    answers = ModuleAnswers(Segment(), net, ("a", "b", "c"))
    for size, trained_at in (((50, 40), None), ((51, 40), None), ((51, 40), [20, 20])):
        Image.new("RGB", size).save(tmp_path / "picture.png")
        record = {"data": {"labels": labels}, "options": {"task": {"size": trained_at}}}
        found = scoring.seen(answers, tmp_path / "picture.png", record)
        assert found.raw[1].shape == (size[1], size[0])
    assert called == ["predict", "predict_huge", "predict"]
