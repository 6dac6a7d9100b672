"""Values for a recipe's fields, as they come from Python or from the command line, checked for type and range."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from zoo.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
TYPES: dict[str, Any] = {
    "batch": Annotated[int, Field(ge=1)],
    "lr": Positive,
    "betas": tuple[Beta, Beta],
    "eps": Positive,
    "anneal": Literal["constant", "linear", "cosine"],
    "final_rate": Share,
    "ema_kimg": Positive,
    "ema_rampup": Positive | None,
    "clip_norm": Positive | None,
    "augment": tuple[str, ...],
    "mirror": bool,
}
ADAPTERS = {name: TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)) for name, kind in TYPES.items()}


def fitted(name: str, value: object) -> object:
    """Return a recipe setting's value in its own type.

    Raises:
        ConfigError: naming the setting, the value and what it should be.
    """
    if name == "augment" and (value is None or isinstance(value, str)):      # one part or none on the command line
        value = (value,) if value else ()
    try:
        return ADAPTERS[name].validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{name}={value!r}: {error.errors()[0]['msg']}.") from error
