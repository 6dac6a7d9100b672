"""Foreign checkpoints become models: which files, of which format, and whether every tensor of theirs fits.

The files are read as data by `zoo.formats.reading`; the formats are plugins' (hook `zoo_formats`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo import registry
from zoo.discovery import imported
from zoo.errors import ConfigError, PluginError, UnknownName, Unsupported, WeightsError
from zoo.formats.contract import Converted, Format, Source, Tree
from zoo.formats.reading import read_file
from zoo.storage import read_json, sha256
from zoo.weights import assign, averaged_networks, build

if TYPE_CHECKING:
    from zoo.model import Model

VERSION = 1                                    # of what conversion makes of a file; raised when that changes
SIDE = "config.json"                           # read beside the weights
MOST = 64                                      # files of a folder that are read to find those that belong together
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl")      # of weights; of one in two, the first is read
OVERFLOWING = 1e18                             # squares of such values do not fit into float32
SPECTRAL = ("u", "v", "_u", "_v")              # of spectral norm

# What a reader may stumble over in an altered file, beside what it names itself.
FAULTS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, AssertionError)


def convert(path: str | Path, *, format: str = "auto", **config: object) -> Model:
    """Return the model that a foreign checkpoint holds, read without running any of it.

    The model has the networks that the files hold; a generator that comes alone gets a fresh discriminator when it is
    fine-tuned. `model.origin` says which files it came from (sha256), their format and, where it is known, the licence.

    Args:
        path: a weights file, or the folder of its files; a config.json beside it is read too.
        format: "auto", or a name of `format_names()`.
        config: settings of ours that the file cannot say, such as ``norm_groups=4``.

    Raises:
        UnknownName: there is no such format.
        WeightsError: nobody knows the file, or it is cut, altered, incomplete, or of an unsupported variant; the
            message names the file and the first tensor at fault.
    """
    place = _place(path)
    chosen, source = _recognised(place, _formats(format))
    try:
        converted = chosen.read(source)
    except FAULTS as error:
        what = f"{type(error).__name__}: {error}"[:200].rstrip(": ")
        raise WeightsError(f"{place.name}: not a whole {chosen.name} checkpoint ({what}).") from error
    model = _built(place.name, chosen, converted, config)
    folder, used = place if place.is_dir() else place.parent, {part.file for part in converted.parts}
    model.origin = {
        "name": printable(place.name),
        "source": {
            "format": chosen.name,
            "conversion": VERSION,
            "files": {printable(name): sha256(folder / name) for name in sorted(used & set(source.files))},
        },
        **({"license": converted.license or chosen.license} if converted.license or chosen.license else {}),
    }
    return model


def format_names() -> list[str]:
    """Return the names of the foreign formats that can be read, sorted."""
    return sorted(registry.formats())


@cache
def load_format(name: str) -> Format:
    """Return the format of this name.

    Raises:
        UnknownName: no plugin offers it.
        PluginError: it does not import, or is no `Format`.
    """
    found = imported("format", name, registry.formats())
    if not isinstance(found, Format):
        raise PluginError(f"The format {name!r} ({registry.formats()[name]}) is no zoo.formats.contract.Format.")
    return found


# Which files, which format.


def _place(path: object) -> Path:
    if not isinstance(path, str | Path) or "\0" in str(path):
        raise WeightsError(f"{str(path)[:80]!r} is no path: give a checkpoint file, or the folder of its files.")
    place = Path(path)
    try:
        place.stat()
        return place.resolve() if place.name in ("", ".", "..") else place
    except FileNotFoundError as error:
        raise WeightsError(f"{place} does not exist: give a checkpoint file, or the folder of its files.") from error
    except OSError as error:      # a loop of links, a name too long, a folder that is another's
        raise WeightsError(f"{place} cannot be opened ({error.strerror}).") from error


def _formats(name: str) -> list[Format]:
    if not isinstance(name, str):
        raise UnknownName(f"format={str(name)[:60]!r}: give 'auto' or one of {', '.join(format_names())}.")
    if name != "auto":
        return [load_format(name)]
    found = []
    for each in format_names():
        try:
            found.append(load_format(each))
        except PluginError as error:      # one broken plugin does not keep the others from reading
            warnings.warn(str(error), stacklevel=4)
    return found


def _recognised(place: Path, formats: list[Format]) -> tuple[Format, Source]:
    """Return the one format that knows the files, and what they hold."""
    folder = place if place.is_dir() else place.parent
    configs = _configs(folder)
    wanted = {each.name: _names(folder, each) if place.is_dir() else [place.name] for each in formats}
    names = sorted({name for names in wanted.values() for name in names})
    if len(names) > MOST:
        raise WeightsError(f"{place} holds {len(names)} files with names of checkpoints: give the file itself.")
    contents, faults = _read(folder, names)
    claims = []
    for each in formats:
        readable = {name: contents[name] for name in wanted[each.name] if name in contents}
        source = _mine(Source(place, readable, configs), each)
        if source is not None:
            claims.append((each, source))
    if not claims and not faults and place.is_dir() and not _ours(place) and len(lone := _listed(place)) == 1:
        return _recognised(place / lone[0], formats)      # under a name of its own
    if not claims:
        raise faults[0] if faults else WeightsError(_unknown(place, formats, list(contents)))
    if len(claims) > 1:
        possible = ", ".join(repr(each.name) for each, _ in claims)
        raise WeightsError(f"{place} could be of several formats: choose one of {possible} by format=... (--format).")
    return claims[0]


def _read(folder: Path, names: list[str]) -> tuple[dict[str, Tree], list[WeightsError]]:
    """Return what the files hold, and the faults of those that cannot be read: a folder may hold others' files too."""
    contents, faults = {}, []
    for name in names:
        try:
            contents[name] = read_file(folder / name)
        except WeightsError as error:
            faults.append(error)
    return contents, faults


