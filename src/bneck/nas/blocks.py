"""Factorised hierarchical spaces (MnasNet section 4.1): blocks of identical layers, all choosing apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

from bneck.nas.space import Choice, NotInSpace, Option, Space, SpaceError, Tokens
from bneck.specs.network import Gate, NetSpec, Padding
from bneck.specs.rows import ACTS, Act, Bneck, Conv, Row, round8
from bneck.specs.transforms import fix_skips, rename

SqueezeOf = Literal["input", "expansion"]
SQUEEZES: tuple[str, ...] = get_args(SqueezeOf)
SKIPS = ("identity", "none")
FIELDS = ("op", "kernel", "se", "skip", "out", "layers", "act")
_MBCONV = re.compile(r"mbconv(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The options of one block; all its layers are alike, only the first has the stride.

    Args:
        stride: of the first layer, 1 or 2.
        op: "conv", "dconv" (depthwise and pointwise), "mbconv6" (expansion 6; any number above 1).
        kernel: odd sides in pixels.
        out: channels.
        layers: how many.
        se: squeeze widths as shares, 0 for none; a conv has none.
        skip: "identity" (a residual wherever a layer can have one) or "none"; a conv has none.
        act: nonlinearities.
    """

    stride: int
    op: tuple[str, ...]
    kernel: tuple[int, ...]
    out: tuple[int, ...]
    layers: tuple[int, ...]
    se: tuple[float, ...] = (0,)
    skip: tuple[str, ...] = ("identity",)
    act: tuple[Act, ...] = ("relu",)

    def check(self, where: str) -> None:
        """Raise SpaceError for an option that cannot be; `where` names the block."""
        for name in FIELDS:
            Choice(f"{where}.{name}", getattr(self, name))
        _check(f"{where}.stride", (self.stride,), "1 or 2", lambda v: _whole(v) and v <= 2)
        _check(
            f"{where}.op",
            self.op,
            "conv, dconv or mbconv with a number above 1, as mbconv6",
            _is_op,
        )
        _check(f"{where}.kernel", self.kernel, "an odd whole number", lambda v: _whole(v) and v % 2)
        _check(f"{where}.out", self.out, "a whole number of at least 1", _whole)
        _check(f"{where}.layers", self.layers, "a whole number of at least 1", _whole)
        _check(f"{where}.se", self.se, "a share from 0 to 1", _is_share)
        _check(f"{where}.skip", self.skip, "identity or none", lambda v: v in SKIPS)
        _check(f"{where}.act", self.act, f"one of {', '.join(ACTS)}", lambda v: v in ACTS)


