"""The spaces by name, and spaces of one's own from a yaml file.

`mnasnet` is MnasNet's factorised hierarchical space; `v3-large` and `v3-small` vary what V3's tables
hold: kernel, expansion, width, depth, squeeze-and-excite and nonlinearity of every stage. `v4-like`
varies V4-Conv-S's: the kind of bottleneck, its kernels, expansion, width and depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from bneck.nas.blocks import FIELDS, HEADER, Block, BlockSpace
from bneck.nas.space import SpaceError
from bneck.specs.rows import ROW_KINDS, Conv, Pool, Row, SpecError, round8

FORMAT = 1
SKELETONS = {  # stages of (out, layers, stride), conv in front of the pool, conv after it
    "mnasnet": (  # MobileNetV2's, as MnasNet section 4.1 varies it
        ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)),
        1280,
        0,
    ),
    "v3-large": (
        ((16, 1, 1), (24, 2, 2), (40, 3, 2), (80, 4, 2), (112, 2, 1), (160, 3, 2)),
        960,
        1280,
    ),
    "v3-small": (((16, 1, 2), (24, 2, 2), (40, 3, 2), (48, 2, 1), (96, 3, 2)), 576, 1024),
}
_NEEDED = ("name", "stem", "blocks", "tail")
_HEADER = (*HEADER, "se_of")


def mnasnet(*, resolution: int = 224, classes: int = 1000) -> BlockSpace:
    """MnasNet's space (section 4.1): 7 blocks x op, kernel, squeeze-and-excite, skip, filters, layers.

    Filters are 0.75, 1 and 1.25 times MobileNetV2's, rounded to 8, layers one fewer, as many or one
    more, at least 1; options that fall together are one option. The paper's third skip, pooling, is not
    here: what it does where widths differ was never published, and no published network has it.
    """
    stages, tail, _ = SKELETONS["mnasnet"]
    blocks = tuple(
        Block(
            stride=stride, op=("conv", "dconv", "mbconv3", "mbconv6"), kernel=(3, 5), se=(0, 0.25),
            skip=("identity", "none"), out=_around(out, (0.75, 1, 1.25)), layers=_depths(layers),
        )
        for out, layers, stride in stages
    )  # fmt: skip
    return BlockSpace(
        name="mnasnet", stem=(Conv(3, 32, "relu", 2),), blocks=blocks,
        tail=((Conv(1, tail, "relu"),), (Pool(),)), se_of="input", se_gate="sigmoid",
        resolution=resolution, classes=classes,
    )  # fmt: skip


def v3(family: str, *, resolution: int = 224, classes: int = 1000) -> BlockSpace:
    """A space around V3-Large or V3-Small: `family` is "v3-large" or "v3-small".

    Every stage chooses kernel, expansion, width (half to 1.25 times the paper's), layers, squeeze-and-
    excite and nonlinearity; the first stage has no expansion, as in the tables. The convs after
    the last stage are as wide as the paper's or half. All layers of a stage are alike, which
    V3's own, narrowed by NetAdapt, are not: V3 itself does not lie in its space.
    """
    stages, before, after = SKELETONS[family]
    blocks = tuple(
        Block(
            stride=stride, op=("mbconv3", "mbconv6") if i else ("dconv",), kernel=(3, 5), se=(0, 0.25),
            out=_around(out, (0.5, 0.75, 1, 1.25)), layers=_depths(layers) if i else (1,),
            act=("relu", "hswish"),
        )
        for i, (out, layers, stride) in enumerate(stages)
    )  # fmt: skip
    head = tuple(Conv(1, width, "hswish", bn=False) for width in (after, after // 2))
    tail = (Conv(1, before, "hswish"), Conv(1, round8(before / 2), "hswish"))
    return BlockSpace(
        name=family, stem=(Conv(3, 16, "hswish", 2),), blocks=blocks, tail=(tail, (Pool(),), head),
        resolution=resolution, classes=classes,
    )  # fmt: skip


def v4_like(*, resolution: int = 224, classes: int = 1000) -> BlockSpace:
    """A space around V4-Conv-S, which lies in it.

    Every block chooses which of the universal inverted bottlenecks it is, its kernels and expansion;
    those with stride 2 also the width of their stage, half to 1.25 times V4's, which later blocks keep;
    two blocks have one layer fewer, as many or one more. The convs after the last are as wide as V4's
    or half.
    """
    strided = ("mbconv3", "mbconv6", "extradw3", "extradw6", "convnext3", "convnext6")
    inside = ("mbconv2", "mbconv3", "mbconv4", "extradw4", "convnext4", "ffn2", "ffn4")
    around = (0.5, 0.75, 1, 1.25)
    blocks = [
        Block(stride=stride, op=("conv",), kernel=(kernel,), out=_around(out, around), layers=(1,))
        for kernel, stride, out in ((3, 2, 32), (1, 1, 32), (3, 2, 96), (1, 1, 64))
    ]
    for out, depths in ((96, (4, 1)), (128, (1, 1, 1, 2))):
        how: dict[str, Any] = {"kernel": (3, 5), "start": (3, 5)}
        blocks.append(Block(stride=2, op=strided, out=_around(out, around), layers=(1,), **how))
        blocks += [
            Block(stride=1, op=inside, out=(0,), layers=_depths(n) if n > 1 else (1,), **how)
            for n in depths
        ]
    tail = (Conv(1, 960, "relu"), Conv(1, 480, "relu"))
    head = (Conv(1, 1280, "relu"), Conv(1, 640, "relu"))
    return BlockSpace(
        name="v4-like", stem=(Conv(3, 32, "relu", 2),), blocks=tuple(blocks),
        tail=(tail, (Pool(),), head), resolution=resolution, classes=classes,
    )  # fmt: skip


NAMED: dict[str, Callable[[], BlockSpace]] = {
    "mnasnet": mnasnet,
    "v3-large": partial(v3, "v3-large"),
    "v3-small": partial(v3, "v3-small"),
    "v4-like": v4_like,
}


def space(
    name: str | Path, *, resolution: int | None = None, classes: int | None = None
) -> BlockSpace:
    """What a person writes where a space is wanted: a name of `NAMED`, or a yaml file.

    Raises:
        SpaceError: no such space or file, or a file that holds no space.
    """
    if str(name) in NAMED:
        found = NAMED[str(name)]()
    elif Path(name).suffix in (".yaml", ".yml"):
        found = load_space(Path(name))
    else:
        raise SpaceError(
            f"there is no space {str(name)!r}; known are {', '.join(NAMED)}, or name a .yaml file"
        )
    sizes: dict[str, Any] = {"resolution": resolution, "classes": classes}
    return replace(found, **{key: size for key, size in sizes.items() if size is not None})


def load_space(path: Path) -> BlockSpace:
    """Read a space from a yaml file; docs/how-to/own-space.md has an example.

    Raises:
        SpaceError: no such file, or what it holds is no space; the file and the place are named.
    """
    try:
        return space_from_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not utf-8 text"
        raise SpaceError(f"{path} cannot be read: {reason}") from None
    except (SpaceError, SpecError) as error:
        raise SpaceError(f"{path}: {error}") from None


def space_from_text(text: str) -> BlockSpace:
    """The space that a yaml text holds: where a list stands, its entries are options.

    Raises:
        SpaceError: not yaml, an unknown or missing key, an option that cannot be.
    """
    try:
        data = yaml.safe_load(text)
    except Exception:  # a date that cannot be is a plain ValueError
        data = None
    if not isinstance(data, dict) or data.pop("space", None) != FORMAT:
        raise SpaceError(f"the text is no space; a space is yaml and begins with 'space: {FORMAT}'")
    _check_keys(data, (*_NEEDED, *_HEADER), _NEEDED, "the space")
    if not isinstance(data["blocks"], list) or not isinstance(data["tail"], list):
        raise SpaceError("blocks and tail must be lists, with one '- {...}' an entry")
    stem = _rows(data["stem"], "stem")
    if not all(isinstance(row, Conv) for row in stem):
        raise SpaceError("the stem must be a conv")
    return BlockSpace(
        name=str(data["name"]),
        stem=stem,  # type: ignore[arg-type]
        blocks=tuple(_block(i, block) for i, block in enumerate(data["blocks"])),
        tail=tuple(_rows(row, f"tail{i}") for i, row in enumerate(data["tail"])),
        **{key: data[key] for key in _HEADER if key in data},
    )


def _block(index: int, data: object) -> Block:
    where = f"block{index}"
    if not isinstance(data, dict):
        raise SpaceError(f"{where} is {data!r}; it must be {{stride: ..., op: ..., ...}}")
    needed = [f.name for f in fields(Block) if f.default is MISSING]
    _check_keys(data, ("stride", *FIELDS), needed, where)
    values = {key: tuple(_list(value)) for key, value in data.items() if key != "stride"}
    return Block(stride=data["stride"], **values)


def _rows(data: object, where: str) -> tuple[Row, ...]:
    """The alternatives of one row: every combination of the entries of its lists."""
    if not isinstance(data, dict) or data.get("op") not in ("conv", "pool"):
        raise SpaceError(f"{where} is {data!r}; it must be {{op: conv, ...}} or {{op: pool}}")
    kind = ROW_KINDS[data["op"]]
    values = {key: _list(value) for key, value in data.items() if key != "op"}
    known = [f.name for f in fields(kind)]
    _check_keys(values, known, [f.name for f in fields(kind) if f.default is MISSING], where)
    if empty := [key for key, options in values.items() if not options]:
        raise SpaceError(f"the choice {where}.{empty[0]} has no options; give at least one")
    try:
        return tuple(
            kind(**dict(zip(values, picked, strict=True))) for picked in product(*values.values())
        )
    except SpecError as error:
        raise SpaceError(f"{where}: {error}") from None


def _check_keys(data: dict[str, Any], known: Any, needed: Any, where: str) -> None:
    if unknown := [str(key) for key in data if key not in known]:
        raise SpaceError(f"{where} has an unknown key {unknown[0]!r}; known are {', '.join(known)}")
    if missing := [key for key in needed if key not in data]:
        raise SpaceError(f"{where} lacks {', '.join(missing)}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _around(out: int, multiples: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(round8(out * multiple) for multiple in multiples))


def _depths(layers: int) -> tuple[int, ...]:
    return tuple(n for n in (layers - 1, layers, layers + 1) if n >= 1)
