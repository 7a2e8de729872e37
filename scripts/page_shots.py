"""Take pictures of pages in a browser: on a desktop in light and in dark, and as wide as a phone.

    python -m mkdocs build --strict --site-dir SITE
    python scripts/page_shots.py SITE OUT                 every page below SITE
    python scripts/page_shots.py RUN OUT report.html      one page of a folder

Writes OUT/desktop-1.png, dark-1.png, phone-1.png and so on, with the first 2,400 pixels of a few pages next to
each other, and prints which pages they are. Needs Chromium. The pictures are for a person to look at;
tests/test_docs.py measures whether a page is wider than its window.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The width of a window, how many pages are in a picture, and whether the reader wants it dark.
FORMS = {"desktop": (1280, 2, False), "dark": (1280, 2, True), "phone": (390, 5, False)}
HEIGHT = 2400


def main() -> None:
    """Take the pictures, one browser for each."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import look, serving

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("pages", nargs="*", help="paths below the folder; default all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pages = options.pages or sorted(
        str(page.relative_to(options.folder)) for page in options.folder.rglob("*.html")
    )
    sheet = options.folder / "sheet.html"
    try:
        with serving(options.folder) as address:
            for form, (width, many, dark) in FORMS.items():
                for first in range(0, len(pages), many):
                    some = pages[first : first + many]
                    frames = [
                        f'<iframe src="{page}" width="{width}" height="{HEIGHT}" style="border:0"></iframe>'
                        for page in some
                    ]
                    sheet.write_text(
                        f'<meta charset="utf-8"><body style="margin:0;display:flex">{"".join(frames)}'
                    )
                    picture = (options.out / f"{form}-{first // many + 1}.png").resolve()
                    size = (width * len(some), HEIGHT)
                    look(f"{address}/sheet.html", dark=dark, size=size, picture=picture)
                    print(f"{picture.name}: {', '.join(some)}", flush=True)
    finally:
        sheet.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