@dataclass(frozen=True, kw_only=True)
class BlockSpace(Space):
    """Networks of a stem, `blocks` and a tail.

    Args:
        name: of the space.
        stem: the alternatives for the first row.
        blocks: from the stem to the tail.
        tail: for every row behind the blocks its alternatives.
        se_of: whether a squeeze width is a share of the layer's input (MnasNet, not rounded) or of
            its expansion (V3, section 5.3, rounded to 8).
        resolution, classes, padding, se_gate, dropout: as in `NetSpec`.

    Raises:
        SpaceError: an empty choice or an option that cannot be; the choice is named.
    """

    name: str
    stem: tuple[Conv, ...]
    blocks: tuple[Block, ...]
    tail: tuple[tuple[Row, ...], ...]
    se_of: SqueezeOf = "expansion"
    resolution: int = 224
    classes: int = 1000
    padding: Padding = "symmetric"
    se_gate: Gate = "hsigmoid"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if not self.blocks:
            raise SpaceError(f"the space {self.name} has no blocks; give at least one")
        if self.se_of not in SQUEEZES:
            raise SpaceError(f"se_of is {self.se_of!r}; allowed are {', '.join(SQUEEZES)}")
        for i, block in enumerate(self.blocks):
            block.check(f"block{i}")
        choices = tuple(c for c in self._slots() if len(c.options) > 1)
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "_at", {c.name: i for i, c in enumerate(choices)})
        self.decode([0] * len(choices))  # a network can be made of it at all

    def decode(self, tokens: Sequence[int]) -> NetSpec:
        """See `Space.decode`."""
        tokens, at = self.check(tokens), self._at  # type: ignore[attr-defined]

        def pick(name: str, options: Sequence[Any]) -> Any:
            return options[tokens[at[name]] if name in at else 0]

        rows: list[Row] = [pick("stem", self.stem)]
        width = rows[0].out  # type: ignore[union-attr]
        for i, block in enumerate(self.blocks):
            fields = {name: pick(f"block{i}.{name}", getattr(block, name)) for name in FIELDS}
            rows += self._layers(block.stride, width, **fields)
            width = fields["out"]
        rows += [pick(f"tail{i}", options) for i, options in enumerate(self.tail)]
        spec = self._spec(rows)
        return rename(spec, f"{self.name}-{spec.digest()[:6]}")

    def encode(self, spec: NetSpec) -> Tokens:
        """See `Space.encode`."""
        rows = fix_skips(spec).rows
        same = replace(self._spec(rows), name=spec.name).digest() == fix_skips(spec).digest()
        stems = [i for i, row in enumerate(self.stem) if rows[0] == row]
        end = len(rows) - len(self.tail)
        tails = [
            [i for i, row in enumerate(options) if found == row]
            for options, found in zip(self.tail, rows[end:], strict=False)
        ]
        if not same or not stems or end < 1 or not all(tails):
            raise self._not_in(spec, "its stem, its tail or what holds for all rows is another")
        for body in self._parse(rows, 0, 1, end, self.stem[stems[0]].out):
            picked = {"stem": stems[0], **body}
            picked |= {f"tail{i}": found[0] for i, found in enumerate(tails)}
            return tuple(picked[choice.name] for choice in self.choices)
        raise self._not_in(spec, "its rows are no blocks of these options")

    def row_places(self, tokens: Sequence[int]) -> list[str]:
        """Where each row of a network stands in the space: "stem", "block2.0", "block2.1", "tail0"."""
        tokens, at = self.check(tokens), self._at  # type: ignore[attr-defined]
        found = ["stem"]
        for i, block in enumerate(self.blocks):
            name = f"block{i}.layers"
            layers = block.layers[tokens[at[name]] if name in at else 0]
            found += [f"block{i}.{n}" for n in range(layers)]
        return [*found, *(f"tail{i}" for i in range(len(self.tail)))]

    def covering(self) -> Iterator[NetSpec]:
        """Networks that together have every row which a network of the space can have.

        What a latency table must answer for: every combination of a block's options behind every
        width that can enter it. Residuals are no part of a row.
        """
        entering: list[tuple[str, int]] = [("stem", i) for i in range(len(self.stem))]
        for i, block in enumerate(self.blocks):
            varied = [f for f in FIELDS if f not in ("layers", "skip")]
            for before in entering:
                for picked in product(*(range(len(getattr(block, f))) for f in varied)):
                    names = (f"block{i}.{f}" for f in varied)
                    deep = (f"block{i}.layers", block.layers.index(max(block.layers)))
                    yield self._with([before, deep, *zip(names, picked, strict=True)])
            entering = [(f"block{i}.out", n) for n in range(len(block.out))]
        for i, options in enumerate(self.tail):
            now = [(f"tail{i}", n) for n in range(len(options))]
            for pair in product(entering, now):
                yield self._with(pair)
            # A pool passes the width on: what follows it meets what stood before it.
            entering = entering if all(row.op == "pool" for row in options) else now

    def _with(self, picked: Sequence[tuple[str, int]] | tuple[tuple[str, int], ...]) -> NetSpec:
        chosen = dict(picked)
        return self.decode([chosen.get(choice.name, 0) for choice in self.choices])

    def _slots(self) -> Iterator[Choice]:
        """Everything that can vary, in the order of the tokens."""
        yield Choice("stem", tuple(map(_label, self.stem)))
        for i, block in enumerate(self.blocks):
            for name in FIELDS:
                yield Choice(f"block{i}.{name}", tuple(getattr(block, name)))
        for i, rows in enumerate(self.tail):
            yield Choice(f"tail{i}", tuple(map(_label, rows)))

    def _layers(
        self, stride: int, width: int, *, op: str, kernel: int, se: float, skip: str, out: int,
        layers: int, act: Act,
    ) -> list[Row]:  # fmt: skip
        """The rows of a block that `width` channels enter."""
        rows: list[Row] = []
        for _ in range(layers):
            if op == "conv":
                rows.append(Conv(kernel, out, act, stride))
            else:
                expanded = width if op == "dconv" else round8(_ratio(op) * width)
                squeeze = self._squeeze(se, width, expanded)
                adds = skip == "identity" and stride == 1 and width == out
                rows.append(
                    Bneck(kernel, expanded, out, squeeze, act, stride, skip="yes" if adds else "no")
                )
            width, stride = out, 1
        return rows

    def _squeeze(self, share: float, width: int, expanded: int) -> int:
        if share == 0:
            return 0
        return max(1, int(width * share)) if self.se_of == "input" else round8(expanded * share)

    def _parse(
        self, rows: Sequence[Row], block: int, start: int, end: int, width: int
    ) -> Iterator[dict[str, int]]:
        """Every way to read rows `start` to `end` as the blocks from `block` on."""
        if block == len(self.blocks):
            if start == end:
                yield {}
            return
        options = self.blocks[block]
        for picked in product(*(range(len(getattr(options, f))) for f in FIELDS)):
            values = {f: getattr(options, f)[n] for f, n in zip(FIELDS, picked, strict=True)}
            stop = start + values["layers"]
            if stop > end or rows[start].out != values["out"]:  # type: ignore[union-attr]
                continue
            if tuple(self._layers(options.stride, width, **values)) == tuple(rows[start:stop]):
                named = {f"block{block}.{f}": n for f, n in zip(FIELDS, picked, strict=True)}
                for rest in self._parse(rows, block + 1, stop, end, values["out"]):
                    yield named | rest

    def _spec(self, rows: Sequence[Row]) -> NetSpec:
        return NetSpec(
            name=self.name,
            rows=tuple(rows),
            resolution=self.resolution,
            classes=self.classes,
            padding=self.padding,
            se_gate=self.se_gate,
            dropout=self.dropout,
        )

    def _not_in(self, spec: NetSpec, why: str) -> NotInSpace:
        return NotInSpace(
            f"{spec.name} does not lie in the space {self.name}: {why}; give the space options that "
            "hold it, or take another network"
        )


def _ratio(op: str) -> float:
    match = _MBCONV.fullmatch(op)
    assert match is not None
    return float(match[1])


def _label(row: Row) -> Option:
    return " ".join(map(str, (row.op, *(getattr(row, f) for f in row.__dataclass_fields__))))


def _check(where: str, values: Sequence[Any], allowed: str, good: Callable[[Any], object]) -> None:
    for value in values:
        if not good(value):
            raise SpaceError(f"{where} has the option {value!r}; it must be {allowed}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_op(value: object) -> bool:
    if value in ("conv", "dconv"):
        return True
    match = _MBCONV.fullmatch(value) if isinstance(value, str) else None
    return match is not None and float(match[1]) > 1
