"""MnasNet's block strings: `r2_k3_s22_e6_i16_o24_se0.25_noskip`, read and written exactly.

The authors' notation for a block of identical layers: r layers, kernel k, stride of the first layer
(height and width), expansion ratio e, i channels in, o out, squeeze width as a fraction of the
channels in, no residuals. Only ratios are written, so a block fits where every layer has the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bneck.specs.network import NetSpec
from bneck.specs.rows import Act, Bneck, Conv, Pool, Row, SpecError

_PART = re.compile(r"(?P<key>se|[rksieo])(?P<value>\d+(?:\.\d+)?|\.\d+)")
_WHOLE = ("r", "k", "s", "i", "o")
_EXAMPLE = "r2_k3_s22_e6_i16_o24_se0.25_noskip"
MOST_LAYERS = 99


@dataclass(frozen=True, slots=True)
class _Block:
    layers: int
    kernel: int
    stride: int
    ratio: str
    width_in: int
    out: int
    se: str
    noskip: bool

    def __str__(self) -> str:
        text = (
            f"r{self.layers}_k{self.kernel}_s{self.stride}{self.stride}_e{self.ratio}"
            f"_i{self.width_in}_o{self.out}"
        )
        return text + (f"_se{self.se}" if self.se != "0" else "") + "_noskip" * self.noskip

    def rows(self, act: Act) -> list[Bneck]:
        rows: list[Bneck] = []
        width, stride = self.width_in, self.stride
        for _ in range(self.layers):
            expanded, se = max(1, int(width * float(self.ratio))), _squeeze(width, self.se)
            row = Bneck(self.kernel, expanded, self.out, se, act, stride)
            rows.append(replace(row, skip="no") if self.noskip else row)
            width, stride = self.out, 1
        return rows


def block_rows(blocks: Sequence[str], *, act: Act = "relu") -> tuple[Row, ...]:
    """The rows of a network from stem to pool; see `from_codec`."""
    if not blocks:
        raise SpecError(f"there are no blocks; write at least one, as {_EXAMPLE}")
    parsed = [_parse(i, text) for i, text in enumerate(blocks)]
    width = parsed[0].width_in
    rows: list[Row] = [Conv(3, width, act, 2)]
    for i, block in enumerate(parsed):
        if block.width_in != width:
            raise SpecError(
                f"block {i} ({blocks[i]}) takes {block.width_in} channels, but {width} come out of the row "
                "before it; make its i that number"
            )
        rows += block.rows(act)
        width = block.out
    return (*rows, Conv(1, 1280, act), Pool())


def from_codec(blocks: Sequence[str], *, act: Act = "relu") -> NetSpec:
    """The network of a list of block strings, as the authors' code builds it.

    A stem of 3 x 3 and stride 2 as wide as the first block's input, the blocks, a 1 x 1 conv of
    1280 channels, the pool; squeeze-and-excite with a true sigmoid.

    Raises:
        SpecError: a string that is not a block, or blocks that do not follow each other.
    """
    return NetSpec(name="mnasnet", rows=block_rows(blocks, act=act), se_gate="sigmoid")


def to_codec(spec: NetSpec) -> list[str]:
    """The block strings of a network's bneck rows; stem, tail and nonlinearities are not in them.

    Rows join a block while only the stride of the first differs.

    Raises:
        SpecError: a row that no string can say: a full convolution among the blocks, a squeeze
            width above the row's input, a dilation.
    """
    blocks: list[_Block] = []
    last = max((i for i, row in enumerate(spec.rows) if isinstance(row, Bneck)), default=-1)
    if last < 0:
        raise SpecError(f"{spec.name} has no bneck rows; the block strings have nothing to say")
    for i, row in enumerate(spec.rows[1 : last + 1], 1):
        plain = isinstance(row, Bneck) and not row.fused and row.kernel and not row.start
        if not isinstance(row, Bneck) or not plain or row.dilation != 1:
            raise SpecError(
                f"row {i} is {row}; a block string holds bneck rows of one depthwise convolution without "
                "dilation only"
            )
        block = _block_of(i, row, spec.width_into(i))
        if blocks and (joined := _joined(blocks[-1], block, row)):
            blocks[-1] = joined
        else:
            blocks.append(block)
    return [str(block) for block in blocks]


def _parse(index: int, text: str) -> _Block:
    found: dict[str, str] = {}
    noskip, why = False, ""
    for part in str(text).strip().split("_"):
        match = _PART.fullmatch(part)
        if part == "noskip" and not noskip:
            noskip = True
        elif match is not None and match["key"] not in found:
            found[match["key"]] = match["value"]
        else:
            raise _no_block(index, text, f"{part!r} is no part of one or stands there twice")
    if missing := [key for key in (*_WHOLE[:3], "e", *_WHOLE[3:]) if key not in found]:
        raise _no_block(index, text, f"it lacks {', '.join(missing)}")
    if bad := [key + found[key] for key in _WHOLE if not found[key].isdecimal()]:
        raise _no_block(index, text, f"{bad[0]} is no whole number")
    layers, kernel, width_in, out = (int(found[key]) for key in "rkio")
    ratio, se = float(found["e"]), float(found.get("se", "0"))
    if found["s"] not in ("11", "22"):
        why = f"its stride is s{found['s']}; allowed are s11 and s22"
    elif not 1 <= layers <= MOST_LAYERS:
        why = f"r is {found['r']}; allowed is 1 to {MOST_LAYERS}"
    elif ratio < 1 or not 0 <= se <= 1:
        why = "e must be at least 1 and se from 0 to 1"
    elif width_in < 1 or out < 1:
        why = "i and o must be at least 1"
    if why:
        raise _no_block(index, text, why)
    stride = int(found["s"][0])
    return _Block(layers, kernel, stride, _plain(ratio), width_in, out, _plain(se), noskip)


def _no_block(index: int, text: object, why: str) -> SpecError:
    return SpecError(f"block {index} is {text!r}: {why}; a block is written as {_EXAMPLE}")


def _block_of(index: int, row: Bneck, width: int) -> _Block:
    ratio = _plain(row.expanded / width)
    if int(width * float(ratio)) != row.expanded:
        ratio = _plain((row.expanded + 0.5) / width)  # int() must not fall below it
    half_up = _plain((row.se + 0.5) / width) if row.se < width else "1"
    se = next((share for share in ("0", "0.25", half_up) if _squeeze(width, share) == row.se), "")
    if row.expanded < width or not se:
        raise SpecError(
            f"row {index} has {width} channels in, an expansion of {row.expanded} and a squeeze width of "
            f"{row.se}; a block string holds expansions of at least the input and squeeze widths up to it"
        )
    return _Block(1, row.kernel, row.stride, ratio, width, row.out, se, row.skip == "no")


def _joined(block: _Block, next_: _Block, row: Bneck) -> _Block | None:
    """The block with one layer more, or None where that layer differs from its others."""
    if next_.stride != 1 or (next_.kernel, next_.out) != (block.kernel, block.out):
        return None
    longer = replace(block, layers=block.layers + 1)
    # A first layer that cannot add says nothing of residuals, whichever way it was written.
    silent = block.layers == 1 and (block.stride == 2 or block.width_in != block.out)
    if silent and block.noskip:
        longer = replace(longer, noskip=next_.noskip)
    made = longer.rows(row.act)[-1]
    same = (made.expanded, made.se, longer.noskip) == (row.expanded, row.se, next_.noskip)
    return longer if same and block.layers < MOST_LAYERS else None


def _squeeze(width: int, share: str) -> int:
    return max(1, int(width * float(share))) if float(share) > 0 else 0


def _plain(number: float) -> str:
    """A ratio in few digits: 6, 2.5, 0.25."""
    return f"{number:.6g}"
