"""Print Flesch's reading ease of pages: 60 to 70 is plain English, below 50 is difficult.

    python scripts/reading_ease.py [PAGE ...]       default: README.md and the pages of "Start here"

Counts prose alone: no code, tables, headings, pictures or addresses. A paragraph or list item ends a
sentence. Syllables are groups of vowels, without a silent e at the end, which counts somewhat more of
them than a dictionary does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FIRST = ("README.md", "docs/index.md", "docs/first-search.md", "docs/reading-the-report.md")
LEFT_OUT = re.compile(
    r"^```.*?^```|^\|.*?$|^#.*?$|^<.*?>$|!\[.*?\]\(.*?\)|`[^`]*`", re.DOTALL | re.MULTILINE
)


def reading_ease(markdown: str) -> float:
    """Flesch's reading ease of the prose of a page."""
    prose = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", LEFT_OUT.sub(" ", markdown)).replace("*", "")
    parts = re.split(r"\n\s*\n|\n\s*(?:- |\d+\. )|[.!?](?=\s)", prose)
    sentences = [words for part in parts if (words := re.findall(r"[A-Za-z][A-Za-z'-]*", part))]
    words = [word for sentence in sentences for word in sentence]
    syllables = sum(
        max(1, len(re.findall(r"[aeiouy]+", word.lower().removesuffix("e")))) for word in words
    )
    return 206.835 - 1.015 * len(words) / len(sentences) - 84.6 * syllables / len(words)


if __name__ == "__main__":
    for page in sys.argv[1:] or FIRST:
        text = (ROOT / page).read_text(encoding="utf-8")
        print(f"{page}: {reading_ease(text):.1f}")
