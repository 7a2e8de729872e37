"""Options of a command that come from the options' dataclasses: those of every training, and each task's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from bneck.specs.errors import InputError
from bneck.tasks.options import TrainOptions, flag_of, of_command
from bneck.tasks.registry import tasks

Command = Callable[..., None]


def with_options(command: str) -> Callable[[Command], Command]:
    """Give a function with `**given` the options that a command takes; `given` has those that were used.

    An option of several tasks appears once, with the help of each.
    """

    def decorate(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        fixed = [
            one.replace(annotation=hints[one.name])
            for one in signature.parameters.values()
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        made = _parameters(command, {one.name for one in fixed})
        last = [one for one in fixed if one.name == "as_json"]
        parameters = [one for one in fixed if one.name != "as_json"] + made + last

        def called(**values: Any) -> None:
            own = {name: _used(values.pop(name)) for name in [one.name for one in made]}
            function(**values, **own)

        called.__name__, called.__doc__ = function.__name__, function.__doc__
        called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
        return called

    return decorate


def _parameters(command: str, taken: set[str]) -> list[inspect.Parameter]:
    found: dict[str, list[tuple[Field[Any], Any]]] = {}
    kinds: list[type[Any]] = [TrainOptions, *(task.Options for task in tasks())]
    for kind in kinds:
        types = get_type_hints(kind)
        for one in of_command(kind, command):
            if one.name not in taken:
                found.setdefault(one.name, []).append((one, types[one.name]))
    return [_parameter(fields) for fields in found.values()]


def _parameter(fields: list[tuple[Field[Any], Any]]) -> inspect.Parameter:
    first = fields[0][0]
    types = {_plain(hint) for _, hint in fields}
    plain = types.pop() if len(types) == 1 else str
    helps = dict.fromkeys(one.metadata["help"] for one, _ in fields)
    option = typer.Option(flag_of(first), help=" ".join(helps))
    kind: Any = plain if plain is bool else plain | None
    return inspect.Parameter(
        first.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=False if plain is bool else None,
        annotation=Annotated[kind, option],
    )


def _plain(hint: Any) -> Any:
    """The type of an option on the command line."""
    if hint is Any:
        return str
    inner = [one for one in get_args(hint) if one is not type(None)]
    if get_origin(hint) is tuple:
        return list[inner[0]]  # type: ignore[valid-type]
    return inner[0] if inner else hint


def _used(value: Any) -> Any:
    return None if value is False or value == [] else value


def alone(resume: Any, given: Mapping[str, Any]) -> None:
    """Raise InputError where something was given next to --resume, which goes by the run's own settings."""
    used = [
        f"--{name.replace('_', '-')}" for name, value in given.items() if _used(value) is not None
    ]
    if resume is not None and used:
        raise InputError(
            f"{', '.join(used)} cannot be changed by --resume, which continues {resume} with its own settings; "
            "leave it out, or start a new run"
        )
