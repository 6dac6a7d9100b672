"""The documents keep their promises: their Python runs, their commands parse, their tables and links are true.

A Python block runs as it stands, page by page, but for what would take long: `TINY` shortens trainings and evaluations,
and a folder of images that the page names is made for it. A block that needs the Hub or a plugin is only checked: every
`zoo` name and keyword in it exists.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import runpy
import shlex
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

import zoo
from zoo.evaluation import Evaluation

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "model_cards/README.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLUGIN = ("CONTRIBUTING.md", "docs/plugins.md")      # pages whose Python makes up a plugin's own files
BEYOND = ("hub:", "hf:", "token=", "acme")           # a block with one of these needs the Hub or another's plugin
BUILT_IN = ("dcgan", "stylegan", "stylegan3", "biggan", "r3gan", "vae")
VARIANTS = {"dcgan": ("deep_conv",), "vae": ("kl", "tiny")}

SHORT = {"kimg": 0.008, "batch": 8}
TINY = {
    "train": SHORT,
    "finetune": SHORT,
    "evaluate": {"samples": 16, "reference": 8, "metrics": ("kid", "precision_recall"), "features": "pixels"},
    "publish": {"dry_run": True},
}


def blocks(page: str, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(PAGES[page]) if language in languages]


with_python = pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])


# Python.


class Shorten(ast.NodeTransformer):
    """Give calls such as zoo.train their tiny settings, and make the folders of images that they name."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in TINY:
            kept = [keyword for keyword in node.keywords if keyword.arg not in TINY[name]]
            node.keywords = kept + [ast.keyword(key, ast.Constant(value)) for key, value in TINY[name].items()]
            if name != "publish":
                make_images(node.args[1])
        elif name == "open_images":
            make_images(node.args[0])
        return node


def make_images(data: ast.expr) -> None:
    """Write eight small images into the folder that a page takes its data from, in two classes."""
    if not isinstance(data, ast.Constant) or str(data.value).startswith(("emoji", "hf:")):
        return
    import torch

    from zoo.images import save_grid

    for index in range(8):
        folder = Path(str(data.value), f"class{index % 2}")
        folder.mkdir(parents=True, exist_ok=True)
        save_grid(torch.rand(1, 3, 32, 32) * 2 - 1, folder / f"{index}.png")


@with_python
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A page continues the one before it: `zoo`, a model and a run are at hand.
    names: dict[str, object] = {"zoo": zoo}
    for number, text in enumerate(blocks(page, "python"), 1):
        if page in PLUGIN or any(word in text for word in BEYOND):
            compile(text, page, "exec")
            continue
        tree = ast.fix_missing_locations(Shorten().visit(ast.parse(text)))
        exec(compile(tree, f"{page}, Python block {number}", "exec"), names)


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def found(name: str) -> object:
    """Return what a dotted name such as zoo.metrics.metric.Metric stands for; fails where there is nothing."""
    parts = name.split(".")
    value: object = importlib.import_module(parts[0])
    for end, part in enumerate(parts[1:], 2):
        value = getattr(value, part, None) or importlib.import_module(".".join(parts[:end]))
    return value


@with_python
def test_names_and_keywords_exist(page):
    for text in blocks(page, "python"):
        known = {"zoo": "zoo"}
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zoo":
                known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        for name in ("Architecture", "Weights", "Terms", "Phase", "Recipe"):      # fragments leave out the import
            known.setdefault(name, f"zoo.{name}")
        for node in ast.walk(tree):
            head, _, rest = dotted(node).partition(".") if isinstance(node, ast.Attribute | ast.Name) else ("", "", "")
            if head in known and head not in defined:
                found(f"{known[head]}.{rest}".rstrip("."))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                head, _, rest = dotted(node.func).partition(".")
                if head in known and head not in defined:
                    check_keywords(found(f"{known[head]}.{rest}".rstrip(".")), node)


def check_keywords(function: object, call: ast.Call) -> None:
    parameters = inspect.signature(function).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for keyword in call.keywords:
        assert open_ended or keyword.arg is None or keyword.arg in parameters, f"{ast.unparse(call)}: {keyword.arg}"


