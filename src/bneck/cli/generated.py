"""Options of a command that come from dataclasses: its own, those of every training, each task's."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, fields
from os.path import commonprefix
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from bneck.specs.errors import InputError
from bneck.tasks.options import TrainOptions, flag_of, help_of, of_command, option
from bneck.tasks.registry import tasks

Command = Callable[..., None]
CONTEXT = inspect.Parameter(
    "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTools:
    """What a command that takes --device also takes: tools for devices that only the user can supply."""

    benchmark_model: Path | None = option(
        None, "For adb: TensorFlow Lite's benchmark_model for the phone; or BNECK_BENCHMARK_MODEL."
    )
    onnxruntime_web: Path | None = option(
        None, "For browser: the folder of the npm package; or BNECK_ONNXRUNTIME_WEB."
    )


def with_options(command: str, own: type[Any] | None = None) -> Callable[[Command], Command]:
    """Give a function with `**given` the options that a command takes; `given` has those that were used.

    Those of the dataclass `own` show their defaults. An option of several tasks appears once.
    """

    def decorate(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        fixed = [
            one.replace(annotation=hints[one.name])
            for one in signature.parameters.values()
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        made = _parameters(command, own, {one.name for one in fixed})
        # --json comes last in the help of every command.
        parameters = sorted([*fixed, *made], key=lambda one: one.name == "as_json")
        usual = {one.name for one in made}

        def called(context: typer.Context, **values: Any) -> None:
            used = {
                name: v
                for name, v in values.items()
                if name not in usual or _said(context.get_parameter_source(name))
            }
            for one in fields(DeviceTools):
                if one.name in usual and one.name in used:  # the environment is where devices look
                    os.environ[f"BNECK_{one.name.upper()}"] = str(used.pop(one.name))
            function(**used)

        # Typer reads the options from the signature and the annotations, the help from the docstring.
        called.__name__, called.__doc__ = function.__name__, function.__doc__
        called.__signature__ = signature.replace(parameters=[CONTEXT, *parameters])  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in (CONTEXT, *parameters)} | {
            "return": None
        }
        return called

    return decorate


def _parameters(command: str, own: type[Any] | None, taken: set[str]) -> list[inspect.Parameter]:
    mine = fields(own) if own else ()
    kinds: list[tuple[Any, Iterable[Field[Any]]]] = [(own, mine)] if own else []
    if "device" in taken.union(one.name for one in mine):
        kinds.append((DeviceTools, fields(DeviceTools)))
    others: list[type[Any]] = [TrainOptions, *(task.Options for task in tasks())]
    kinds += [(kind, of_command(kind, command)) for kind in others]
    found: dict[str, list[tuple[Field[Any], Any]]] = {}
    for kind, members in kinds:
        types = get_type_hints(kind)
        for one in members:
            if one.name not in taken:
                found.setdefault(one.name, []).append((one, types[one.name]))
    shown = {one.name: one.default for one in mine if one.default != ()}
    return [_parameter(command, same, shown.get(name)) for name, same in found.items()]


def _parameter(command: str, same: list[tuple[Field[Any], Any]], default: Any) -> inspect.Parameter:
    first = same[0][0]
    types = {_plain(hint) for _, hint in same}
    plain = types.pop() if len(types) == 1 else str
    helps = list(dict.fromkeys(help_of(one, command) for one, _ in same))
    if plain is bool and default is None:
        default = False
    kind: Any = plain | None if default is None else plain
    return inspect.Parameter(
        first.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default,
        annotation=Annotated[kind, typer.Option(flag_of(first), help=_joined(helps))],
    )  # fmt: skip


def _joined(helps: list[str]) -> str:
    """What the tasks say of one option, with the words that they share said once."""
    shared = commonprefix(helps)  # noqa: RUF071 - of letters, then cut back to a whole clause
    shared = shared[: max(shared.rfind(", "), shared.rfind("; ")) + 2]
    if len(helps) == 1 or len(shared) < 2:
        return " ".join(helps)
    return shared + " or ".join(one[len(shared) :].rstrip(".") for one in helps) + "."


def _plain(hint: Any) -> Any:
    """The type of an option on the command line."""
    if hint is Any:
        return str
    inner = [one for one in get_args(hint) if one is not type(None)]
    if get_origin(hint) is tuple:
        return list[inner[0]]  # type: ignore[valid-type]
    return inner[0] if inner else hint


def _said(source: Any) -> bool:
    """Whether an option was given, also where that is its default."""
    return source is not None and source.name == "COMMANDLINE"


def together(option: str, given: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise InputError where one of `names` was given without the option that it goes with."""
    lost = [f"--{name.replace('_', '-')}" for name in names if name in given]
    if lost:
        raise InputError(f"{', '.join(lost)} goes with {option}; add {option} or leave it out")


def alone(resume: Any, given: Mapping[str, Any]) -> None:
    """Raise InputError where something was given next to --resume, which goes by the run's own settings."""
    used = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if used:
        raise InputError(
            f"{', '.join(used)} cannot be changed by --resume, which continues {resume} with its own settings; "
            "leave it out, or start a new run"
        )
