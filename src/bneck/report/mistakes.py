"""The report's section on what the found network gets wrong, next to the seed network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bneck.records.run import SearchRecord
from bneck.report.blocks import Block, Gallery, Heading, Paragraph, Shown
from bneck.report.numbers import percent
from bneck.report.tables import Table, columns


def mistakes(record: SearchRecord, pictures: Mapping[str, bytes]) -> Iterator[Block]:
    """Confused classes and the worst images; nothing where the record has none.

    `pictures` are JPEG files by the names that the record has for them.
    """
    known = record.get("mistakes")
    if not known:
        return
    yield Heading("What it gets wrong")
    yield Paragraph(
        f"Of {known['images']:,} validation images the found network gets {known['found']:,} wrong and the "
        f"seed network {known['seed']:,}; {known['both']:,} are wrong in both. Networks are compared in float."
    )
    if known["confused"]:
        yield Table(
            title="Classes that are confused most: images of the first class taken for the second.",
            columns=columns("true class", "taken for", "found (images)", "seed (images)", text=(0, 1)),
            rows=tuple(
                (one["true"], one["predicted"], str(one["found"]), str(one["seed"]))
                for one in known["confused"]
            ),
        )  # fmt: skip
    shown = tuple(
        Shown(
            one["picture"], pictures[one["picture"]], one["true"],
            tuple(
                f"{role}: {one[role]} ({percent(one[f'{role}_probability'])} % for the true class)"
                for role in ("found", "seed")
            ),
        )
        for one in known["worst"]
        if one["picture"] in pictures
    )  # fmt: skip
    if shown:
        yield Paragraph(
            "The images that the found network gets most clearly wrong, and what the seed network says."
        )
        yield Gallery(shown)
