"""Widths for a latency: which channels, and which whole rows, a network can best do without.

Importance says what each channel is worth (`nets.importance`, by its keys), a latency table what each
width costs. A row's latency depends on the widths that enter it, that it expands to and that it puts
out, and the rows add up. So the best widths at a price on latency are a shortest path over the widths
behind the stages, each row with its best expansion inside; the price is bisected until the target is
met. The greedy form drops what costs the least importance per millisecond until then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bneck.nas.allocation.narrowing import (
    Array,
    Keys,
    RowCosts,
    Term,
    find_groups,
    find_terms,
    removable_rows,
)
from bneck.nas.netadapt import Unreachable, tail_rows
from bneck.specs.network import NetSpec
from bneck.specs.transforms import (
    fix_skips,
    rename,
    with_widths,
)

GRID = 8  # channels; also the floor
BISECTIONS = 40
TAIL = 16.0  # docs/lab-log.md has what 1 loses
CLOSE = 0.002  # a share of the target; a price that comes nearer is not looked for


@dataclass(frozen=True, slots=True)
class Cut:
    """A width made narrower, or with `after` 0 a row left out; the importance lost by it."""

    key: str
    before: int
    after: int
    lost: float

    def __str__(self) -> str:
        if not self.after:
            return f"row {self.key.split('.')[1]} is left out"
        return f"{self.key}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A narrower network, its estimated milliseconds, the importance lost, and what was cut, by row."""

    spec: NetSpec
    estimated_ms: float
    lost: float
    cuts: tuple[Cut, ...]


