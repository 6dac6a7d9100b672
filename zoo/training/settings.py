"""Values for a recipe's fields, as they come from Python or from the command line, checked for type and range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, InstanceOf, TypeAdapter, ValidationError

from zoo.errors import ConfigError
from zoo.recipe import Recipe
from zoo.schedules import Kind


def _possible(path: str | Path) -> str | Path:
    if "\0" in str(path):
        raise ValueError("a path holds no null byte")
    if not str(path):
        raise ValueError("give a folder for the run")
    return path


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
TYPES: dict[str, Any] = {
    "loss": str | None,
    "batch": Annotated[int, Field(ge=1, le=65_536)],
    "lr": Positive,
    "betas": tuple[Beta, Beta],
    "final_betas": tuple[Beta, Beta] | None,
    "eps": Positive,
    "anneal": Kind,
    "final_rate": Share,
    "lr_warmup_kimg": NotNegative,
    "ema_kimg": Positive,
    "ema_rampup": Positive | None,
    "clip_norm": Positive | None,
    "augment": tuple[str, ...],
    "augment_p": Share,
    "augment_ramp_kimg": NotNegative,
    "ada_target": Share | None,
    "ada_kimg": Positive,
    "ada_p": Share,
    "ada_ramp_kimg": NotNegative,
    "mirror": bool,
    "warmup_kimg": NotNegative,
}
ARGUMENTS: dict[str, Any] = {      # of `zoo.train`, taken as they are
    "kimg": Annotated[float, Field(ge=0.001)],      # one image
    "out": Annotated[str | Path, AfterValidator(_possible)],
    "seed": int,
    "recipe": InstanceOf[Recipe] | None,
    "settings": InstanceOf[Mapping[str, object]] | None,
    "add": Sequence[str],
    "precision": str | None,
    "accumulate": Annotated[int, Field(ge=1)],
    "compile": bool,
    "workers": Annotated[int, Field(ge=0, le=256)],
    "tick_kimg": Annotated[float, Field(ge=0.001)],
    "sample_kimg": Annotated[float, Field(ge=0.001)],
    "checkpoint_kimg": Annotated[float, Field(ge=0.001)],
    "keep": Annotated[int, Field(ge=1)],
    "patience": Annotated[int, Field(ge=1)],
    "hold_out": Annotated[int, Field(ge=0)] | None,
    "on_collapse": Literal["off", "warn", "stop", "rollback"],
    "track": Sequence[str],
}
ADAPTERS = {name: TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)) for name, kind in TYPES.items()}
STRICT = {
    name: TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False, strict=True)) for name, kind in ARGUMENTS.items()
}


def fitted(name: str, value: object) -> object:
    """Return a recipe setting's value in its own type.

    Raises:
        ConfigError: naming the setting, the value and what it should be.
    """
    if name == "augment" and (value is None or isinstance(value, str)):      # one part or none on the command line
        value = (value,) if value else ()
    return _validated(ADAPTERS[name], name, value)


def check_arguments(**given: object) -> None:
    """Refuse an argument of `zoo.train` of a wrong type or range; one that is not in `ARGUMENTS` passes.

    Raises:
        ConfigError: naming the argument, the value and what it should be.
    """
    for name, value in given.items():
        if name in STRICT:
            _validated(STRICT[name], name, value)


def _validated(adapter: TypeAdapter[Any], name: str, value: object) -> object:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name}={str(value)[:100]!r}: {message}.") from error
