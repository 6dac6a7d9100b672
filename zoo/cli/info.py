"""``zoo info``: the facts about one architecture or model, without loading it."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any

from zoo.cli.output import Json, columns, document
from zoo.cli.target import Name, Parent
from zoo.errors import UnknownName, WeightsError
from zoo.loading import bundled

HEADER_LIMIT = 100_000_000            # bytes; the safetensors format's own limit


def info(name: Name, parent: Parent = None, json: Json = False) -> None:
    """Show what is known about a model: paper, licence, data, configuration, number of parameters."""
    from zoo.cli.quiet import printable

    facts = _facts(name, parent)
    if json:
        document(facts)
        return
    told = {**facts, "parameters": _millions(facts.get("parameters", {}))}
    rows = [(key, printable(_plain(value))) for key, value in told.items() if value not in (None, "", [], (), {})]
    columns(rows[1:], rows[0])


def _facts(name: str, parent: str | None) -> dict[str, Any]:
    kind, colon, place = name.partition(":")
    if not colon:
        return _registered(name)
    if kind == "dir":
        return {"name": name, **_checked(Path(place), parent)}
    if kind == "hub":
        from zoo.hub import fetch

        fetched = fetch(place)
        return {"name": name, "commit": fetched.commit, **_checked(fetched.directory, parent)}
    raise UnknownName(f"{name!r} begins with no known source: write ARCH, ARCH.TAG, hub:OWNER/REPO or dir:PATH.")


def _registered(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from zoo.registry import architecture, plugins, resolve

    found = architecture(name.partition(".")[0])
    source = next((record.source for record in plugins() if found.name in record.architectures), "")
    known = {
        "architecture": found.name,
        "about": found.summary,
        "paper": found.paper,
        "distribution": source,
        "model": found.model,
        "weights": [f"{found.name}.{tag}" for tag in sorted(found.weights)],
    }
    if "." not in name and found.default is None:
        return {"name": name, **known}
    _, tag, weights = resolve(name)
    facts = {"name": f"{found.name}.{tag}", **known, **asdict(weights)}
    return facts | _on_disk(bundled(weights.bundled)) if weights.bundled else facts


def _checked(folder: Path, parent: str | None) -> dict[str, Any]:
    # A stranger's model: what is told of it holds only if it can be loaded.
    from functools import partial

    from zoo.loading import made_whole
    from zoo.weights import load

    load(folder, whole=partial(made_whole, parent=parent))
    return _on_disk(folder)


def _on_disk(folder: Path) -> dict[str, Any]:
    try:
        config = jsonlib.loads((folder / "config.json").read_bytes())
        weights = folder / "model.safetensors"
        return {
            "architecture": config["architecture"],
            "config": dict(config["config"]),
            **({"absent": absent} if (absent := config.get("absent")) else {}),
            **_source(config.get("origin")),
            "parameters": _parameters(weights),
            "bytes": weights.stat().st_size,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        cause = type(error).__name__
        raise WeightsError(f"{folder} lacks a whole config.json or model.safetensors ({cause}): fetch both.") from error


def _source(origin: Any) -> dict[str, Any]:
    """Return the licence of a model, and of which foreign files it was made."""
    known = origin if isinstance(origin, dict) else {}
    foreign = source if isinstance(source := known.get("source"), dict) else {}
    found = {"license": known.get("license"), "format": foreign.get("format"), "converted": foreign.get("files")}
    return {name: value for name, value in found.items() if value}


def _parameters(path: Path) -> dict[str, int]:
    # The header alone says the shapes: no tensor is read, and no library loaded for it.
    from math import prod

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > HEADER_LIMIT:
            raise ValueError("header too large")
        header = jsonlib.loads(file.read(size))
    counts: dict[str, int] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            network = ".".join(name.split(".")[: 2 if name.startswith("averages.") else 1])
            counts[network] = counts.get(network, 0) + prod(tensor["shape"])
    return counts


def _millions(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counts.items())


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
