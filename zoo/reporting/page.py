"""The page itself: one HTML file that needs nothing besides itself, and that runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from zoo.reporting import chart

if TYPE_CHECKING:
    from jinja2 import Template


def rendered(**told: Any) -> bytes:
    """Return the page as UTF-8; every value is escaped.

    Args:
        told: what the template names.
    """
    style, script = _file("report.css"), _file("report.js")
    box = {name.lower(): getattr(chart, name) for name in ("WIDTH", "HEIGHT", "LEFT", "RIGHT", "TOP", "BOTTOM")}
    text = _template().render(**told, box=box, style=style, script=script, hashes=[_hash(style), _hash(script)])
    # Half a surrogate pair, which JSON can hold, is no character.
    return text.encode("utf-8", "replace")


def _hash(text: str) -> str:
    """Return how a content security policy names a script or a style that it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _file(name: str) -> str:
    return (files("zoo") / "reporting" / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    # What an expression yields is escaped, so that no value can be forgotten; only files of this package are not.
    places = PackageLoader("zoo", "reporting")
    environment = Environment(
        loader=places, undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["own"] = Markup
    return environment.get_template("report.html.jinja")