def test_names_in_prose_exist():
    for page, text in PAGES.items():
        for name in re.findall(r"`(zoo(?:\.\w+)+)\b", BLOCK.sub("", text)):
            assert found(name) is not None, f"{page}: {name}"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a folder that is looked through for distributions, as site-packages is."""
    from zoo import registry

    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    monkeypatch.undo()
    registry.refresh()
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_gan"]:
        del sys.modules[name]


def test_the_first_architecture_is_short_and_conforms(installed):
    from zoo import registry

    sources = {text.partition("\n")[0].removeprefix("# "): text for text in blocks("CONTRIBUTING.md", "python")}
    code = "\n".join(sources[name] for name in ("acme_gan/__init__.py", "acme_gan/model.py")).splitlines()
    assert sum(bool(line.strip()) and not line.startswith("#") for line in code) <= 40
    for name, text in sources.items():
        (installed / name).parent.mkdir(exist_ok=True)
        (installed / name).write_text(text)
    project = tomllib.loads(blocks("CONTRIBUTING.md", "toml")[0])["project"]
    name, version = project["name"], project["version"]
    info = installed / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    entries = "\n".join(f"{entry} = {module}" for entry, module in project["entry-points"]["zoo"].items())
    (info / "entry_points.txt").write_text(f"[zoo]\n{entries}\n")
    registry.refresh()
    runpy.run_path(str(installed / "test_acme.py"))["test_acme"]()


# Commands.


def commands(page: str) -> list[tuple[str, bool]]:
    """Return every `zoo VERB ...` of a page: lines of shell blocks, which are complete, and code spans."""
    shell = "\n".join(blocks(page, "sh", "bash", "console")).replace("\\\n", " ")
    lines = [re.sub(r"\s#.*", "", line).removeprefix("$ ") for line in shell.splitlines()]
    spans = re.findall(r"`([^`\n]*\bzoo [a-z]+[^`\n]*)`", BLOCK.sub("", PAGES[page]))
    pattern = re.compile(r"^(?:.*(?:&&|uv run|-m|=\S+) )?zoo ((?:[a-z]+\b|--\w+).*)$")
    given = [(line, True) for line in lines] + [(span, False) for span in spans]
    return [(match[1], complete) for text, complete in given if (match := pattern.match(text.strip()))]


def leaf(words: list[str]) -> tuple[object, list[str]]:
    """Return the command that the words name, and what is left of them."""
    import typer

    from zoo.cli.app import app

    command, name = typer.main.get_command(app), "zoo"
    while words and words[0] in getattr(command, "commands", {}):
        name, command = words[0], command.commands[words[0]]
        words = words[1:]
    assert not getattr(command, "commands", {}) or not words or words[0].startswith("-"), f"no verb {words[0]!r}"
    return (command, name), words


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_exist(page):
    for line, complete in commands(page):
        words = shlex.split(line.replace("[", "").replace("]", ""))
        (command, name), rest = leaf(words)
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "--debug"}
        for word in rest:
            if word.startswith("-") and not word[1:2].isdigit() and len(word) > 1:
                assert word.split("=")[0] in options, f"{page}: zoo {line}: no option {word}"
        if complete and "..." not in line and not getattr(command, "commands", {}):
            filled = ["1" if re.fullmatch(r"[A-Z]", word) else word for word in rest]      # K stands for a number
            command.make_context(name, filled, obj=filled)


# Tables and links.


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ("---",) * len(header), *rows])


def recipe_table() -> str:
    """Each setting of a recipe: its default, and what the field's own comment says."""
    source = inspect.getsource(zoo.Recipe)
    comment = dict(re.findall(r"^    (\w+):.*?#\s*(.*)$", source, re.MULTILINE))
    rows = []
    for field in fields(zoo.Recipe):
        if field.name in zoo.Recipe.settings():
            meaning = comment.get(field.name, "how `lr` falls over the training: `constant`, `linear` or `cosine`")
            rows.append((f"`{field.name}`", f"`{field.default}`", meaning))
    return table(("setting", "default", "meaning"), rows)


