"""Converting annotations into what training reads."""

from __future__ import annotations

from pathlib import Path

from bneck.data import voc
from bneck.tasks.detect.coco import Dropped


def convert_voc(
    data: str | Path, out: str | Path | None = None
) -> tuple[dict[str, Path], tuple[Dropped, ...]]:
    """Write COCO json files for a folder of VOC xml files; see `bneck.tasks.detect.voc.convert_voc`.

    Args:
        data: the folder with Annotations, JPEGImages and, where there are splits, ImageSets/Main.
        out: where the files go; None: `data`/annotations, where training finds them.

    Returns:
        The files by split, and the boxes that were left out because they have no area.

    Raises:
        InputError: no xml files, or one that is none.
    """
    root = Path(data)
    return voc.convert_voc(root, root / "annotations" if out is None else Path(out))
