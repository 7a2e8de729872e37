"""Options as dataclass fields: one definition for the command line, Python, run.json and the docs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from bneck.specs.errors import InputError
from bneck.specs.network import MOST_RESOLUTION

if TYPE_CHECKING:
    from bneck.tasks.contract import Task

Size = tuple[int, int]
Keep = Literal["fisher", "l2"]
KEEPS: tuple[str, ...] = get_args(Keep)


def option(
    default: Any,
    help: str,
    *commands: str,
    flag: str | None = None,
    helps: Mapping[str, str] | None = None,
    **elsewhere: Any,
) -> Any:
    """A field of an options dataclass.

    Args:
        default: its value where nothing was given.
        help: one line: a noun or verb, unit, scope.
        commands: which commands take it, as in "train", "search".
        flag: its name on the command line where that is not the field's own.
        helps: commands by name with another help.
        elsewhere: commands by name with another default.
    """
    known = {
        "help": help, "helps": helps or {}, "commands": commands, "flag": flag, "elsewhere": elsewhere,
    }  # fmt: skip
    return field(default=default, metadata=known)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What every training may be told, whatever its task; None takes the recipe's value."""

    start: str | None = option(
        None,
        "Weights to start from: a run, an import, a file of published weights, or a name on the hub "
        "(timm/NAME.TAG, hf:ORG/REPO; bneck import --list).",
        "train",
        flag="--from",
    )
    keep: str | None = option(
        None,
        "Which channels of wider --from weights stay: fisher (by importance on at most 1,000 training images; "
        "default) or l2 (by L2 norm).",
        "train",
    )
    teacher: str | None = option(
        None, "A trained network of the same task to distill from: a run or an import.", "train"
    )
    recipe: str | None = option(
        None,
        "Training recipe: small-data, finetune (default with --from), paper, imagenet.",
        "train",
    )
    frozen: bool = option(False, "Freeze the backbone and train only the layers after it.", "train")
    epochs: float | None = option(None, "Epochs of training; default the recipe's.", "train")
    batch: int | None = option(None, "Images per step; default the recipe's.", "train")
    lr: float | None = option(None, "Peak learning rate; default the recipe's.", "train")
    changes: tuple[str, ...] = option(
        (), "Set a field of the recipe: FIELD=VALUE, as in precision=bf16.", "train", flag="--set"
    )
    stream: bool = option(False, "Decode images in every epoch instead of caching them.", "train")
    bad_share: float = option(
        0.01, "Fraction of the images that may be unreadable.", "train", "search"
    )
    compute: str | None = option(
        None,
        "Where to train: cpu, cuda or cuda:1; default a GPU if there is one.",
        "train",
        "search",
    )
    seed: int = option(0, "Seed of everything random.", "train")

    def check(self) -> None:
        """Raise InputError for a value that cannot be."""
        above = (("epochs", self.epochs), ("lr", self.lr))
        for name, value in above:
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} is {value}; it must be a number above 0")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch is {self.batch}; it must be at least 1")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it must be at least 0 and below 2^32")
        if not 0 <= self.bad_share <= 1:
            raise InputError(f"bad_share is {self.bad_share}; it must be a fraction from 0 to 1")
        if self.frozen and self.start is None:
            raise InputError("--frozen needs trained weights; add --from PATH or remove --frozen")
        if self.keep is not None and self.keep not in KEEPS:
            raise InputError(f"keep is {self.keep!r}; it must be {' or '.join(KEEPS)}")
        if self.keep is not None and self.start is None:
            raise InputError(
                "--keep says which channels of trained weights stay; add --from PATH or remove --keep"
            )


def of_command(kind: type[Any], command: str) -> list[Field[Any]]:
    """The fields of an options dataclass that a command takes."""
    return [one for one in fields(kind) if command in one.metadata["commands"]]


def help_of(one: Field[Any], command: str) -> str:
    """What a command says of a field."""
    return str(one.metadata["helps"].get(command, one.metadata["help"]))


def flag_of(one: Field[Any]) -> str:
    """A field's name on the command line."""
    return one.metadata["flag"] or f"--{one.name.replace('_', '-')}"


