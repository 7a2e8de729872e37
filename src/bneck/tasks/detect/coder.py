"""Numbers of the authors' box coder and suppression."""

from __future__ import annotations

import math

CODER = (10.0, 10.0, 5.0, 5.0)  # the authors' box coder multiplies offsets by these
LARGEST_LOG = math.log(1000)  # of a box's side over its anchor's; keeps exp finite
# The authors' suppression: candidates' score, overlap that drops a box, boxes that are kept.
LEAST_SCORE, NMS_IOU, MOST_BOXES = 1e-8, 0.6, 100
