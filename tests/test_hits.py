"""What is drawn of detectors and segmenters, and which boxes count as hits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bneck.tasks.detect.boxes import Found, as_boxes
from bneck.tasks.detect.drawing import MISSED, Mark, sheet, with_boxes
from bneck.tasks.detect.hits import best_threshold, judge
from bneck.tasks.segment.drawing import overlay


class TestHits:
    BOXES = as_boxes([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0, 0.5, 0.3, 1]])
    LABELS = np.array([1, 2, 1])

    def found(self, boxes: list[list[float]], labels: list[int]) -> Found:
        scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
        return Found(as_boxes(boxes), scores, np.array(labels))

    def test_by_hand(self) -> None:
        crowd = np.array([False, False, True])
        seen = self.found(
            [[0, 0, 0.4, 0.4], [0, 0, 0.4, 0.38], [0.5, 0.5, 0.9, 0.9], [0.1, 0.6, 0.2, 0.7]],
            [1, 1, 1, 1],
        )
        # The second finds what is found already; the third is of the wrong class; the fourth is in the crowd.
        verdict = judge(seen, self.BOXES, self.LABELS, crowd)
        assert verdict.hit.tolist() == [True, False, False, False]
        assert verdict.ignored.tolist() == [False, False, False, True]
        assert verdict.missed.tolist() == [False, True, False]

    def test_the_best_threshold(self) -> None:
        crowd = np.zeros(3, np.bool_)
        seen = self.found(
            [[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.8, 0, 1, 0.2], [0.7, 0, 1, 0.2]],
            [1, 2, 1, 1],
        )
        best = best_threshold([(seen, judge(seen, self.BOXES, self.LABELS, crowd))])
        assert best is not None
        # Two of two shown are right, of three objects: F1 = 2 * 2 / (2 + 3).
        assert (best.precision, best.recall, best.f1) == pytest.approx((1, 2 / 3, 0.8))
        assert best.score == pytest.approx(0.9 - 0.8 / 3, abs=1e-5)

    def test_nothing(self) -> None:
        none = self.found([], [])
        verdict = judge(none, self.BOXES[:0], self.LABELS[:0], np.empty(0, np.bool_))
        assert best_threshold([(none, verdict)]) is None


class TestDrawing:
    def test_a_box_is_where_it_should_be(self) -> None:
        page = with_boxes(
            Image.new("RGB", (101, 101), "white"), [Mark((0.2, 0.3, 0.6, 0.9), "", "#ff0000")]
        )
        red = np.asarray(page)[:, :, 1] == 0
        rows, columns = np.nonzero(red)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 90, 20, 60)

    def test_a_sheet_holds_every_picture(self) -> None:
        tiles = [(Image.new("RGB", (30, 20 + i), "grey"), f"picture {i}") for i in range(5)]
        page = sheet(tiles, [("missed", MISSED)])
        assert page.width == 4 * 370 + 10
        assert page.height > 2 * 240


def test_an_overlay_mixes_colours_and_lists_what_occurs() -> None:
    """45 % of the picture and 55 % of the colour; ignored pixels stay as they are."""
    image = np.full((20, 300, 3), 100, np.uint8)
    classes = np.zeros((20, 300), np.uint8)
    classes[:, 150:] = 1
    classes[0] = 255
    page = np.asarray(
        overlay(image, classes, ["a", "b", "c"], [(200, 0, 0), (0, 0, 255), (1, 1, 1)])
    )
    assert page[5, 5].tolist() == [155, 45, 45]
    assert page[5, 200].tolist() == [45, 45, 185]
    assert page[0, 0].tolist() == [100, 100, 100]
    legend = page[20:].reshape(-1, 3).tolist()
    assert [200, 0, 0] in legend
    assert [0, 0, 255] in legend
    assert [1, 1, 1] not in legend
