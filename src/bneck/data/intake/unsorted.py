"""What lies in a folder without class folders, so that a refusal can say what to do."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from bneck.data.intake.walk import ARCHIVES, is_hidden, is_image
from bneck.specs.errors import few

_NUMBERED = re.compile(r"(?P<word>.*[^\W\d_].*?)[ ._-]*\d+")


def unsorted(*folders: Path) -> str:
    """Loose images or an archive in the folders, as ", but a.zip, which must be unpacked".

    "" for neither.
    """
    files = [p for place in dict.fromkeys(folders) for p in sorted(place.iterdir()) if p.is_file()]
    files = [path for path in files if not is_hidden(path.name)]
    images = [path for path in files if is_image(path.name)]
    if images:
        found = (_NUMBERED.fullmatch(path.stem) for path in images)
        words = Counter(match["word"] for match in found if match)
        named = f" whose names begin with {few(sorted(words))}"
        told = 1 < len(words) <= len(images) // 2 and words.total() == len(images)
        return f", but {len(images)} images{named if told else ''}"
    packed = next((path for path in files if path.name.lower().endswith(ARCHIVES)), None)
    return f", but {packed.name}, which must be unpacked" if packed else ""