class Allocator:
    """The narrower versions of a network, and the best of them at any latency.

    Args:
        seed: the trained network that the importance was measured on.
        importance: of its channels and rows, see `nets.importance.Importance.groups`.
        costs: the latency table, filled down to the narrowest widths; what it does not cover is not
            chosen.
        least: no width falls below so many channels, but the seed's own.
        grid: widths are multiples of it, or the seed's own.
        rows: whether residual rows may be left out; those that a head taps stay.
        tail: how many times the importance of the convs after the last bneck counts. They have the
            most channels, each of little importance while the others are there.

    Raises:
        InputError: the importance is another network's, or the table's.
    """

    def __init__(
        self,
        seed: NetSpec,
        importance: Mapping[str, Array],
        costs: RowCosts,
        *,
        least: int = GRID,
        grid: int = GRID,
        rows: bool = True,
        tail: float = TAIL,
    ) -> None:
        self.seed, self.costs = fix_skips(seed), costs
        behind = {f"rows.{i}.out": tail for i in tail_rows(seed)}
        importance = {key: values * behind.get(key, 1.0) for key, values in importance.items()}
        self.groups = {
            group.key: group
            for group in find_groups(self.seed, importance, costs.wrapper, least, grid)
        }
        self.terms = find_terms(self.seed, self.groups, costs)
        self.branches = (
            dict(removable_rows(self.seed, importance, costs.wrapper))
            if rows
            else dict[int, float]()
        )
        self._by_group: dict[str, list[int]] = {key: [] for key in self.groups}
        for i, term in enumerate(self.terms):
            for key in term.keys:
                self._by_group[key].append(i)
        self._constant_ms = costs.estimate_ms(self.seed) - self._rows_ms(self._whole())

    def fastest_ms(self) -> float:
        """Estimated milliseconds of the fastest version there is."""
        return self._ms(self._fastest())

    def at_price(self, price: float) -> Allocation:
        """The version of least importance lost + price x milliseconds, of all that there are."""
        return self._made(self._cheapest(price))

    def at(self, target_ms: float) -> Allocation:
        """The better of both forms within a target, by the importance lost; see `path`.

        Raises:
            Unreachable: even the fastest version is slower.
        """
        return min(self.path(target_ms), self.greedy(target_ms), key=lambda found: found.lost)

    def path(self, target_ms: float) -> Allocation:
        """The version of least importance lost at the price on latency that meets the target.

        What the price leaves of the target is given back to the widths that are worth most.

        Raises:
            Unreachable: even the fastest version is slower.
        """
        choice = self._checked(target_ms)
        if choice is None:
            return self._made(self._whole())
        best = self._fastest()
        low, high = 0.0, np.inf
        price = self._price()
        for _ in range(BISECTIONS):
            choice = self._cheapest(price)
            ms = self._ms(choice)
            if ms <= target_ms:
                best, high = choice, price
                if ms >= target_ms * (1 - CLOSE):
                    break
            else:
                low = price
            price = 2 * low if high == np.inf else (low * high) ** 0.5 if low else high / 4
        return self._made(self._given_back(best, target_ms))

    def greedy(self, target_ms: float) -> Allocation:
        """What is left when the blocks of least importance per millisecond are dropped one by one.

        Raises:
            Unreachable: even the fastest version is slower.
        """
        choice = self._checked(target_ms)
        if choice is None:
            return self._made(self._whole())
        moves = {place: self._moves(choice, place) for place in self._places()}
        while (missing_ms := self._ms(choice) - target_ms) > 0:
            best = _best_move(moves, missing_ms)
            if best is None:  # dead end of a table that does not rise with the widths
                choice = self._fastest()
                break
            place, option = best
            choice = choice.with_(place, option)
            for near in self._near(place):
                moves[near] = self._moves(choice, near)
        return self._made(self._given_back(choice, target_ms))

    # Choices: an option of every group, and rows that are left out.

    def _whole(self) -> _Choice:
        return _Choice({key: len(group.widths) - 1 for key, group in self.groups.items()})

    def _fastest(self) -> _Choice:
        return self._cheapest(np.inf)

    def _checked(self, target_ms: float) -> _Choice | None:
        """Where to start from; None where the seed itself is fast enough."""
        whole = self._whole()
        if self._ms(whole) <= target_ms:
            return None
        fastest_ms = self.fastest_ms()
        if fastest_ms > target_ms:
            raise Unreachable(
                f"{target_ms:.3f} ms cannot be reached from {self.seed.name}: its fastest version is "
                f"estimated at {fastest_ms:.3f} ms; choose a target above that, a smaller resolution or a "
                "smaller seed"
            )
        return whole

    def _rows_ms(self, choice: _Choice) -> float:
        return sum(self._term_ms(choice, i) for i in range(len(self.terms)))

    def _ms(self, choice: _Choice) -> float:
        return self._constant_ms + self._rows_ms(choice)

    def _term_ms(self, choice: _Choice, i: int) -> float:
        if i in choice.dropped:
            return 0.0
        term = self.terms[i]
        return float(term.cost[tuple(choice.options[key] for key in term.keys)])

    def _lost(self, choice: _Choice) -> list[Cut]:
        cuts = []
        for key, group in self.groups.items():
            option = choice.options[key]
            if option < len(group.widths) - 1 and group.inside not in choice.dropped:
                lost = float(group.lost[option])
                cuts.append(Cut(key, group.widths[-1], group.widths[option], lost))
        cuts += [Cut(f"rows.{i}.branch", 1, 0, self.branches[i]) for i in choice.dropped]
        return sorted(cuts, key=lambda cut: int(cut.key.split(".")[1]))

    def _made(self, choice: _Choice) -> Allocation:
        out: dict[int, int] = {}
        expanded: dict[int, int] = {}
        for key, group in self.groups.items():
            width = group.widths[choice.options[key]]
            if group.inside is not None:
                expanded[group.inside] = width
            else:
                out |= dict.fromkeys(group.rows, width)
        spec = with_widths(self.seed, out, expanded, without=choice.dropped)
        cuts = tuple(self._lost(choice))
        return Allocation(
            spec=rename(spec, f"{self.seed.name}-narrowed") if cuts else self.seed,
            estimated_ms=self._ms(choice),
            lost=sum(cut.lost for cut in cuts),
            cuts=cuts,
        )

    # Greedy: single changes, and what they save.

    def _places(self) -> list[_Place]:
        return [*self.groups, *self.branches]

    def _near(self, place: _Place) -> set[_Place]:
        """Places whose changes save something else once this one has changed."""
        terms = [place] if isinstance(place, int) else self._by_group[place]
        near: set[_Place] = {key for i in terms for key in self.terms[i].keys}
        return near | {place} | {i for i in self.branches if i in terms}

    def _moves(self, choice: _Choice, place: _Place) -> _Moves:
        """What each narrower option of a place saves, and the importance that it costs."""
        if isinstance(place, int):
            if place in choice.dropped:
                return _Moves()
            inside = f"rows.{place}.expanded"
            gone = (
                self.groups[inside].lost[choice.options[inside]] if inside in self.groups else 0.0
            )
            saved = np.array([self._term_ms(choice, place)])
            return _Moves(saved, np.array([max(0.0, self.branches[place] - float(gone))]))
        group, option = self.groups[place], choice.options[place]
        if group.inside in choice.dropped:
            return _Moves()
        saved = self._along(choice, place)
        return _Moves(saved[option] - saved[:option], group.lost[:option] - group.lost[option])

    def _along(self, choice: _Choice, key: str) -> Array:
        """Milliseconds of the rows that a group touches, at each of its options."""
        total = np.zeros(len(self.groups[key].widths))
        for i in self._by_group[key]:
            if i not in choice.dropped:
                term = self.terms[i]
                where = (slice(None) if k == key else choice.options[k] for k in term.keys)
                total = total + term.cost[tuple(where)]
        return total

    def _given_back(self, choice: _Choice, target_ms: float) -> _Choice:
        """Wider wherever the target allows, the most important per millisecond first."""
        while True:
            room_ms = target_ms - self._ms(choice)
            best: tuple[float, _Choice] | None = None
            for wider, added, gained in self._wider(choice):
                merit = np.where(added <= room_ms, gained / np.maximum(added, 1e-9), -1.0)
                n = int(np.argmax(merit))
                if merit[n] > 0 and (best is None or merit[n] > best[0]):
                    best = (float(merit[n]), wider[n])
            if best is None:
                return choice
            choice = best[1]

    def _wider(self, choice: _Choice) -> Iterator[tuple[list[_Choice], Array, Array]]:
        """Wider choices for every place, the milliseconds they add and the importance they regain."""
        for key, group in self.groups.items():
            option = choice.options[key]
            if group.inside in choice.dropped or option == len(group.widths) - 1:
                continue
            along = self._along(choice, key)
            yield (
                [choice.with_(key, n) for n in range(option + 1, len(group.widths))],
                along[option + 1 :] - along[option],
                group.lost[option] - group.lost[option + 1 :],
            )
        for row in choice.dropped:
            back = _Choice(choice.options, choice.dropped - {row})
            inside = f"rows.{row}.expanded"
            lost = (
                self.groups[inside].lost[choice.options[inside]] if inside in self.groups else 0.0
            )
            yield (
                [back],
                np.array([self._term_ms(back, row)]),
                np.array([self.branches[row] - float(lost)]),
            )

    # The shortest path: the cheapest choice at a price, group after group eliminated.

    def _price(self) -> float:
        """A price to begin with, importance per millisecond."""
        lost = sum(float(group.lost[0]) for group in self.groups.values())
        return max(lost, 1e-30) / max(self._rows_ms(self._whole()), 1e-9)

    def _cheapest(self, price: float) -> _Choice:
        """The choice of least importance lost + price x milliseconds; inf: of least milliseconds."""
        worth, price = (1.0, price) if price < np.inf else (0.0, 1.0)
        factors = [
            # At a price of 0 too nothing is chosen that has no latency.
            Term(
                term.keys,
                np.where(np.isinf(term.cost), np.inf, price * np.nan_to_num(term.cost, posinf=0.0)),
            )
            for term in self.terms
        ]
        unary = {key: worth * group.lost for key, group in self.groups.items()}
        taken: list[_Taken] = []
        dropping: dict[int, tuple[Keys, npt.NDArray[np.bool_]]] = {}
        for i, branch in self.branches.items():
            factor, inside = factors[i], f"rows.{i}.expanded"
            if inside in factor.keys:
                factor = _eliminated(inside, [factor, Term((inside,), unary.pop(inside))], taken)
            cheaper = factor.cost > worth * branch
            dropping[i] = factor.keys, cheaper
            factors[i] = Term(factor.keys, np.where(cheaper, worth * branch, factor.cost))
        factors += [Term((key,), cost) for key, cost in unary.items()]
        # Expansions touch one row; after them only the chain of the stages is left.
        for key in sorted(unary, key=lambda key: self.groups[key].inside is None):
            own = [factor for factor in factors if key in factor.keys]
            factors = [factor for factor in factors if key not in factor.keys]
            factors.append(_eliminated(key, own, taken))
        options: dict[str, int] = {}
        for step in reversed(taken):
            options[step.key] = int(step.best[tuple(options[key] for key in step.keys)])
        dropped = {
            i
            for i, (keys, cheaper) in dropping.items()
            if cheaper[tuple(options[key] for key in keys)]
        }
        return _Choice({key: options[key] for key in self.groups}, frozenset(dropped))


