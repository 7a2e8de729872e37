"""The rows of a network: one line each of the paper's Tables 1 and 2, with final numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from bneck.specs.errors import InputError

Act: TypeAlias = Literal["linear", "relu", "relu6", "hswish"]
Skip: TypeAlias = Literal["auto", "yes", "no"]

ACTS: tuple[str, ...] = get_args(Act)
SKIPS: tuple[str, ...] = get_args(Skip)


class SpecError(InputError):
    """A spec that cannot be a network."""


@dataclass(frozen=True, slots=True)
class Conv:
    """conv2d, batch norm (or a bias where `bn` is false, the tables' NBN), nonlinearity."""

    kernel: int
    out: int
    act: Act
    stride: int = 1
    bn: bool = True
    op = "conv"

    def __post_init__(self) -> None:
        check_sizes(kernel=self.kernel, out=self.out, stride=self.stride)
        _check_shape(self.kernel, self.stride, self.act)
        if not isinstance(self.bn, bool):
            raise SpecError(f"bn is {self.bn!r}; it must be true or false")


@dataclass(frozen=True, slots=True)
class Bneck:
    """Expand 1x1, depthwise k x k, squeeze-and-excite, project 1x1, add (section 3, Fig. 4).

    `expanded` is the tables' "exp size": channels, never a ratio; where it equals the row's input
    there is no expand convolution. `se` is the squeeze width in channels, 0 for none. `skip` is
    "auto" (add when stride is 1 and input and output widths agree), "yes" or "no". `out_act` is the
    nonlinearity after the projection, which MobileNetV1 and LCNet have. A `fused` row expands by one
    full k x k convolution instead of the 1x1 and the depthwise one (the EdgeTPU networks).

    `start` is the kernel of a depthwise convolution before the expansion, with batch norm and no
    nonlinearity, 0 for none; `kernel` 0 leaves out the depthwise one after it. With both a row is any
    of MobileNetV4's universal inverted bottlenecks. The stride is the later depthwise one's, the
    dilation that of both.
    """

    kernel: int
    expanded: int
    out: int
    se: int
    act: Act
    stride: int = 1
    dilation: int = 1
    skip: Skip = "auto"
    out_act: Act = "linear"
    fused: bool = False
    start: int = 0
    op = "bneck"

    def __post_init__(self) -> None:
        sizes = {"kernel": self.kernel, "start": self.start}
        kernels = {name: size for name, size in sizes.items() if size or type(size) is not int}
        check_sizes(
            **kernels, expanded=self.expanded, out=self.out, stride=self.stride,
            dilation=self.dilation,
        )  # fmt: skip
        if not isinstance(self.se, int) or isinstance(self.se, bool) or self.se < 0:
            raise SpecError(
                f"se is {self.se!r}; it must be a squeeze width in channels, 0 for none"
            )
        for kind, size in (kernels or {"kernel": 1}).items():
            _check_shape(size, self.stride, self.act, kind)
        self._check_depthwise(bool(kernels))
        if self.skip not in SKIPS:
            raise SpecError(f"skip is {self.skip!r}; allowed are {', '.join(SKIPS)}")
        if self.out_act not in ACTS:
            raise SpecError(f"out_act is {self.out_act!r}; allowed are {', '.join(ACTS)}")
        if not isinstance(self.fused, bool):
            raise SpecError(f"fused is {self.fused!r}; it must be true or false")

    def _check_depthwise(self, there: bool) -> None:
        if self.stride > 1 and not there:
            raise SpecError(
                f"stride is {self.stride}, and with kernel 0 and start 0 there is no depthwise convolution "
                "that could have it; give one of them a size, or stride 1"
            )
        if self.fused and (self.start or not self.kernel):
            raise SpecError(
                f"the row is fused, with kernel {self.kernel} and start {self.start}; a fused row has a kernel "
                "of at least 1 and start 0"
            )

    @property
    def needs_expansion(self) -> bool:
        """Whether it is no row without an expand convolution: one with a start, or no kernel."""
        return bool(self.start) or not self.kernel

    @property
    def kernels(self) -> str:
        """The kernels of its depthwise convolutions as tables print them: "5", with a start "3+5"."""
        return f"{self.start}+{self.kernel}" if self.start else str(self.kernel)


@dataclass(frozen=True, slots=True)
class Pool:
    """Global average pool. Rows after it work on a 1 x 1 map and make up the head."""

    op = "pool"


Row: TypeAlias = Conv | Bneck | Pool
ROW_KINDS: dict[str, type[Row]] = {kind.op: kind for kind in (Conv, Bneck, Pool)}


def operator_words(row: Conv | Bneck) -> str:
    """A row's operator in words: "conv 1x1", "bneck 5x5", "bneck start 3x3, 5x5"."""
    start = [f"start {row.start}x{row.start}"] if isinstance(row, Bneck) and row.start else []
    sides = start + [f"{row.kernel}x{row.kernel}"] * (row.kernel > 0)
    return f"{row.op} {', '.join(sides) or 'without depthwise'}"


def round8(value: float) -> int:
    """The nearest multiple of 8, at least 8, never below 0.9 of `value`.

    >>> round8(72 / 4), round8(120 / 4), round8(11)
    (24, 32, 16)
    """
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def squeeze_width(expanded: int) -> int:
    """Squeeze width of a row: a quarter of the expansion, rounded to 8 (section 5.3)."""
    return round8(expanded / 4)


def squeeze_of_input(width_in: int) -> int:
    """MnasNet's squeeze width: a quarter of the row's input, not rounded."""
    return max(1, width_in // 4)


def check_sizes(**sizes: object) -> None:
    """Raise SpecError for the first that is not a whole number of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise SpecError(f"{name} is {size!r}; it must be a whole number of at least 1")


def _check_shape(kernel: int, stride: int, act: str, kind: str = "kernel") -> None:
    if kernel % 2 == 0:
        raise SpecError(f"{kind} is {kernel}; it must be odd, or input and output do not line up")
    if stride not in (1, 2):
        raise SpecError(f"stride is {stride}; it must be 1 or 2")
    if act not in ACTS:
        raise SpecError(f"act is {act!r}; allowed are {', '.join(ACTS)}")
