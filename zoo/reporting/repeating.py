"""The command line that makes a run again, from what run.json says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.documents import mapping
from zoo.errors import ZooError
from zoo.recipe import Recipe
from zoo.reporting.facts import number
from zoo.values import written

if TYPE_CHECKING:
    from zoo.model import Model

ADAPTED = ("resolution", "channels", "num_classes")      # what weights are fitted to
EVERY, KEEP, PATIENCE = 50.0, 2, 5                       # what the command line takes where nothing is said
SPARED = 6400      # images of a set from which on some are held out unless told otherwise


def command(settings: Mapping[str, Any], directory: Path) -> str:
    """Return the command line that repeats a run beside it; "" where none does.

    Settings that are what they would be anyway are left out, where the architecture is at hand to say so.
    """
    data, parent = mapping(settings.get("data")).get("name"), mapping(settings.get("parent"))
    kimg, method = number(settings.get("kimg")), settings.get("method")
    if not settings.get("architecture") or not data or kimg is None or (parent and not method):
        return ""      # weights that Python loaded and trained on without a method
    begun = ["finetune", _parent(parent)] if method else ["train", str(settings["architecture"])]
    again = directory.resolve().with_name(f"{directory.resolve().name}-again")
    words = ["zoo", *begun, str(data), "--out", str(again), "--kimg", f"{kimg:.10g}", *_method(settings)]
    words += [word for name, value in _chosen(settings).items() for word in ("--set", f"{name}={written(value)}")]
    words += [word for text in _texts(_recipe(settings).get("added")) for word in ("--add", text)]
    return shlex.join([*words, *_options(settings)])


def _parent(parent: Mapping[str, Any]) -> str:
    name, commit = str(parent.get("name", "")), parent.get("commit")
    return f"{name.partition('@')[0]}@{commit}" if commit and name.startswith("hub:") else name


def _method(settings: Mapping[str, Any]) -> list[str]:
    if not settings.get("method"):
        return []
    if settings.get("method_reason") != "asked for":      # it also decides the pace of a fresh critic
        return ["--method", "auto"]
    options = mapping(settings.get("method_options"))
    said = ",".join(f"{name}={written(value)}" for name, value in options.items())
    return ["--method", f"{settings['method']}:{said}" if said else str(settings["method"])]


def _chosen(settings: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings of the model and of its recipe that are not what they would be without a word."""
    config, recipe = mapping(settings.get("config")), _recipe(settings)
    if settings.get("method"):
        model = {name: config[name] for name in ADAPTED if name in config} if settings.get("adapted") else {}
    else:
        usual = _usual_config(settings)
        model = {name: value for name, value in config.items() if usual is None or value != usual.get(name)}
    plain = _plain(_usual_recipe(settings))
    own = {name: recipe[name] for name in Recipe.settings() if name in recipe and name != "batch"}
    return model | {name: value for name, value in own.items() if name not in plain or value != plain[name]}


def _usual_config(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the architecture's own configuration; None where it is not at hand."""
    from zoo.registry import architecture, model_class

    variant = mapping(settings.get("config")).get("variant")
    try:
        cls = model_class(architecture(str(settings.get("architecture"))), variant)
        usual = _plain(cls.Config().model_dump(mode="json"))
    except (ZooError, ValueError, TypeError):
        return None
    return {name: value for name, value in usual.items() if name != "variant"}


def _usual_recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the recipe that such a model has of its own; nothing where the architecture is not there.

    The model is built without memory for its weights.
    """
    from zoo.critics import training_recipe
    from zoo.weights import build

    added = any(text.partition(":")[0] for text in _texts(_recipe(settings).get("added")))
    critic = mapping(settings.get("critic")) if not added else {}      # else it may come of an addition
    try:
        model: Model = build(
            str(settings.get("architecture")), mapping(settings.get("config")), device="meta", critic=critic or None
        )
        recipe = training_recipe(model)
    except (ZooError, ValueError, TypeError):
        return {}
    return {name: getattr(recipe, name) for name in Recipe.settings()}


def _options(settings: Mapping[str, Any]) -> list[str]:
    recipe, schedule = _recipe(settings), mapping(settings.get("schedule"))
    on_collapse, held = settings.get("on_collapse"), number(settings.get("held_out"))
    many = (number(mapping(settings.get("data")).get("images")) or 0) >= SPARED
    told = {
        "--batch": recipe.get("batch"),
        "--seed": settings.get("seed"),
        "--critic": _critic(mapping(settings.get("critic"))),
        "--precision": _unless("no", settings.get("precision")),
        "--accumulate": _unless(1, settings.get("accumulate")),
        "--processes": _unless(1, settings.get("processes")),
        "--every": _unless(EVERY, schedule.get("checkpoint")),
        "--keep": _unless(KEEP, schedule.get("keep")),
        "--patience": _unless(PATIENCE, settings.get("patience")),
        "--on-collapse": _unless("warn", on_collapse),
        "--hold-out": held if held is not None and on_collapse != "off" and (held or many) else None,
    }
    words = [word for name, value in told.items() if value is not None for word in (name, written(value))]
    return [*words, *(["--compile"] if settings.get("compile") is True else [])]


def _critic(critic: Mapping[str, Any]) -> str | None:
    if critic.get("kind", "projected") != "projected" or not critic.get("backbone"):
        return None      # of another kind: an addition brings it
    size = critic.get("resolution")
    return f"projected:{critic['backbone']}" + (f"@{size}" if size else "")


def _unless(usual: object, value: object) -> object:
    return None if value == usual else value


def _recipe(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(settings.get("recipe"))


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back: tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
