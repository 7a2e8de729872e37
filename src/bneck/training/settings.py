"""How to train, as a value: what a recipe fills in, what --set changes, what run.json keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from bneck.data.vary import Augment
from bneck.specs.errors import InputError
from bneck.training.optim import Decayed, Schedule

if TYPE_CHECKING:
    from bneck.training.processes import ProcessGroup

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class TrainingError(InputError):
    """Training that cannot go on; the message gives the step, the rate and what to change."""


class Diverged(TrainingError):
    """A loss that is NaN, infinite or ran away. `what` is the message without its advice."""

    def __init__(self, what: str, advice: str | None = None) -> None:
        super().__init__(what if advice is None else f"{what}; {advice}")
        self.what = what


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. `batch` is that of all processes, `lr` the peak for it; epochs may be fractional.

    `frozen` trains the convs after the pool and the classifier only; the rows before keep weights
    and statistics. `backbone_rate` is the learning rate of those rows, as a share of `lr`.
    `sgd_momentum` trains by SGD with that momentum instead of RMSProp. `decayed` is what L2 pulls at,
    see `training.optim.grouped`. A batch is computed in `accumulate` pieces, whose gradients are added
    up; batch norm sees a piece, or that piece of all processes with `sync_bn`. `precision` "bf16"
    computes in bfloat16 where that is exact enough. `teach` is the fraction of the loss that comes
    from a teacher's outputs, softened by `temperature`; both need a teacher.
    """

    epochs: float
    batch: int
    lr: float
    schedule: Schedule = "cosine"
    warmup: float = 1.0
    weight_decay: float = 1e-5
    decayed: Decayed = "full"
    smoothing: float = 0.1
    average: float = 0.9999
    bn_momentum: float | None = None
    augment: Augment = field(default_factory=Augment)
    seed: int = 0
    frozen: bool = False
    backbone_rate: float = 1.0
    sgd_momentum: float | None = None
    accumulate: int = 1
    precision: Precision = "fp32"
    compile: bool = False
    sync_bn: bool = False
    teach: float = 0.7
    temperature: float = 2.0

    def check(self, group: ProcessGroup) -> None:
        """Raise TrainingError for a batch that a group cannot share out evenly."""
        parts = self.accumulate * group.size
        if self.accumulate < 1:
            raise TrainingError(f"accumulate is {self.accumulate}; it must be at least 1")
        if parts > 1 and (self.batch % parts or self.batch < 2 * parts):
            raise TrainingError(
                f"the batch of {self.batch} is not {parts} equal pieces of two or more images "
                f"({group.size} processes, {self.accumulate} pieces each); choose a multiple of {parts}"
            )


def stored_settings(stored: dict[str, Any]) -> Settings:
    """Settings as a run's record holds them."""
    augment: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored["augment"].items()
    }
    return Settings(**{**stored, "augment": Augment(**augment)})


def changed(settings: Settings, changes: Sequence[str]) -> Settings:
    """Settings with some of their values, or of their `augment`'s, set by FIELD=VALUE.

    Raises:
        InputError: no such field, or a value that cannot be one of it.
    """
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in SETTABLE:
            raise InputError(
                f"{change!r} cannot be set; give FIELD=VALUE with one of {', '.join(SETTABLE)}"
            )
        if name in _AUGMENT:
            value = _parsed(name, text, getattr(settings.augment, name))
            settings = replace(settings, augment=replace(settings.augment, **{name: value}))
        else:
            settings = replace(settings, **{name: _parsed(name, text, getattr(settings, name))})
    _check(settings)
    return settings


def _parsed(name: str, text: str, now: Any) -> Any:
    if text == "none" and name in ("bn_momentum", "sgd_momentum"):
        return None
    parsers: dict[type, tuple[Callable[[str], Any], str]] = {
        bool: ({"true": True, "false": False}.__getitem__, "true or false"),
        int: (int, "a whole number"),
        tuple: (_pair, "two numbers, as 0.08,1"),
        str: (str, "text"),
    }
    parse, wanted = parsers.get(type(now), (float, "a number"))
    try:
        return parse(text)
    except (ValueError, KeyError):
        raise InputError(f"{name} is {text!r}; it must be {wanted}") from None


def _pair(text: str) -> tuple[float, float]:
    low, high = map(float, text.split(","))
    return low, high


def _check(settings: Settings) -> None:
    named = {"schedule": get_args(Schedule), "decayed": get_args(Decayed), "precision": PRECISIONS}
    for name, allowed in named.items():
        if (value := getattr(settings, name)) not in allowed:
            raise InputError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    for name, most in (
        ("warmup", 1e6), ("weight_decay", 1.0), ("smoothing", 0.99), ("average", 1.0), ("teach", 1.0),
        ("backbone_rate", 100.0),
        ("bn_momentum", 1.0), ("sgd_momentum", 0.999), ("temperature", 1e3), ("accumulate", 1e4),
    ):  # fmt: skip
        value = getattr(settings, name)
        if value is not None and not 0 <= value <= most:
            raise InputError(f"{name} is {value}; it must be from 0 to {most:g}")
    if not settings.temperature or not settings.accumulate:
        raise InputError("temperature and accumulate must be above 0")


_AUGMENT = tuple(field.name for field in fields(Augment))
# What has an option of its own is not set twice.
_OWN = ("epochs", "batch", "lr", "seed", "frozen", "augment")
SETTABLE = (*(field.name for field in fields(Settings) if field.name not in _OWN), *_AUGMENT)
