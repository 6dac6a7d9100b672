"""The shape of the code: floors, doors, no cycles, plugins apart from the core, and short files and functions."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())

# From the ground up: a module imports from its own floor and those below, also inside functions.
# A name stands for the module or the package with everything in it, unless a longer name says otherwise.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "versions", "markdown", "memory", "licences", "home", "values", "uncertainty", "documents",      # words
     "schedules", "steering"),
    ("noise", "plugin", "images", "storage", "penalties", "adaptation", "hub_errors", "repositories", "snapshots",
     "launch", "formats"),
    ("recipe", "losses", "discovery", "backbones", "judged", "substitution", "stages"),         # training as data
    ("regularisers", "consistency", "diversity", "instance_noise", "additions.contract"),       # what a turn may have
    ("model", "critics", "adversarial", "projected", "registry", "data", "hub", "parts", "spectral", "unrolled",
     "packing", "minibatch_std", "patches", "perceptual", "lowrank", "deception", "fading", "growing"),
    ("additions",),                                                          # the same by name
    ("cards", "weights", "deltas"),
    ("conversion",),                                                         # foreign checkpoints
    ("conversion_cache",),
    ("loading",),                                                            # from a name to a model
    ("transfer", "training", "metrics", "watchdog"),
    ("receipts", "subjects", "measuring", "evaluation", "repetition", "comparison", "learning_curve", "publishing",
     "doctor", "explanation", "remedies", "pictures"),
    ("reporting",),                                                          # all of it on a page
    ("demo", "testing"),
    ("cli",),
    ("__main__",),
)

# External package -> the only modules that may import it.
DOORS: dict[str, tuple[str, ...]] = {
    "huggingface_hub": ("zoo.hub", "zoo.hub_errors"),
    "safetensors": ("zoo.storage", "zoo.weights", "zoo.training.checkpoints", "zoo.metrics.store"),
    "pluggy": ("zoo.plugin", "zoo.discovery"),
    "timm": ("zoo.backbones",),
    "accelerate": ("zoo.training", "zoo.metrics.sharing"),
    "typer": ("zoo.cli",),
    "rich": ("zoo.cli",),
    "matplotlib": ("zoo.training.log",),
    "datasets": ("zoo.data.hub",),
    "fsspec": ("zoo.data.stream",),
    "pyarrow": ("zoo.data.stream",),
    "jinja2": ("zoo.cards", "zoo.reporting.page"),
    "yaml": ("zoo.cards",),
    "PIL": ("zoo.data", "zoo.images", "zoo.doctor.look", "zoo.doctor.sheet", "zoo.pictures",
            "zoo.reporting.embedding", "zoo.reporting.showing", "zoo.training.tracker"),
    "av": ("zoo.pictures.animation",),
    "trackio": ("zoo.training.tracker",),
}

# What a plugin may use of zoo: the contract, and the parts that recipes are made of.
CONTRACT = (
    "additions.contract", "adversarial", "consistency", "diversity", "errors", "formats.contract",
    "formats.studiogan", "instance_noise", "judged", "losses", "minibatch_std", "model", "noise", "packing", "parts",
    "patches", "penalties", "perceptual", "plugin", "recipe", "regularisers", "schedules", "spectral", "stages",
    "substitution", "unrolled",
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    target: str
    line: int
    when: str      # "top": on import of the module; "call": inside a function; "types": for the type checker alone


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of all modules of zoo and of the built-in plugins."""
    found = {}
    for base, package in ((ROOT, "zoo"), *((ROOT / "plugins", name) for name in PLUGINS)):
        for path in sorted((base / package).rglob("*.py")):
            found[".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(source: str, name: str, known: frozenset[str]) -> list[Import]:
    """Return every import of a module's source; `from package import module` counts as one of that module."""
    found: list[Import] = []

    def visit(node: ast.AST, when: str) -> None:
        for child in ast.iter_child_nodes(node):
            now = when
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                now = "types"
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and when == "top":
                now = "call"
            if isinstance(child, ast.Import):
                found.extend(Import(alias.name, child.lineno, now) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name}:{child.lineno}: relative import; write the whole name"
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    found.append(Import(full if full in known else str(child.module), child.lineno, now))
            visit(child, now)

    visit(ast.parse(source), "top")
    return found


@cache
def imports_of(name: str) -> tuple[Import, ...]:
    return tuple(imports(modules()[name].read_text(), name, frozenset(modules())))


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def floor(name: str) -> int:
    """Return the floor of a module of zoo."""
    parts = name.split(".")[1:]
    for count in range(len(parts), 0, -1):
        for number, names in enumerate(FLOORS):
            if ".".join(parts[:count]) in names:
                return number
    raise AssertionError(f"{name} stands on no floor: add it to FLOORS")


def core() -> list[str]:
    """The modules of zoo but the package itself, whose public names are imported when they are first used."""
    return [name for name in modules() if name.startswith("zoo.")]


def test_the_walk_finds_imports_of_every_kind():
    source = (
        "import torch\nfrom zoo import weights\nif TYPE_CHECKING:\n    from zoo.model import Model\n"
        "class A:\n    import json\n    def f(self):\n        from zoo.errors import ZooError\n"
    )
    assert imports(source, "x", frozenset({"zoo.weights", "zoo.model", "zoo.errors"})) == [
        Import("torch", 1, "top"), Import("zoo.weights", 2, "top"), Import("zoo.model", 4, "types"),
        Import("json", 6, "top"), Import("zoo.errors", 8, "call"),
    ]  # fmt: skip
    assert {"zoo.cli.app", "zoo.data", "zoo_stylegan.layers"} <= set(modules())


def test_every_floor_is_lived_on():
    stale = [each for names in FLOORS for each in names if f"zoo.{each}" not in modules()]
    assert not stale


@pytest.mark.parametrize("name", core())
def test_imports_go_down(name):
    upwards = [
        f"line {each.line}: {each.target}"
        for each in imports_of(name)
        if each.when != "types" and each.target.startswith("zoo.") and floor(each.target) > floor(name)
    ]
    assert not upwards, f"{name} (floor {floor(name)}) imports from above: {'; '.join(upwards)}"


def test_no_module_waits_for_itself():
    """Depth-first over imports that run when a module is imported: meeting a module of the path is a cycle."""
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path[path.index(name):], name))}"
        if name in done:
            return
        for each in imports_of(name):
            if each.when == "top" and each.target in modules() and each.target != name:
                walk(each.target, (*path, name))
        done.add(name)

    for name in modules():
        walk(name, ())
    assert done == set(modules())


