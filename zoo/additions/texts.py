"""``NAME:option=value,option=value``: how additions and transfer methods are written, and their options checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from zoo.errors import ConfigError, suggest
from zoo.values import parse, written

T = TypeVar("T")


def parsed(text: str) -> tuple[str, dict[str, object]]:
    """Return the name and the options of ``NAME`` or ``NAME:option=value,option=value``.

    Raises:
        ConfigError: it is not written so, or an option is given twice.
    """
    name, colon, rest = str(text).strip().partition(":")
    given: dict[str, object] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.strip().partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"{text!r}: write NAME or NAME:option=value,option=value, such as r1:gamma=1.")
        if key in given:
            raise ConfigError(f"{text!r} gives {key} twice: keep one of them.")
        given[key] = parse(value)
    return name, given


def shown(name: str, options: Mapping[str, object]) -> str:
    """Return what `parsed` reads as this name with these options."""
    return f"{name}:{','.join(f'{key}={written(value)}' for key, value in options.items())}" if options else name


def options(function: Callable[..., object]) -> dict[str, object]:
    """Return name -> default of the options that a function takes: its keyword-only parameters."""
    parameters = signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is Parameter.KEYWORD_ONLY}


def completed(function: Callable[..., object], given: Mapping[str, object], what: str) -> dict[str, Any]:
    """Return all options of a function, those given checked by its annotations, the others with their defaults.

    Args:
        what: whose options they are, for the message.

    Raises:
        ConfigError: an option that it has not, or a value of the wrong type or range.
    """
    possible = options(function)
    kinds = get_type_hints(function, include_extras=True) if given else {}
    values = dict[str, Any](possible)
    for name, value in given.items():
        if name not in possible:
            known = ", ".join(f"{key}={written(default)}" for key, default in possible.items()) or "none"
            raise ConfigError(f"{what} has no option {name!r}.{suggest(name, list(possible))} Options: {known}.")
        try:
            values[name] = TypeAdapter(kinds[name], config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{what}: {name}={str(value)[:60]}: {error.errors()[0]['msg']}.") from error
    return values
