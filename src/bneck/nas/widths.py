"""NetAdapt's width space (section 4.2) as a space of choices: every width that NetAdapt may narrow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bneck.nas.netadapt import PAPER, Kind, allowed, narrowest, places, width_at, with_widths
from bneck.nas.space import Choice, NotInSpace, Space, SpaceError, Tokens
from bneck.specs.network import NetSpec
from bneck.specs.transforms import fix_skips, rename


class WidthSpace(Space):
    """All networks that differ from `seed` in the widths which NetAdapt narrows.

    Choices are named after their rows: `rows4-6.bottleneck`, `row4.expansion`, `row16.tail`; their
    options are the seed's width and every multiple of 8 below it down to a quarter of it.

    An expansion equal to the row's input would lose the expand convolution; the next width takes
    its place (`specs.transforms.beside`).

    Args:
        seed: the widest network.
        kinds: which widths; section 4.2's two unless told otherwise.
        widths: explicit options for some choices, by name.

    Raises:
        SpaceError: an unknown name, an empty list, or a width above the seed's or below 1.
    """

    def __init__(
        self, seed: NetSpec, *, kinds: Collection[Kind] = PAPER,
        widths: Mapping[str, Sequence[int]] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.seed = f"{seed.name}-widths", fix_skips(seed)
        floors, given = narrowest(seed, kinds), dict(widths or {})
        choices: list[Choice] = []
        # Outputs first: what an expansion may be depends on the width that enters its row.
        ordered = sorted(places(self.seed, kinds), key=lambda place: place[0] == "expansion")
        self._most = {place: width_at(self.seed, place) for place in ordered}
        for place, most in self._most.items():
            kind, rows = place
            name = f"row{rows[0]}" if len(rows) == 1 else f"rows{rows[0]}-{rows[-1]}"
            name = f"{name}.{kind}"
            below = range((most - 1) // 8 * 8, min(width_at(floors, place), most) - 1, -8)
            options = tuple(given.pop(name, (most, *below)))
            for width in options:
                if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= most:
                    raise SpaceError(
                        f"{name} has the width {width!r}; it must be a whole number from 1 to the seed's {most}"
                    )
            choices.append(Choice(name, options))
        if given:
            known = ", ".join(choice.name for choice in choices)
            raise SpaceError(f"{seed.name} has no width {next(iter(given))!r}; known are {known}")
        self.choices = tuple(choices)

    def decode(self, tokens: Sequence[int]) -> NetSpec:
        """See `Space.decode`."""
        picked = zip(self._most, self.choices, self.check(tokens), strict=True)
        widths = {place: int(choice.options[token]) for place, choice, token in picked}
        spec = with_widths(self.seed, widths, self._most)
        return rename(spec, f"{self.name}-{spec.digest()[:6]}")

    def encode(self, spec: NetSpec) -> Tokens:
        """See `Space.encode`."""
        fixed = fix_skips(spec)
        if len(fixed.rows) != len(self.seed.rows):
            raise self._not_in(
                spec, f"it has {len(fixed.rows)} rows, the seed {len(self.seed.rows)}"
            )
        tokens = []
        for choice, place in zip(self.choices, self._most, strict=True):
            first = place[1][0]
            if type(fixed.rows[first]) is not type(self.seed.rows[first]):
                raise self._not_in(spec, f"row {first} is of another kind")
            widths = (int(width) for width in choice.options)
            fitting = [allowed(fixed, place, width, self._most[place]) for width in widths]
            if (found := width_at(fixed, place)) not in fitting:
                raise self._not_in(spec, f"{choice.name} is {found}")
            tokens.append(fitting.index(found))
        if self.decode(tokens).digest() != fixed.digest():
            raise self._not_in(spec, "it differs from the seed in more than these widths")
        return tuple(tokens)

    def _not_in(self, spec: NetSpec, why: str) -> NotInSpace:
        return self.outside(spec, why, f"take a narrower version of {self.seed.name}")
