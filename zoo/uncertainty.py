"""Values and their standard errors, which stand beside them under names of their own: ``kid`` and ``kid_std_error``."""

from __future__ import annotations

from collections.abc import Mapping

STD_ERROR = "_std_error"      # what the name of a value's standard error ends with


def with_errors(values: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Return (name, value, standard error or None) of every value that is no other one's standard error."""
    errors = {name + STD_ERROR for name in values}
    return [(name, value, values.get(name + STD_ERROR)) for name, value in values.items() if name not in errors]


def rounded(value: float, error: float | None) -> str:
    """Return a value with as many digits as its standard error leaves it, and that error."""
    if error is None or not error > 0:
        return f"{value:.6g}"
    decimals = 1 - int(f"{error:e}".partition("e")[2])      # two digits of the error
    if 0 <= decimals <= 9:
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"
    return f"{value:.6g} ± {error:.2g}"