def parted(
    task: Task, command: str, given: Mapping[str, Any], tasks: Iterable[Task]
) -> tuple[TrainOptions, Any]:
    """What was given to a command, as the options of every task and those of this one.

    A value of None, and one that was left out, takes the default.

    Raises:
        InputError: an option that nobody knows, that is another task's, another command's, or that
            this task refuses; the message says which.
    """
    said = {name: value for name, value in given.items() if value is not None}
    general = {one.name for one in of_command(TrainOptions, command)}
    own = {one.name for one in of_command(task.Options, command)}
    for name, value in said.items():
        if name in general and value and name in task.cannot:
            raise InputError(f"{_flag(TrainOptions, name)}: {task.cannot[name]}")
        if name not in general and name not in own:
            raise InputError(_foreign(name, task, command, tasks))
    said = {
        one.name: one.metadata["elsewhere"][command]
        for one in of_command(task.Options, command)
        if command in one.metadata["elsewhere"]
    } | said
    return _made(TrainOptions, said, general), _made(task.Options, said, own)


def _made(kind: type[Any], said: Mapping[str, Any], names: Iterable[str]) -> Any:
    hints = get_type_hints(kind)
    return kind(
        **{name: _typed(kind, name, hints[name], said[name]) for name in names if name in said}
    )


def _typed(kind: type[Any], name: str, hint: Any, value: Any) -> Any:
    """Text as a number or a number as text: one option may be names in one task, a number in another."""
    if isinstance(value, int) and get_args(hint) == (str, type(None)):
        return str(value)
    if isinstance(value, str) and int in (hint, *get_args(hint)) and str not in get_args(hint):
        if not re.fullmatch(r"-?\d+", value.strip()):
            raise InputError(f"{_flag(kind, name)} is {value!r}; it must be a whole number")
        return int(value)
    return _frozen(value)


def _foreign(name: str, task: Task, command: str, tasks: Iterable[Task]) -> str:
    """Why an option cannot be given here."""
    owners = [
        other for other in tasks if name in {f.name for f in of_command(other.Options, command)}
    ]
    if owners:
        flag = _flag(owners[0].Options, name)
        names = " or ".join(other.name for other in owners)
        return f"{flag} is an option of the task {names}, and this is {task.name}; leave it out"
    for kind in (TrainOptions, task.Options):
        for one in fields(kind):
            if one.name == name:
                commands = " and ".join(f"bneck {c}" for c in one.metadata["commands"])
                return f"{flag_of(one)} is an option of {commands}, not of bneck {command}; leave it out"
    known = sorted(
        {flag_of(f) for kind in (TrainOptions, task.Options) for f in of_command(kind, command)}
    )
    return f"bneck {command} has no option {name!r} for the task {task.name}; it has {', '.join(known)}"


def _flag(kind: type[Any], name: str) -> str:
    return next(flag_of(one) for one in fields(kind) if one.name == name)


def _frozen(value: Any) -> Any:
    """Lists as tuples and paths as text, as records and hashes need them."""
    if isinstance(value, list):
        return tuple(_frozen(v) for v in value)
    return str(value) if isinstance(value, Path) else value


def stored(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Options as a record holds them; fields that the record does not know take their default."""
    known = {one.name for one in fields(kind)}
    return kind(**{k: _frozen(v) for k, v in values.items() if k in known})


def parse_size(text: str) -> Size:
    """(height, width) of "512x1024" or "512".

    Raises:
        InputError: it is neither.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})(?:[xX]([1-9]\d{0,5}))?", text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a size; write HEIGHTxWIDTH in pixels, as in 512x1024")
    height, width = int(match[1]), int(match[2] or match[1])
    if height * width > MOST_RESOLUTION**2:
        raise InputError(
            f"a size of {text.strip()} has more pixels than {MOST_RESOLUTION} x {MOST_RESOLUTION}, the most "
            "that can be worked with; choose a smaller one"
        )
    return height, width


def sized(value: Any) -> Size | None:
    """A size as it was given: "512x1024", (512, 1024) or None.

    Raises:
        InputError: it is none of these.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return parse_size(value)
    if len(value) != 2 or not all(isinstance(v, int) and v >= 1 for v in value):
        raise InputError(f"{value!r} is not a size; give (height, width) in pixels")
    return int(value[0]), int(value[1])
