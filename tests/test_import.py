"""What must stay light stays light, and the public surface is whole."""

import json
import subprocess
import sys

import pytest

import zoo

HEAVY = {"torch", "timm", "accelerate", "huggingface_hub", "torchvision", "matplotlib", "numpy", "PIL"}
RUN = "import json, sys; from zoo.cli import main; code = main(sys.argv[1:])"
LOADED = "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]), file=sys.stderr)"


def loaded_after(statements: str, *arguments: str) -> tuple[int, set[str]]:
    """Run statements in a fresh process and return `code` and the top-level packages that were imported."""
    done = subprocess.run([sys.executable, "-c", f"{statements}\n{LOADED}", *arguments], capture_output=True, text=True)
    code, names = json.loads(done.stderr.splitlines()[-1])
    return code, set(names)


def test_import_zoo_loads_nothing_heavy():
    _, names = loaded_after("import json, sys, zoo; code = 0")
    assert not names & (HEAVY | {"pluggy", "typer", "rich", "pydantic"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "*gan*", "--json"],
        ["info", "stylegan"],
        ["info", "vae.emoji32", "--json"],
        ["--help"],
        ["train", "--help"],
        ["plugins", "list"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(arguments):
    code, names = loaded_after(RUN, *arguments)
    assert code == 0
    assert not names & HEAVY


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_public_name_is_there(name):
    assert getattr(zoo, name) is not None
    assert name in dir(zoo)


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        zoo.lod  # noqa: B018


def test_star_import_brings_all_of_it():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from zoo import *; print('torch' in sys.modules, train.__name__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "train"]


def test_models_without_memory_need_no_compiler():
    """Loading builds a model without memory first; torch answers some calls there by importing its compiler."""
    code = "import json, sys; from zoo.weights import build\nfor name in sys.argv[1:]:\n"
    code += "    build(name, {'resolution': 32}, device='meta'); print(name, 'torch._dynamo' in sys.modules)"
    names = zoo.list_architectures()
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} False" for name in names]


def test_names_of_an_entry_module_load_no_torch():
    _, names = loaded_after("import json, sys; from zoo import Architecture, Weights, ZooError, hookimpl; code = 0")
    assert not names & HEAVY
