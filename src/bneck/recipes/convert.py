"""Converting annotations into what training reads."""

from __future__ import annotations

from pathlib import Path

from bneck.data import voc
from bneck.data.coco import Dropped


def convert_voc(
    data: str | Path, out: str | Path | None = None
) -> tuple[dict[str, Path], tuple[Dropped, ...]]:
    """Write COCO json files for a folder of VOC xml files; see `bneck.data.voc.convert_voc`.

    Args:
        data: the folder with Annotations, JPEGImages and, where there are splits, ImageSets/Main.
        out: where the files go; None: `data`/annotations, where training finds them.

    Returns:
        The files by split; the boxes without an area that were left out, and in one entry how many
        images are not there.

    Raises:
        InputError: no xml files, one that is none, or a split of which no image is there.
    """
    root = Path(data)
    return voc.convert_voc(root, root / "annotations" if out is None else Path(out))
