"""``zoo list``: the architectures and weights that are known here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.output import Json, columns, document

if TYPE_CHECKING:
    from zoo.plugin import Weights


def list_models(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="Shell wildcards over ARCH.TAG, or ARCH.")] = "*",
    json: Json = False,
) -> None:
    """List architectures and their weights; the starred ones are what a bare ARCH stands for."""
    from zoo.cli.quiet import printable, say
    from zoo.registry import plugins

    found = rows(pattern)
    if json:
        document(found)
    elif not found:
        say(f"no name matches {printable(pattern)!r}: `zoo list` shows all; wildcards find parts of one, '*cat*'.")
    else:
        columns([_cells(row) for row in found], ("NAME", "PIXELS", "SIZE", "HERE", "LICENSE", "WHAT IT IS"))
    for record in plugins():
        if record.status == "failed":
            say(f"plugin {record.name} ({record.source}): {record.reason}")


def rows(pattern: str = "*") -> list[dict[str, Any]]:
    """Return one row for each set of weights, and one for each architecture that has none."""
    from fnmatch import fnmatchcase

    from zoo.registry import architectures, list_models

    found = []
    known = set(list_models(pattern))
    for name, architecture in sorted(architectures().items()):
        facts = {"architecture": name, "about": architecture.summary, "paper": architecture.paper}
        for tag, weights in sorted(architecture.weights.items()):
            if f"{name}.{tag}" in known:
                mine = {"tag": tag, "default": tag == architecture.default, "summary": weights.summary}
                more = {"license": weights.license, "resolution": weights.resolution, "data": weights.data}
                place = {"repo": weights.repo, "files": list(weights.files), **_held(f"{name}.{tag}", weights)}
                paper = {"paper": weights.paper} if weights.paper else {}
                found.append({"name": f"{name}.{tag}", **facts, **mine, **more, **place, **paper})
        if not architecture.weights and fnmatchcase(name, pattern):
            found.append({"name": name, **facts, "tag": None, "summary": architecture.summary})
    return found


def _held(name: str, weights: Weights) -> dict[str, Any]:
    """Return whether weights are on this machine, and how many bytes they have, here or to download."""
    from zoo.loading import bundled, held

    folder = bundled(weights.bundled) if weights.bundled else held(name, weights)
    path = folder / "model.safetensors" if folder is not None else None
    here = path is not None and path.is_file()
    return {"cached": here, "bytes": path.stat().st_size if path is not None and here else weights.size}


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    star = " *" if row.get("default") else ""
    what = row["summary"] if row["tag"] else f"{row['about']} (no weights: zoo train {row['name']})"
    size = f"{row['bytes'] / 1e6:.{0 if row['bytes'] >= 1e7 else 1}f} MB" if row.get("bytes") else ""
    here = "yes" if row.get("cached") else ""
    return row["name"] + star, row.get("resolution") or "", size, here, row.get("license", ""), what
