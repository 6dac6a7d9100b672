"""What the installed plugins add, by name; found once per process, without importing any model class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any

from zoo.discovery import BLOCK, BUILT_IN, HOOKS, Loaded, PluginRecord, canonical, load_all, quietly
from zoo.errors import PluginError, UnknownName, suggest
from zoo.plugin import Architecture, Weights

if TYPE_CHECKING:
    from zoo.model import Model

__all__ = [
    "PluginRecord",
    "additions",
    "architecture",
    "architectures",
    "features",
    "formats",
    "list_architectures",
    "list_models",
    "metrics",
    "model_class",
    "plugins",
    "refresh",
    "resolve",
]


def list_architectures() -> list[str]:
    """Return the names of the architectures that can be used, sorted."""
    return sorted(architectures())


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all known weights, ``ARCH.TAG``, sorted.

    Args:
        pattern: shell wildcards over the whole name; a bare architecture name stands for all its weights.
    """
    return sorted(
        f"{name}.{tag}"
        for name, found in architectures().items()
        for tag in found.weights
        if fnmatchcase(f"{name}.{tag}", pattern) or name == pattern
    )


def architectures() -> dict[str, Architecture]:
    """Return name -> architecture for all that can be used."""
    return dict(_registry().offers["zoo_architectures"])


def architecture(name: str) -> Architecture:
    """Return the architecture of this name.

    Raises:
        UnknownName: no plugin adds it; the message names what is installed and what did not load.
        PluginError: two plugins claim the name.
    """
    registry = _registry()
    if name in registry.clashes:
        raise PluginError(registry.clashes[name])
    found: Mapping[str, Architecture] = registry.offers["zoo_architectures"]
    if name not in found:
        _refuse_path(name)
        idle = [f"{record.name} ({record.source}: {record.reason})" for record in registry.plugins if record.reason]
        raise UnknownName(
            f"No architecture is named {_shown(name)}.{suggest(name.strip().lower(), sorted(found))}"
            f" Installed: {', '.join(sorted(found)) or 'none'}." + (f" Not loaded: {'; '.join(idle)}." if idle else "")
        )
    return found[name]


def resolve(name: str) -> tuple[Architecture, str, Weights]:
    """Return architecture, tag and weights facts for ``ARCH`` (its default weights) or ``ARCH.TAG``.

    Raises:
        UnknownName: no such architecture or tag, or an architecture without default weights.
        PluginError: two plugins claim the architecture's name.
    """
    _refuse_path(name)
    head, dot, tag = name.partition(".")
    found = architecture(head)
    possible = ", ".join(f"{head}.{each}" for each in sorted(found.weights)) or f"none, use zoo.create({head!r})"
    if not dot:
        if found.default is None:
            raise UnknownName(f"{head!r} has no default weights. Its weights: {possible}.")
        tag = found.default
    if tag not in found.weights:
        near = suggest(tag, sorted(found.weights))
        raise UnknownName(f"{head!r} has no weights with the tag {_shown(tag)}.{near} Its weights: {possible}.")
    return found, tag, found.weights[tag]


def plugins() -> list[PluginRecord]:
    """Return what became of every entry point in the group ``zoo``, the built-in ones first."""
    return list(_registry().plugins)


def model_class(architecture: Architecture, variant: object = None) -> type[Model]:
    """Import and return an architecture's model class, or that of one of its variants.

    Raises:
        UnknownName: it has no such variant.
        PluginError: it does not import, or is no subclass of zoo.Model; the message names the distribution.
    """
    from importlib import import_module

    from zoo.model import Model

    place = architecture.model if variant is None else _variant(architecture, variant)
    module, _, attribute = place.partition(":")
    owners = [f" of {record.source}" for record in plugins() if architecture.name in record.architectures]
    subject = f"Architecture {architecture.name!r}{''.join(owners)}: its model {place}"
    try:
        found = quietly(lambda: getattr(import_module(module), attribute))
    except PluginError as error:
        raise PluginError(f"{subject} does not import ({error}). Reinstall or update that distribution.") from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise PluginError(f"{subject} is no subclass of zoo.Model. Its author must make it one.")
    return found


