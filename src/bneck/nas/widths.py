"""NetAdapt's width space (section 4.2) as a space of choices: every width that NetAdapt may narrow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bneck.nas.netadapt import LEAST, PAPER, Kind, narrowest, places
from bneck.nas.space import Choice, NotInSpace, Space, SpaceError, Tokens
from bneck.specs.network import NetSpec
from bneck.specs.rows import Bneck, Pool
from bneck.specs.transforms import (
    beside,
    fix_skips,
    rename,
    squeezed_like,
    with_expanded,
    with_out,
)


class WidthSpace(Space):
    """All networks that differ from `seed` in the widths which NetAdapt narrows.

    Choices are named after their rows: `rows4-6.bottleneck`, `row4.expansion`, `row16.tail`; their
    options are the seed's width and every multiple of 8 below it down to `least` of it.

    An expansion equal to the row's input would lose the expand convolution; the next width takes
    its place (`specs.transforms.beside`).

    Args:
        seed: the widest network.
        kinds: which widths; section 4.2's two unless told otherwise.
        least: share of the seed's widths.
        widths: explicit options for some choices, by name.

    Raises:
        SpaceError: an unknown name, an empty list, or a width above the seed's or below 1.
    """

    def __init__(
        self,
        seed: NetSpec,
        *,
        kinds: Collection[Kind] = PAPER,
        least: float = LEAST,
        widths: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.name, self.seed = f"{seed.name}-widths", fix_skips(seed)
        floors, given = narrowest(seed, least, kinds), dict(widths or {})
        choices, self._places = [], []
        # Outputs first: what an expansion may be depends on the width that enters its row.
        for kind, rows in sorted(
            places(self.seed, kinds), key=lambda place: place[0] == "expansion"
        ):
            name = f"row{rows[0]}" if len(rows) == 1 else f"rows{rows[0]}-{rows[-1]}"
            name = f"{name}.{kind}"
            most, floor = (width_at(spec, kind, rows[0]) for spec in (self.seed, floors))
            below = range((most - 1) // 8 * 8, min(floor, most) - 1, -8)
            options = tuple(given.pop(name, (most, *below)))
            for width in options:
                if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= most:
                    raise SpaceError(
                        f"{name} has the width {width!r}; it must be a whole number from 1 to the seed's {most}"
                    )
            choices.append(Choice(name, options))
            self._places.append((kind, rows))
        if given:
            known = ", ".join(choice.name for choice in choices)
            raise SpaceError(f"{seed.name} has no width {next(iter(given))!r}; known are {known}")
        self.choices = tuple(choices)

    def decode(self, tokens: Sequence[int]) -> NetSpec:
        """See `Space.decode`."""
        spec = self.seed
        for token, choice, (kind, rows) in zip(
            self.check(tokens), self.choices, self._places, strict=True
        ):
            width = choice.options[token]
            assert isinstance(width, int)
            if kind == "expansion":
                most = width_at(self.seed, kind, rows[0])
                width = beside(spec.width_into(rows[0]), width, most=most, fused=self._fused(rows))
                spec = with_expanded(spec, rows[0], width)
            else:
                spec = with_out(spec, rows, width)
        spec = squeezed_like(spec, self.seed)
        return rename(spec, f"{self.name}-{spec.digest()[:6]}")

    def encode(self, spec: NetSpec) -> Tokens:
        """See `Space.encode`."""
        fixed = fix_skips(spec)
        if len(fixed.rows) != len(self.seed.rows):
            raise self._not_in(
                spec, f"it has {len(fixed.rows)} rows, the seed {len(self.seed.rows)}"
            )
        tokens = []
        for choice, (kind, rows) in zip(self.choices, self._places, strict=True):
            if type(fixed.rows[rows[0]]) is not type(self.seed.rows[rows[0]]):
                raise self._not_in(spec, f"row {rows[0]} is of another kind")
            found = width_at(fixed, kind, rows[0])
            most, entering = width_at(self.seed, kind, rows[0]), fixed.width_into(rows[0])
            fitting = [
                token
                for token, width in enumerate(choice.options)
                if isinstance(width, int)
                and found
                == (
                    beside(entering, width, most=most, fused=self._fused(rows))
                    if kind == "expansion"
                    else width
                )
            ]
            if not fitting:
                raise self._not_in(spec, f"{choice.name} is {found}")
            tokens.append(fitting[0])
        if self.decode(tokens).digest() != fixed.digest():
            raise self._not_in(spec, "it differs from the seed in more than these widths")
        return tuple(tokens)

    def _fused(self, rows: tuple[int, ...]) -> bool:
        row = self.seed.rows[rows[0]]
        return isinstance(row, Bneck) and row.fused

    def _not_in(self, spec: NetSpec, why: str) -> NotInSpace:
        return NotInSpace(
            f"{spec.name} does not lie in the space {self.name}: {why}; take a narrower version of "
            f"{self.seed.name}"
        )


def width_at(spec: NetSpec, kind: Kind, index: int) -> int:
    """The width that a change of this kind at this row changes."""
    row = spec.rows[index]
    assert not isinstance(row, Pool)
    if kind == "expansion":
        assert isinstance(row, Bneck)
        return row.expanded
    return row.out
