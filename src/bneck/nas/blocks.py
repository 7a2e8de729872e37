"""Factorised hierarchical spaces (MnasNet section 4.1): blocks of identical layers, all choosing apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Literal, get_args

from bneck.nas.space import Choice, NotInSpace, Option, Space, SpaceError, Tokens
from bneck.specs.network import Gate, NetSpec, Padding
from bneck.specs.rows import ACTS, Act, Bneck, Conv, Pool, Row, Skip, round8
from bneck.specs.transforms import fix_skips, rename

SqueezeOf = Literal["input", "expansion"]
SQUEEZES: tuple[str, ...] = get_args(SqueezeOf)
SKIPS = ("identity", "none")
# Operators by the depthwise convolutions that they have: one before the expansion, one after it.
BOTTLENECKS = {
    "mbconv": (False, True), "convnext": (True, False), "extradw": (True, True), "ffn": (False, False),
}  # fmt: skip
_OP = re.compile(r"(conv|dconv)|(mbconv|convnext|extradw|ffn)(\d+(?:\.\d+)?)")
HEADER = ("resolution", "classes", "padding", "se_gate", "dropout")  # as in `NetSpec`
FIELDS = ("op", "kernel", "se", "skip", "out", "layers", "act", "start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The options of one block; all its layers are alike, only the first has the stride.

    Args:
        stride: of the first layer, 1 or 2.
        op: "conv", "dconv" (depthwise and pointwise), "mbconv6" (expansion 6; any number above 1), and
            MobileNetV4's other bottlenecks: "convnext4" (depthwise before the expansion), "extradw4"
            (before and after it), "ffn4" (neither, only at stride 1), with numbers of at least 2.
        kernel: odd sides in pixels; of the depthwise convolution after the expansion where there is one.
        out: channels; 0 alone keeps those that enter.
        layers: how many.
        se: squeeze widths as fractions, 0 for none; a conv has none.
        skip: "identity" (a residual wherever a layer can have one) or "none"; a conv has none.
        act: nonlinearities.
        start: odd sides of the depthwise convolution before the expansion, where there is one.
    """

    stride: int
    op: tuple[str, ...]
    kernel: tuple[int, ...]
    out: tuple[int, ...]
    layers: tuple[int, ...]
    se: tuple[float, ...] = (0,)
    skip: tuple[str, ...] = ("identity",)
    act: tuple[Act, ...] = ("relu",)
    start: tuple[int, ...] = (3,)

    def check(self, where: str) -> None:
        """Raise SpaceError for an option that cannot be; `where` names the block."""
        for name, (allowed, good) in _RULES.items():
            options = (self.stride,) if name == "stride" else getattr(self, name)
            if wrong := [option for option in options if not good(option)]:
                raise SpaceError(
                    f"{where}.{name} has the option {wrong[0]!r}; it must be {allowed}"
                )
        if 0 in self.out and self.out != (0,):
            raise SpaceError(
                f"{where}.out has 0 among {list(self.out)}; 0 keeps the width that enters and stands alone"
            )
        if self.stride > 1 and (flat := [op for op in self.op if op.startswith("ffn")]):
            raise SpaceError(
                f"{where}.op has the option {flat[0]!r} at stride {self.stride}, which needs a depthwise "
                "convolution; leave it out there"
            )