def _variant(architecture: Architecture, variant: object) -> str:
    possible = sorted(architecture.variants)
    if not isinstance(variant, str) or variant not in architecture.variants:
        near = suggest(str(variant)[:60], possible)
        kinds = f"Variants: {', '.join(possible)}" if possible else "It has none"
        raise UnknownName(f"{architecture.name!r} has no variant {_shown(str(variant))}.{near} {kinds}.")
    return architecture.variants[variant]


def metrics() -> dict[str, str]:
    """Return metric name -> "package.module:function" for the metrics that plugins add."""
    return dict(_registry().offers["zoo_metrics"])


def features() -> dict[str, str]:
    """Return feature name -> "package.module:factory" for the feature extractors that plugins add."""
    return dict(_registry().offers["zoo_features"])


def formats() -> dict[str, str]:
    """Return format name -> "package.module:FORMAT" for the readers of foreign checkpoints."""
    return dict(_registry().offers["zoo_formats"])


def additions() -> dict[str, str]:
    """Return addition name -> "package.module:ADDITION" for what plugins let users add to a recipe."""
    return dict(_registry().offers["zoo_additions"])


def refresh() -> None:
    """Forget what was found, so that the next question looks at what is installed now."""
    from importlib import invalidate_caches

    invalidate_caches()
    _registry.cache_clear()


@dataclass(frozen=True)
class _Registry:
    plugins: tuple[PluginRecord, ...]
    offers: Mapping[str, Mapping[str, Any]]        # hook -> name -> what one plugin offers under it
    clashes: Mapping[str, str]                     # architecture name that two strangers claim -> the error message


@cache
def _registry() -> _Registry:
    loaded = load_all()
    offers: dict[str, dict[str, Any]] = {hook: {} for hook in HOOKS}
    faults: dict[PluginRecord, list[str]] = defaultdict(list)
    clashes: dict[str, str] = {}
    for hook in HOOKS:
        for name, claimants in _claims(loaded, hook).items():
            # A name with two claimants is nobody's, except that the built-in plugins, which come first, keep theirs.
            owner = claimants[0] if len(claimants) == 1 or _built_in(claimants[0]) else None
            if owner:
                offers[hook][name] = owner.offers[hook][name]
            message = _clash(hook, name, [each.record for each in claimants])
            if not owner and hook == "zoo_architectures":
                clashes[name] = message
            for each in claimants:
                if each is not owner:
                    faults[each.record].append(message)
    return _Registry(tuple(_judged(each, faults[each.record], offers) for each in loaded), offers, clashes)


def _claims(loaded: list[Loaded], hook: str) -> dict[str, list[Loaded]]:
    claims: dict[str, list[Loaded]] = defaultdict(list)
    for each in loaded:
        for name in each.offers.get(hook, ()):
            claims[name].append(each)
    return claims


def _built_in(plugin: Loaded) -> bool:
    return canonical(plugin.record.distribution) == BUILT_IN


def _clash(hook: str, name: str, claimants: list[PluginRecord]) -> str:
    kind = hook.removeprefix("zoo_").removesuffix("s")
    sources = " and ".join(record.source for record in claimants)
    return f"The {kind} name {name!r} comes from {sources}; switch one off with {BLOCK}={claimants[-1].distribution}"


def _judged(plugin: Loaded, faults: list[str], offers: Mapping[str, Mapping[str, Any]]) -> PluginRecord:
    if not faults:
        return plugin.record
    mine = plugin.offers["zoo_architectures"]
    kept = tuple(name for name in plugin.record.architectures if offers["zoo_architectures"].get(name) is mine[name])
    return replace(plugin.record, status="failed", reason="; ".join(faults), architectures=kept)


def _refuse_path(name: str) -> None:
    if "/" in name:
        raise UnknownName(f"{_shown(name)} is ambiguous: write hub:OWNER/REPO for the Hub or dir:PATH for a folder.")


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 60 else name[:57] + "...")       # a look-alike letter shows as its number
