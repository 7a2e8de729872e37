"""Loss and score of segmentation: against plain sums, and against the Cityscapes scripts."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bneck.tasks.segment.head import segmenter
from bneck.tasks.segment.loss import loss
from bneck.tasks.segment.masks import IGNORED, cityscapes_labels, read_mask
from bneck.tasks.segment.module import build_segmenter
from bneck.tasks.segment.scoring import best, confusion, matrix_score, predict, starts
from test_segmenter import LITTLE


class TestLoss:
    def test_the_mean_is_over_pixels_that_count(self) -> None:
        """Three of four pixels; by hand ln 2 for equal scores of two classes, ln(1 + e^-2) else."""
        scores = torch.tensor([[[[0.0, 2.0], [0.0, 5.0]], [[0.0, 0.0], [0.0, 9.0]]]])
        masks = torch.tensor([[[0, 0], [1, IGNORED]]])
        wanted = (2 * math.log(2) + math.log(1 + math.exp(-2))) / 3
        assert float(loss(scores, masks)) == pytest.approx(wanted)

    def test_weights_are_those_of_the_masks_classes(self) -> None:
        scores = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])
        masks = torch.tensor([[[1, 0]]])
        wanted = (3 * math.log(2) + 0.5 * math.log(1 + math.exp(-2))) / 3.5
        assert float(loss(scores, masks, weights=torch.tensor([0.5, 3.0]))) == pytest.approx(wanted)

    @pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.0])])
    def test_where_all_is_ignored_there_is_nothing_to_learn(
        self, weights: torch.Tensor | None
    ) -> None:
        """Neither a NaN nor a gradient; the same for masks of classes whose weight is 0."""
        for value in (IGNORED, 1) if weights is not None else (IGNORED,):
            scores = torch.randn(1, 2, 3, 3, requires_grad=True)
            found = loss(scores, torch.full((1, 3, 3), value), weights=weights)
            found.backward()  # type: ignore[no-untyped-call]
            assert float(found.detach()) == 0
            assert scores.grad is not None
            assert not scores.grad.any()


class TestScore:
    def test_by_hand(self) -> None:
        """Class 0: 2 right of a union of 4; class 1: 1 of 3; class 2 nowhere."""
        own = confusion(
            np.array([[0, 0, 1, 1, 2]], np.uint8), np.array([[0, 0, 0, 1, IGNORED]], np.uint8), 3
        )
        assert own.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
        other = confusion(np.array([[0]], np.uint8), np.array([[1]], np.uint8), 3)
        found = matrix_score(own + other)
        assert found.iou[:2] == (2 / 4, 1 / 3)
        assert math.isnan(found.iou[2])
        assert found.miou == pytest.approx((2 / 4 + 1 / 3) / 2)
        assert found.pixels == 3 / 5

    def test_one_matrix_for_all_images_is_no_mean_of_images(self) -> None:
        counted = confusion(np.zeros((1, 99), np.uint8), np.zeros((1, 99), np.uint8), 2)
        counted += confusion(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8), 2)
        assert matrix_score(counted).miou == pytest.approx((99 / 100 + 0) / 2)

    def test_of_nothing_there_is_no_score(self) -> None:
        counted = confusion(np.zeros((2, 2), np.uint8), np.full((2, 2), IGNORED, np.uint8), 2)
        assert math.isnan(matrix_score(counted).miou)

    @given(st.integers(0, 2**32 - 1), st.integers(1, 19))
    def test_rows_and_columns_are_the_masks_and_ours(self, seed: int, classes: int) -> None:
        rng = np.random.default_rng(seed)
        ours, masks = (rng.integers(0, classes, (5, 7), dtype=np.uint8) for _ in range(2))
        counted = confusion(ours, masks, classes)
        for values, sums in ((masks, counted.sum(1)), (ours, counted.sum(0))):
            assert sums.tolist() == np.bincount(values.ravel(), minlength=classes).tolist()
        # The mean of intersections over unions, by sets of pixels.
        shares = [
            ((ours == c) & (masks == c)).sum() / union
            for c in range(classes)
            if (union := ((ours == c) | (masks == c)).sum())
        ]
        assert matrix_score(counted).miou == pytest.approx(np.mean(shares))


def test_scores_are_those_of_the_cityscapes_scripts(tmp_path: Path) -> None:
    """The same predictions, as files of label ids, judged by the package cityscapesscripts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripts = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    args = scripts.args
    args.evalInstLevelScore, args.quiet, args.evalLabels = False, True, []
    theirs = scripts.generateMatrix(args)
    known, ours = cityscapes_labels(), np.zeros((19, 19), np.int64)
    rng = np.random.default_rng(0)
    for i in range(4):
        truth = rng.integers(0, 34, (40, 50), dtype=np.uint8)
        truth[truth == 31] = 0  # no trains in the masks
        numbers = rng.integers(0, 19, (40, 50), dtype=np.uint8)
        right = rng.random((40, 50)) < 0.6
        wanted = np.array([known.stored[int(v)] for v in truth.ravel()], np.uint8).reshape(40, 50)
        numbers = np.where(right & (wanted != IGNORED), wanted, numbers)
        numbers[numbers == 16] = 0 if i else 16  # predicted once all the same
        paths = [tmp_path / f"{i}_{what}.png" for what in ("pred", "gt")]
        for path, values in zip(paths, (known.ids()[numbers], truth), strict=True):
            Image.fromarray(values).save(path)
        scripts.evaluatePair(str(paths[0]), str(paths[1]), theirs, {}, {}, args)
        ours += confusion(numbers, read_mask(paths[1], known), 19)
    found = matrix_score(ours)
    values = {
        name: scripts.getIouScoreForLabel(known.ids()[number], theirs, args)
        for number, name in enumerate(known.names)
    }
    assert found.iou == pytest.approx(tuple(values.values()), nan_ok=True)
    assert found.miou == pytest.approx(scripts.getScoreAverage(values, args))
    assert 0.3 < found.miou < 0.7