_Place: TypeAlias = str | int  # the key of a group, or a residual row that may be left out


@dataclass(frozen=True, slots=True)
class _Choice:
    """An option of every group, and the rows that are left out."""

    options: Mapping[str, int]
    dropped: frozenset[int] = frozenset()

    def with_(self, place: _Place, option: int) -> _Choice:
        if isinstance(place, int):
            return _Choice(self.options, self.dropped | {place})
        return _Choice({**self.options, place: option}, self.dropped)


@dataclass(frozen=True, slots=True)
class _Moves:
    """Milliseconds saved and importance lost by each option of a place."""

    saved: Array = field(default_factory=lambda: np.zeros(0))
    lost: Array = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True)
class _Taken:
    """The best option of an eliminated group for all options of those that it meets."""

    key: str
    keys: Keys
    best: npt.NDArray[np.intp]


def _best_move(moves: Mapping[_Place, _Moves], missing_ms: float) -> tuple[_Place, int] | None:
    """The change of least importance per millisecond; if that is the last, the least that suffices."""
    best: tuple[float, float, _Place, int] | None = None
    for place, options in moves.items():
        useful = np.flatnonzero(options.saved > 0)
        if len(useful):
            ratios = options.lost[useful] / options.saved[useful]
            n = useful[int(np.argmin(ratios))]
            if best is None or ratios.min() < best[0]:
                best = (float(ratios.min()), float(options.saved[n]), place, int(n))
    if best is None or best[1] < missing_ms:
        return None if best is None else best[2:]
    enough = [
        (float(options.lost[n]), n, place)
        for place, options in moves.items()
        for n in np.flatnonzero(options.saved >= missing_ms)
    ]
    _, n, place = min(enough, key=lambda entry: entry[0])
    return place, int(n)


def _eliminated(key: str, factors: Collection[Term], taken: list[_Taken]) -> Term:
    """The factors' sum at the best option of a group, which is noted in `taken`."""
    others = tuple(dict.fromkeys(k for factor in factors for k in factor.keys if k != key))
    keys = (*others, key)
    total: Array = np.zeros((1,) * len(keys))
    for factor in factors:
        order = sorted(range(len(factor.keys)), key=lambda axis: keys.index(factor.keys[axis]))
        spread = factor.cost.transpose(order)
        missing = [axis for axis, k in enumerate(keys) if k not in factor.keys]
        total = total + np.expand_dims(spread, missing)
    best = np.argmin(total, axis=-1)
    taken.append(_Taken(key, others, best))
    return Term(others, total.min(axis=-1))