def limits(field) -> str:
    kinds = ("ge", "gt", "le", "lt")
    bounds = {kind: getattr(part, kind) for part in field.metadata for kind in kinds if hasattr(part, kind)}
    choices = [part for part in get_args(field.annotation) if isinstance(part, str)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    low = f"{bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}" if "gt" in bounds else ""
    high = f"to {bounds['le']}" if "le" in bounds else f"to below {bounds['lt']}" if "lt" in bounds else ""
    return f"{low} {high}" if high else f"{low} or more" if "ge" in bounds else low


def config_table(name: str, variant: str | None = None) -> str:
    from zoo.registry import architecture, model_class

    settings = model_class(architecture(name), variant).Config.model_fields
    told = {key: field for key, field in settings.items() if key != "variant"}
    rows = [(f"`{key}`", f"`{field.default}`", limits(field), field.description) for key, field in told.items()]
    return table(("setting", "default", "possible", "meaning"), rows)


def sizes_table() -> str:
    """What each architecture is unless told otherwise: parameters counted without allocating any, and its recipe."""
    import torch

    from zoo.registry import architecture, model_class

    rows = []
    for name in BUILT_IN:
        cls = model_class(architecture(name))
        with torch.device("meta"):
            model = cls(cls.Config())
        recipe, size = model.recipe(), model.config.resolution
        counts = [f"{part} {sum(p.numel() for p in net.parameters()):,}" for part, net in model.networks().items()]
        phases = [p.name + (f" (every {p.every})" if p.every > 1 else "") for p in recipe.phases]
        values = (f"`{recipe.batch}`", f"`{recipe.lr}`", f"`{recipe.betas}`")
        rows.append((f"`{name}`", f"{size}x{size}", ", ".join(counts), ", ".join(phases), *values))
    return table(("name", "default size", "parameters", "phases", "batch", "lr", "betas"), rows)


def formats_table() -> str:
    from zoo.conversion import format_names, load_format

    return table(("format", "what it reads"), [(f"`{name}`", load_format(name).summary) for name in format_names()])


def additions_table() -> str:
    """Every addition: its options with their defaults, and the failure that it addresses."""
    from zoo.additions.listing import listed

    rows = [row for row in listed() if row["kind"] == "addition"]
    options = [row["use"].partition(":")[2].replace(",", ", ") for row in rows]
    cells = [(f"`{row['name']}`", f"`{taken}`" if taken else "", row["failure"]) for row, taken in zip(rows, options)]
    return table(("addition", "options", "against"), cells)


def weights_table() -> str:
    """Every set of foreign weights: its name, what it makes, where it comes from, and its licence."""
    from zoo.registry import architectures

    rows = []
    for name, found in sorted(architectures().items()):
        for tag, weights in sorted(found.weights.items()):
            if weights.files:
                rows.append((f"`{name}.{tag}`", weights.summary, str(weights.repo), weights.license))
    return table(("name", "what it is", "repository", "licence"), rows)


VARIANT_TABLES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


@pytest.mark.parametrize(
    ("page", "make"),
    [
        ("docs/training.md", recipe_table),
        ("docs/training.md", additions_table),
        ("docs/architectures.md", sizes_table),
        ("docs/converting.md", formats_table),
        ("docs/converting.md", weights_table),
        *(("docs/architectures.md", lambda name=name: config_table(name)) for name in BUILT_IN),
        *(("docs/architectures.md", lambda pair=pair: config_table(*pair)) for pair in VARIANT_TABLES),
    ],
    ids=["recipe", "additions", "sizes", "formats", "weights", *BUILT_IN, *map(".".join, VARIANT_TABLES)],
)
def test_tables_are_true(page, make):
    assert make() in PAGES[page], f"{page} should hold this table:\n{make()}"


def test_transfer_methods_are_all_documented():
    from zoo.transfer import FEW, METHODS

    text = PAGES["docs/finetuning.md"]
    assert all(f"| `{name}` |" in text for name in (*METHODS, "auto"))
    assert f"{FEW:,}" in text


def test_metrics_are_all_documented():
    from zoo.metrics.names import metric_names

    rows = re.findall(r"^\| (`[^|]*`) \|", PAGES["docs/metrics.md"], re.MULTILINE)
    missing = sorted(set(metric_names()) - {name for row in rows for name in re.findall(r"`([^`]+)`", row)})
    assert not missing, f"docs/metrics.md has no row for {', '.join(missing)}"


def test_links_lead_somewhere():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#\s]+)", BLOCK.sub("", text)):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_the_distances_that_the_pages_tell_are_those_of_the_results():
    page = (ROOT / "docs/evaluation.md").read_text()
    found = Evaluation.open(ROOT / "benchmarks/results/cifar10.json")
    assert (found.receipt["fake_images"], found.receipt["real_images"]) == (50_000, 10_000)
    assert f"**{found['fid']:.3f} ± {found['fid_std_error']:.3f}**" in page
    assert f"KID {found['kid']:.7f} ± {found['kid_std_error']:.7f}" in page
    assert found["fid"] == pytest.approx(3.15, abs=0.01)

    summary = json.loads((ROOT / "benchmarks/results/evaluation.json").read_text())["summary"]
    features, distance = summary["features"], summary["frechet of covariances"]
    for ratio in (features["torch-fidelity / zoo"], distance["pytorch-fid (sqrtm) / zoo"]):
        assert f"{ratio['median']:.3g} times as long" in page
