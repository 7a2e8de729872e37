"""Boxes: overlap, coder, matching and suppression, each against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bneck.tasks.detect.boxes import (
    Boxes,
    Found,
    as_boxes,
    corners,
    decode,
    detections,
    encode,
    match,
    overlaps,
    suppress,
)
from bneck.tasks.detect.head import anchors, ssdlite

ANCHORS = np.array(anchors(ssdlite("v3-small+dagger")), np.float32)


def draw_boxes(rng: np.random.Generator, count: int, least: float = 0.0) -> Boxes:
    start = rng.uniform(0, 1 - least, (count, 2))
    return as_boxes(np.concatenate((start, start + least + rng.uniform(0, 0.4, (count, 2))), 1))


def share(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes, by the definition."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    return wide * high / union if union > 0 else 0.0


class TestOverlaps:
    def test_by_hand(self) -> None:
        a = as_boxes([[0, 0, 0.4, 0.4], [0, 0, 0.2, 0.2]])
        b = as_boxes([[0.2, 0.2, 0.6, 0.6], [0.2, 0, 0.4, 0.2], [0.3, 0.3, 0.3, 0.9]])
        # 0.04 of 0.16 + 0.16 - 0.04; 0.04 of 0.16; an empty box; touching at an edge.
        assert overlaps(a, b) == pytest.approx(
            np.array([[0.04 / 0.28, 0.25, 0.0], [0.0, 0.0, 0.0]]), abs=1e-6
        )

    def test_none(self) -> None:
        assert overlaps(as_boxes([]), draw_boxes(np.random.default_rng(0), 3)).shape == (0, 3)
        same = as_boxes([[0.5, 0.5, 0.5, 0.5]])
        assert overlaps(same, same) == 0  # never not-a-number

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 10**6))
    def test_against_the_definition(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        a, b = draw_boxes(rng, 5), draw_boxes(rng, 4)
        wanted = [[share(one, two) for two in b.astype(float)] for one in a.astype(float)]
        assert overlaps(a, b) == pytest.approx(np.array(wanted), abs=1e-5)


class TestCoder:
    def test_by_hand(self) -> None:
        anchor = as_boxes([[0.5, 0.5, 0.2, 0.4]])
        box = as_boxes([[0.5, 0.4, 0.6, 0.8]])  # centre 0.55, 0.6, sides 0.1, 0.4
        wanted = [10 * 0.05 / 0.2, 10 * 0.1 / 0.4, 5 * math.log(0.5), 0.0]
        assert encode(box, anchor)[0] == pytest.approx(np.array(wanted), abs=1e-4)
        assert decode(np.zeros((1, 4), np.float32), anchor) == pytest.approx(corners(anchor))

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 10**6))
    def test_decoding_undoes_encoding(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        boxes = np.clip(draw_boxes(rng, 6, least=0.02), 0, 1)
        places = ANCHORS[rng.integers(0, len(ANCHORS), 6)]
        assert decode(encode(boxes, places), places) == pytest.approx(boxes, abs=1e-4)

    def test_nothing_becomes_infinite(self) -> None:
        wild = np.full((1, 4), 1e6, np.float32)
        assert np.isfinite(decode(wild, ANCHORS[:1])).all()
        empty = as_boxes([[0.3, 0.3, 0.3, 0.3]])
        assert np.isfinite(encode(empty, ANCHORS[:1])).all()


class TestMatch:
    def test_half_of_the_union_or_the_best_anchor(self) -> None:
        places = as_boxes([[0, 0, 0.2, 0.2], [0, 0, 0.2, 0.3], [0.5, 0.5, 0.9, 0.9]])
        boxes = as_boxes([[0, 0, 0.2, 0.2], [0.5, 0.5, 0.6, 0.6]])
        # The first box equals anchor 0 and is 2/3 of anchor 1. The second is 1/16 of anchor 2 and of no
        # other, so it takes that.
        assert match(places, boxes).tolist() == [0, 0, 1]
        assert match(places, boxes[:1]).tolist() == [0, 0, -1]

    def test_of_two_boxes_with_one_best_anchor_the_first_has_it(self) -> None:
        places = as_boxes([[0, 0, 1, 1], [0, 0, 0.01, 0.01]])
        boxes = as_boxes([[0.4, 0.4, 0.5, 0.5], [0.4, 0.4, 0.9, 0.9]])
        assert match(places, boxes).tolist() == [0, -1]

    def test_no_boxes_and_boxes_that_touch_nothing(self) -> None:
        places = as_boxes([[0, 0, 0.1, 0.1]])
        assert match(places, as_boxes([])).tolist() == [-1]
        assert match(
            places, as_boxes([[0.5, 0.5, 0.6, 0.6], [0.05, 0.05, 0.05, 0.05]])
        ).tolist() == [-1]

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, 12))
    def test_against_plain_loops(self, seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        boxes, places = draw_boxes(rng, count, least=0.01), corners(ANCHORS)[::17]
        shares = overlaps(places, boxes)
        wanted = []
        for row in shares:
            best = int(row.argmax())
            wanted.append(best if row[best] >= 0.5 else -1)
        taken = set()
        for box in range(count):
            anchor = int(shares[:, box].argmax())
            if shares[anchor, box] > 0 and anchor not in taken:
                taken.add(anchor)
                wanted[anchor] = box
        assert match(places, boxes).tolist() == wanted


def greedy(boxes: Boxes, scores: np.ndarray, iou: float) -> list[int]:
    """Indices that survive, best first, one at a time."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(share(boxes[i].astype(float), boxes[k].astype(float)) <= iou for k in kept):
            kept.append(int(i))
    return kept


