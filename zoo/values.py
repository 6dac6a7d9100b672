"""Values as a user writes them on a command line."""

from __future__ import annotations

_WORDS: dict[str, object] = {"true": True, "false": False, "none": None}


def parse(text: str) -> object:
    """Return true, false, none, a number, a quoted or plain text, or a tuple of these where there are commas."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    if "," in text:
        return tuple(parse(part.strip()) for part in text.split(",") if part.strip())
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def written(value: object) -> str:
    """Return a value as `parse` reads it."""
    if isinstance(value, tuple | list):
        return ",".join(written(part) for part in value) + ("," if len(value) == 1 else "")
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