@pytest.mark.parametrize("package", sorted(DOORS))
def test_each_package_has_its_door(package):
    users = {name for name in modules() for each in imports_of(name) if each.target.split(".")[0] == package}
    strangers = sorted(name for name in users if not within(name, DOORS[package]))
    assert users, f"nobody imports {package}: take it off DOORS, and off the dependencies"
    assert not strangers, f"{', '.join(strangers)} import {package}; its door is {', '.join(DOORS[package])}"


def test_the_core_knows_no_plugin():
    assert len(PLUGINS) >= 4
    known = [
        f"{name}:{each.line}" for name in modules() if name.split(".")[0] == "zoo"
        for each in imports_of(name) if each.target.startswith("zoo_")
    ]  # fmt: skip
    assert not known


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_uses_the_contract_alone(plugin):
    allowed = {"torch", "pydantic", plugin, *sys.stdlib_module_names}
    contract = tuple(f"zoo.{name}" for name in CONTRACT)
    foreign = [
        f"{name}:{each.line} {each.target}"
        for name in modules() if name.split(".")[0] == plugin
        for each in imports_of(name)
        if each.target.split(".")[0] not in allowed and not within(each.target, contract)
    ]  # fmt: skip
    assert not foreign


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugins_entry_module_is_light(plugin):
    light, waiting = set(), [plugin]
    while waiting:      # its own modules may help, as long as they are as light
        for each in imports_of(waiting.pop()):
            if within(each.target, (plugin,)):
                waiting.append(each.target)
            elif each.target.split(".")[0] not in sys.stdlib_module_names:
                light.add(each.target)
    assert light == {"zoo.plugin"}


def test_files_stay_short():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    long = {name: n for name, n in lengths.items() if n > (400 if name.split(".")[0] == "zoo" else 600)}
    assert not long


def test_functions_stay_short():
    """Up to 60 lines of their own, signature and comments included; what the docstring says is not counted."""
    long = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                first = node.body[0]
                if ast.get_docstring(node) and first.end_lineno is not None:
                    lines -= first.end_lineno - first.lineno + 1
                if lines > 60:
                    long.append(f"{name}.{node.name}: {lines}")
    assert not long


def test_no_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
    assert not [name for name in modules() if name.split(".")[-1] in drawers]