class TestSuppression:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10**6), st.floats(0.05, 0.95))
    def test_equals_the_greedy_loop(self, seed: int, iou: float) -> None:
        boxes = draw_boxes(np.random.default_rng(seed), 40, least=0.05)
        order = np.arange(40.0)[::-1].copy()
        found = suppress(boxes, np.ones(40, np.int64), iou=iou)
        assert np.flatnonzero(found).tolist() == sorted(greedy(boxes, order, iou))

    def test_a_dropped_box_drops_nothing(self) -> None:
        boxes = as_boxes([[0, 0, 1, 0.2], [0, 0.07, 1, 0.27], [0, 0.14, 1, 0.34]])
        # Neighbours overlap by 0.13 / 0.27, the outer two by 0.06 / 0.34.
        one = np.ones(3, np.int64)
        assert suppress(boxes, one, iou=0.4).tolist() == [True, False, True]
        assert suppress(boxes, np.array([1, 2, 1]), iou=0.4).tolist() == [True, True, True]

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10**6), st.sampled_from([0.0, 2.0, -3.0]), st.sampled_from([5, 100]))
    def test_detections_equal_class_by_class(self, seed: int, bias: float, most: int) -> None:
        rng = np.random.default_rng(seed)
        places = ANCHORS[rng.permutation(len(ANCHORS))[:150]]
        offsets = rng.standard_normal((150, 4)).astype(np.float32)
        logits = (rng.standard_normal((150, 4)) * 3 + bias).astype(np.float32)
        boxes = decode(offsets, places)
        every = [
            (float(logits[i, c]), c, tuple(boxes[i]))
            for c in (1, 2, 3)
            for i in greedy(boxes, logits[:, c], 0.6)
        ]
        every.sort(key=lambda entry: -entry[0])
        found = detections(offsets, logits, places, most=most)
        assert found.labels.tolist() == [c for _, c, _ in every[:most]]
        assert [tuple(box) for box in found.boxes] == [box for _, _, box in every[:most]]
        wanted = [1 / (1 + math.exp(-logit)) for logit, _, _ in every[:most]]
        assert found.scores == pytest.approx(np.array(wanted), abs=1e-6)

    def test_the_least_score_is_a_bound(self) -> None:
        offsets, logits = np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32)
        logits[:, 1] = (2.0, -2.0)  # 0.88 and 0.12
        places = ANCHORS[[0, 700]]
        assert len(detections(offsets, logits, places).scores) == 2
        assert len(detections(offsets, logits, places, least_score=0.5).scores) == 1
        assert len(detections(offsets, logits, places, least_score=0.9).scores) == 0

    def test_the_background_is_never_found(self) -> None:
        logits = np.full((4, 3), -40.0, np.float32)
        logits[:, 0] = 40
        found = detections(np.zeros((4, 4), np.float32), logits, ANCHORS[:4])
        assert len(found.scores) == 0

    def test_above(self) -> None:
        found = Found(as_boxes(np.eye(4)[:2]), np.array([0.9, 0.2], np.float32), np.array([1, 2]))
        assert found.above(0.5).labels.tolist() == [1]