class TestPredict:
    @pytest.mark.parametrize("size", [(5, 6), (40, 33), (17, 90), (1, 1), (300, 7)])
    def test_the_best_class_is_that_of_scores_resized(self, size: tuple[int, int]) -> None:
        """In bands of rows as at once; only where two classes are equal to rounding may they differ."""
        scores = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(1))
        whole = F.interpolate(scores, size, mode="bilinear", align_corners=True)[0]
        found = best(scores, size, band=16)
        top = whole.sort(0, descending=True).values
        assert found.shape == size
        sure = (top[0] - top[1] > 1e-4).numpy()
        assert sure.mean() > 0.99 or sure.size < 100
        assert (found == whole.argmax(0).numpy())[sure].all()

    def test_a_window_as_large_as_the_image_sees_the_whole(self) -> None:
        net = build_segmenter(segmenter(LITTLE, classes=3)).eval()
        image = torch.randn(1, 3, 50, 61, generator=torch.Generator().manual_seed(2))
        whole = predict(net, image, (50, 61))
        assert whole.shape == (50, 61)
        same = predict(net, image, (50, 61), sliding=(64, 64)) == whole
        assert same.mean() > 0.999  # scores may be equal to rounding
        other = predict(net, image, (25, 31), sliding=(20, 20))
        assert other.shape == (25, 31)

    @given(st.integers(1, 400), st.integers(1, 200))
    def test_windows_cover_all_and_overlap_by_a_third(self, length: int, window: int) -> None:
        found = starts(length, window)
        reach = min(window, length)
        assert found[0] == 0
        assert found[-1] + reach == length
        steps = np.diff(found)
        assert (steps <= max(1, window * 2 // 3) + 1).all()
        assert (steps >= 0).all()