@dataclass(frozen=True, kw_only=True)
class BlockSpace(Space):
    """Networks of a stem, `blocks` and a tail.

    Args:
        name: of the space.
        stem: the alternatives for the first row.
        blocks: from the stem to the tail.
        tail: for every row after the blocks its alternatives.
        se_of: whether a squeeze width is a fraction of the layer's input (MnasNet, not rounded) or of
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
        every = [Choice(name, tuple(map(_label, found))) for name, found in self.slots.items()]
        object.__setattr__(self, "choices", tuple(c for c in every if len(c.options) > 1))
        self.decode([0] * len(self.choices))  # a network can be made of it at all

    def decode(self, tokens: Sequence[int]) -> NetSpec:
        """See `Space.decode`."""
        picked = self._picked(tokens)
        rows: list[Row] = [picked["stem"]]
        for i, block in enumerate(self.blocks):
            fields = {name: picked[f"block{i}.{name}"] for name in FIELDS}
            rows += self._layers(block.stride, rows[-1].out, **fields)  # type: ignore[union-attr]
        rows += [picked[f"tail{i}"] for i in range(len(self.tail))]
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

    @cached_property
    def slots(self) -> dict[str, tuple[Any, ...]]:
        """What can stand in every place, in the order of the tokens; a single option is not a choice."""
        found: dict[str, tuple[Any, ...]] = {"stem": self.stem}
        for i, block in enumerate(self.blocks):
            found |= {f"block{i}.{name}": tuple(getattr(block, name)) for name in FIELDS}
        return found | {f"tail{i}": rows for i, rows in enumerate(self.tail)}

    def row_places(self, tokens: Sequence[int]) -> list[str]:
        """Where each row of a network stands in the space: "stem", "block2.0", "block2.1", "tail0"."""
        picked = self._picked(tokens)
        found = ["stem"]
        for i in range(len(self.blocks)):
            found += [f"block{i}.{n}" for n in range(picked[f"block{i}.layers"])]
        return [*found, *(f"tail{i}" for i in range(len(self.tail)))]

    def covering(self) -> Iterator[NetSpec]:
        """Networks that together have every row which a network of the space can have.

        What a latency table must answer for: every combination of a block's options after every
        width that can enter it. Residuals are no part of a row.
        """
        entering = self._indexed("stem")
        for i, block in enumerate(self.blocks):
            varied = [self._indexed(f"block{i}.{f}") for f in FIELDS if f not in ("layers", "skip")]
            deep = (f"block{i}.layers", block.layers.index(max(block.layers)))
            for picked in product(entering, *varied):
                yield self._with(deep, *picked)
            if block.out != (0,):
                entering = self._indexed(f"block{i}.out")
        for i, options in enumerate(self.tail):
            now = self._indexed(f"tail{i}")
            for pair in product(entering, now):
                yield self._with(*pair)
            # A pool passes the width on: what follows it meets what stood before it.
            entering = entering if all(row.op == "pool" for row in options) else now

    def _indexed(self, name: str) -> list[tuple[str, int]]:
        return [(name, n) for n in range(len(self.slots[name]))]

    def _with(self, *picked: tuple[str, int]) -> NetSpec:
        chosen = dict(picked)
        return self.decode([chosen.get(choice.name, 0) for choice in self.choices])

    def _picked(self, tokens: Sequence[int]) -> dict[str, Any]:
        """The option of every slot, those that cannot vary included."""
        names = (choice.name for choice in self.choices)
        at = dict(zip(names, self.check(tokens), strict=True))
        return {name: options[at.get(name, 0)] for name, options in self.slots.items()}

    def _layers(
        self, stride: int, width: int, *, op: str, kernel: int, se: float, skip: str, out: int,
        layers: int, act: Act, start: int,
    ) -> list[Row]:  # fmt: skip
        """The rows of a block that `width` channels enter."""
        rows: list[Row] = []
        out = out or width
        plain, form, ratio = _op_parts(op)
        before, after = BOTTLENECKS.get(form, (False, True))
        for _ in range(layers):
            if plain == "conv":
                rows.append(Conv(kernel, out, act, stride))
            else:
                expanded = width if plain else round8(ratio * width)
                squeeze = self._squeeze(se, width, expanded)
                same = stride == 1 and width == out
                adds: Skip = "yes" if same and skip == "identity" else "no"
                rows.append(
                    Bneck(
                        kernel * after, expanded, out, squeeze, act, stride, skip=adds,
                        start=start * before,
                    )
                )  # fmt: skip
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
        for picked in product(*(enumerate(getattr(options, f)) for f in FIELDS)):
            values = {f: value for f, (_, value) in zip(FIELDS, picked, strict=True)}
            stop = start + values["layers"]
            out = values["out"] or width
            if stop > end or rows[start].out != out:  # type: ignore[union-attr]
                continue
            if tuple(self._layers(options.stride, width, **values)) == tuple(rows[start:stop]):
                named = {f"block{block}.{f}": n for f, (n, _) in zip(FIELDS, picked, strict=True)}
                for rest in self._parse(rows, block + 1, stop, end, out):
                    yield named | rest

    def _spec(self, rows: Sequence[Row]) -> NetSpec:
        header: dict[str, Any] = {name: getattr(self, name) for name in HEADER}
        return NetSpec(name=self.name, rows=tuple(rows), **header)

    def _not_in(self, spec: NetSpec, why: str) -> NotInSpace:
        advice = "give the space options that hold it, or take another network"
        return self.outside(spec, why, advice)


def _label(option: Any) -> Option:
    """A row in words; any other option is one as it is."""
    if not isinstance(option, Conv | Bneck | Pool):
        return option  # type: ignore[no-any-return]
    return " ".join(map(str, (option.op, *astuple(option))))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _zero(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def _is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_op(value: object) -> bool:
    if _OP.fullmatch(str(value)) is None:
        return False
    plain, form, ratio = _op_parts(str(value))
    # Where rounding leaves an expansion as wide as its input, an mbconv does without it.
    return bool(plain) or (ratio > 1 if form == "mbconv" else ratio >= 2)


def _op_parts(op: str) -> tuple[str, str, float]:
    """An operator as its whole name or, with an expansion ratio, as the bottleneck and the ratio."""
    found = _OP.fullmatch(op)
    assert found is not None
    return found[1] or "", found[2] or "", float(found[3] or 1)


_RULES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "stride": ("1 or 2", lambda value: _whole(value) and value <= 2),
    "op": (
        "conv, dconv, mbconv with a number above 1, as mbconv6, or convnext, extradw or ffn with one of at "
        "least 2, as ffn4",
        _is_op,
    ),
    "kernel": ("an odd whole number", lambda value: _whole(value) and value % 2),
    "out": (
        "a whole number of at least 1, or 0 alone",
        lambda value: _whole(value) or _zero(value),
    ),
    "layers": ("a whole number of at least 1", _whole),
    "se": ("a fraction from 0 to 1", _is_fraction),
    "skip": ("identity or none", lambda value: value in SKIPS),
    "start": ("an odd whole number", lambda value: _whole(value) and value % 2),
    "act": (f"one of {', '.join(ACTS)}", lambda value: value in ACTS),
}
