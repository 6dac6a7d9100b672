"""Values as Markdown text: whatever they hold, they stay text."""

from __future__ import annotations

import re


class Ready(str):
    """Text that is Markdown already and is not escaped again."""


def escape(value: object) -> str:
    """Return a value as one line of Markdown: nothing in it is markup, HTML, the end of a table cell or a new block."""
    if isinstance(value, Ready):
        return value
    line = " ".join("" if value is None else str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", line)


def code(value: object) -> Ready:
    """Return a value as a code span that its content cannot end, fit for a table cell."""
    line = " ".join(str(value).split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return Ready(f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|"))
