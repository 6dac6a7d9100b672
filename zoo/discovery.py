"""Entry points of the group ``zoo`` become plugins: each is loaded in its own guard, so one fault stops no other."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from inspect import isroutine
from types import ModuleType
from typing import Any, Literal

import pluggy

from zoo.errors import PluginError, UnknownName, suggest
from zoo.plugin import GROUP, Architecture, Hooks

BUILT_IN = "genzoo"                       # the distribution whose architecture names nobody else can take
BLOCK = "ZOO_BLOCK"                       # environment: names of entry points or distributions to leave out
HOOKS = tuple(name for name in vars(Hooks) if name.startswith("zoo_"))


@dataclass(frozen=True)
class PluginRecord:
    """What became of one entry point."""

    name: str                             # the entry point's
    distribution: str
    version: str
    module: str                           # what the entry point names
    status: Literal["ok", "blocked", "failed"]
    reason: str = ""                      # one line; empty when all is well
    architectures: tuple[str, ...] = ()   # those that can be used

    @property
    def source(self) -> str:
        """Distribution and version, as error messages name a plugin."""
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Loaded:
    """A plugin's record and what its hooks returned: hook name -> name -> what is offered under it."""

    record: PluginRecord
    offers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load_all() -> list[Loaded]:
    """Load every plugin that is installed and not blocked, the built-in ones first, then by distribution and name."""
    blocked = {canonical(name) for name in os.environ.get(BLOCK, "").split(",") if name.strip()}
    modules: dict[int, str] = {}          # id of a plugin object -> the distribution that brought it
    return [_load(distribution, entry, blocked, modules) for distribution, entry in sorted(_entries(), key=_order)]


def canonical(name: str) -> str:
    """Return a distribution's or an entry point's name as it is compared: lower case, runs of -_. as one dash."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def one_line(error: BaseException) -> str:
    """Return an exception as one printable line: its type and message, without control characters, at most 300 long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= 300 else line[:297] + "..."


def quietly(load: Callable[[], Any]) -> Any:
    """Call `load` with prints sent to standard error: standard output may be a document.

    Raises:
        PluginError: with the cause in one line, whatever went wrong. A plugin's SystemExit is a fault like any other.
    """
    try:
        with redirect_stdout(sys.stderr):
            return load()
    except (KeyboardInterrupt, PluginError):
        raise
    except BaseException as error:
        raise PluginError(one_line(error)) from error


def imported(kind: str, name: str, places: Mapping[str, str]) -> Any:
    """Import and return what stands under a name, given name -> "package.module:attribute".

    Raises:
        UnknownName: there is no such name; the message lists the possible ones.
        PluginError: it does not import.
    """
    if name not in places:
        possible = sorted(places)
        raise UnknownName(f"No {kind} is named {name!r}.{suggest(name, possible)} Possible: {', '.join(possible)}.")
    module, _, attribute = places[name].partition(":")
    try:
        return quietly(lambda: getattr(import_module(module), attribute))
    except PluginError as error:
        raise PluginError(f"The {kind} {name!r} ({places[name]}) does not import: {error}.") from error


def _entries() -> Iterator[tuple[Distribution, EntryPoint]]:
    seen = set()
    for distribution in distributions():
        try:
            name = canonical(distribution.metadata["Name"])
            entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        except Exception:                 # a distribution without readable metadata is not ours to report
            continue
        if name not in seen:              # the same one again, further down sys.path, is not what gets imported
            seen.add(name)
            yield from ((distribution, entry) for entry in entries)


def _order(found: tuple[Distribution, EntryPoint]) -> tuple[bool, str, str]:
    distribution, entry = found
    name = canonical(distribution.metadata["Name"])
    return name != BUILT_IN, name, entry.name


def _load(distribution: Distribution, entry: EntryPoint, blocked: set[str], modules: dict[int, str]) -> Loaded:
    name, version = distribution.metadata["Name"], distribution.metadata["Version"] or ""

    def record(status: Literal["ok", "blocked", "failed"], reason: str = "", names: Iterable[str] = ()) -> PluginRecord:
        return PluginRecord(entry.name, name, version, entry.value, status, reason, tuple(sorted(names)))

    if blocked & {canonical(entry.name), canonical(name)}:
        return Loaded(record("blocked", f"switched off by {BLOCK}"))
    try:
        plugin = quietly(entry.load)
        if id(plugin) in modules:
            raise PluginError(f"{entry.value} is already the plugin of {modules[id(plugin)]}")
        modules[id(plugin)] = f"{name} {version}"
        offers = quietly(lambda: _offers(plugin))
    except PluginError as error:
        return Loaded(record("failed", str(error)))
    return Loaded(record("ok", names=offers["zoo_architectures"]), offers)


def _offers(plugin: object) -> dict[str, dict[str, Any]]:
    # One manager a plugin: registering stops half-way at a fault, and a hook that raises would silence the rest.
    _refuse_misspelt(plugin)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    manager.register(plugin)
    if not any(caller.get_hookimpls() for caller in manager.get_hookcallers(plugin) or []):
        raise PluginError(f"it implements no hook; the hooks are {', '.join(HOOKS)}")
    return {hook: _called(manager, hook) for hook in HOOKS}


def _refuse_misspelt(plugin: object) -> None:
    # Pluggy passes over what bears no mark, and over a mark on a name that is no hook.
    for name in dir(plugin):
        method = getattr(plugin, name, None)
        mark = getattr(method, f"{GROUP}_impl", None) if isroutine(method) else None
        made_here = not isinstance(plugin, ModuleType) or getattr(method, "__module__", None) == plugin.__name__
        meant = mark is not None or (name.startswith("zoo_") and isroutine(method) and made_here)
        if meant and name not in HOOKS and not (mark and mark["optionalhook"]):
            raise PluginError(f"{name!r} is no hook.{suggest(name, list(HOOKS))} The hooks are {', '.join(HOOKS)}")
        if meant and mark is None:
            raise PluginError(f"{name!r} lacks its mark: write @zoo.hookimpl above it")


def _called(manager: pluggy.PluginManager, hook: str) -> dict[str, Any]:
    caller = getattr(manager.hook, hook)
    results = caller()
    if len(results) < len(caller.get_hookimpls()):
        raise PluginError(f"{hook} returned None")
    offers: dict[str, Any] = {}
    for result in results:
        offers |= _architectures(result) if hook == "zoo_architectures" else _named(hook, result)
    return offers


def _architectures(result: object) -> dict[str, Architecture]:
    if not isinstance(result, Iterable):
        raise PluginError(f"zoo_architectures returned {type(result).__name__}, not a list of zoo.Architecture")
    found: dict[str, Architecture] = {}
    for item in result:
        if not isinstance(item, Architecture):
            raise PluginError(f"zoo_architectures returned a list with {type(item).__name__}, not zoo.Architecture")
        if item.name in found:
            raise PluginError(f"zoo_architectures returned two architectures named {item.name!r}")
        found[item.name] = item
    return found


def _named(hook: str, result: object) -> dict[str, str]:
    if not isinstance(result, Mapping) or not all(
        isinstance(name, str) and isinstance(place, str) and place.count(":") == 1 for name, place in result.items()
    ):
        raise PluginError(f"{hook} must return a mapping of names to 'package.module:function'")
    return dict(result)