def _mine(source: Source, chosen: Format) -> Source | None:
    """Return the share of the files that a format knows: a folder may hold others under names like theirs."""
    known = [name for name, tree in source.files.items() if _knows(chosen, replace(source, files={name: tree}))]
    mine = replace(source, files={name: source.files[name] for name in known})
    return mine if known and _knows(chosen, mine) else None


def _knows(chosen: Format, source: Source) -> bool:
    """Return whether a format knows the files; what its reader stumbles over is none of its own."""
    try:
        return chosen.recognise(source)
    except FAULTS:
        return False


def _configs(folder: Path) -> dict[str, Mapping[str, Any]]:
    path = folder / SIDE
    found = read_json(path) if path.is_file() else None
    return {SIDE: found} if isinstance(found, dict) else {}


def _names(folder: Path, chosen: Format) -> list[str]:
    """Return the files of a folder that a format takes; one that lies there in two containers counts once."""
    taken = [name for name in _listed(folder) if any(re.fullmatch(pattern, name) for pattern in chosen.files)]
    best: dict[str, str] = {}
    for name in sorted(taken, key=lambda name: SUFFIXES.index(Path(name).suffix)):
        best.setdefault(Path(name).stem, name)
    return sorted(best.values())


def _listed(folder: Path) -> list[str]:
    """Return the files of a folder that may hold weights."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read ({error.strerror}).") from error


def _ours(place: Path) -> bool:
    return (place / "model.safetensors").is_file() and "architecture" in _configs(place).get(SIDE, {})


def _unknown(place: Path, formats: list[Format], read: list[str]) -> str:
    if _ours(place):
        return f"{place} is a zoo model already: zoo.load('dir:{place}') reads it."
    names = ", ".join(each.name for each in formats)
    if place.is_dir():
        what = f"the files {', '.join(read)}" if read else "no file by a known name"
        inner = sorted(path.name for path in place.iterdir() if path.is_dir() and _listed(path))[:5]
        advice = f"look into its folders {', '.join(inner)}" if inner else "give the checkpoint file itself"
        return f"{place} holds {what} and is of no known format ({names}): {advice}."
    if len(formats) == 1:
        return f"{place.name} is no checkpoint of the format {names}: leave the format out to have it recognised."
    hint = "" if place.suffix in SUFFIXES else f" {place.name} has no suffix of a checkpoint."
    return f"{place.name} is of none of the known formats: {names}.{hint} A plugin can add one (hook zoo_formats)."


# Whether everything fits.


def _built(file: str, chosen: Format, converted: Converted, config: Mapping[str, object]) -> Model:
    """Return the model with the converted tensors; a network that none of them belongs to is absent."""
    settings = {**converted.config, **config}
    try:
        model = build(converted.architecture, settings, device="meta")
    except ConfigError as error:
        raise WeightsError(f"{file}, read as {chosen.name}, asks for what is not possible: {error}") from error
    given = dict(converted.tensors)
    names: dict[str, str] = {}
    for part in converted.parts:
        given |= part.tensors
        names |= {ours: f"{part.place}: tensor {theirs!r}" for ours, theirs in part.names.items() if theirs}
    brought = {name.split(".")[0] for name in given}
    try:
        model.without([name for name in model.networks() if name not in brought])
        model.follow(averaged_networks(model, given))
    except (ConfigError, Unsupported) as error:
        raise WeightsError(f"{file}, read as {chosen.name}: {error}") from error
    _check(file, model.state_dict(), given, names, [each for part in converted.parts for each in part.measured])
    assign(model, {name: _plain(tensor) for name, tensor in given.items()})
    return model


def printable(name: str) -> str:
    """Return a file's name as it can be shown and stored: other characters, such as a terminal's commands, as "?"."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _check(
    file: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], names: Mapping[str, str], measured: list[str]
) -> None:
    """Raise WeightsError unless the tensors are exactly those of the model, finite, of its shapes and kinds."""
    if missing := [name for name in wanted if name not in given]:
        raise WeightsError(f"{file} lacks {len(missing)} tensors of this network, the first is our {missing[0]!r}.")
    for name, tensor in given.items():
        said = names.get(name, f"{file}: our tensor {name!r}")
        if name not in wanted:
            raise WeightsError(f"{said} belongs to no part of this network: the file is altered or of another variant.")
        if tensor.shape != wanted[name].shape:
            sizes = f" (sizes were read from {', '.join(dict.fromkeys(measured))})"[:200] if measured else ""
            need = f"{list(tensor.shape)} after conversion, this network needs {list(wanted[name].shape)}"
            raise WeightsError(f"{said} is {need}{sizes}.")
        if tensor.is_floating_point() != wanted[name].is_floating_point():
            raise WeightsError(f"{said} holds {tensor.dtype}, expected {wanted[name].dtype}.")
        if tensor.is_floating_point() and not bool((tensor.float().abs() < OVERFLOWING).all()):
            raise WeightsError(f"{said} holds values that are not finite, or nearly so: the file is broken.")
        if _is_divided_by(name, wanted) and not bool(_plain(tensor).any()):
            raise WeightsError(f"{said} holds zeros alone, and evaluation divides by it: the file is broken.")


def _is_divided_by(name: str, names: Collection[str]) -> bool:
    """Return whether a tensor is a factor of a spectral norm: a vector beside a weight, or the weight beside one."""
    layer, _, last = name.rpartition(".")
    return last in ("weight", *SPECTRAL) and any(f"{layer}.{each}" in names for each in SPECTRAL)


def _plain(tensor: Tensor) -> Tensor:
    plain = tensor.float() if tensor.is_floating_point() else tensor.long()
    return plain.contiguous()
