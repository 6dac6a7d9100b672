"""One broken plugin never stops another: each fault is caused by a real distribution on disk, and is named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from zoo import registry
from zoo.errors import PluginError, UnknownName, ZooError

BUILT_IN = {"dcgan", "stylegan", "stylegan3", "biggan", "r3gan", "vae"}
BUNDLED = BUILT_IN - {"stylegan3", "r3gan"}      # those with weights in the package itself
HEAD = "from zoo.plugin import Architecture, Weights, hookimpl\n"
GOOD = HEAD + dedent("""
    @hookimpl
    def zoo_architectures():
        return [Architecture("good", model="good_gan.model:Good", summary="works")]
""")
PROBE = dedent("""
    import dataclasses, json, sys
    from zoo import registry
    answers = []
    for name in sys.argv[1:]:
        try:
            answers.append(registry.architecture(name).summary)
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error}")
    plugins = [dataclasses.asdict(record) for record in registry.plugins()]
    print(json.dumps({"plugins": plugins, "names": registry.list_architectures(), "answers": answers}))
""")


def install(folder: Path, distribution: str, source: str, *, entry=None, value=None, module=None, version="2.1"):
    """Put a distribution's metadata and module where `PYTHONPATH=folder` finds them."""
    module = module or distribution.replace("-", "_")
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[zoo]\n{entry or distribution.split('-')[0]} = {value or module}\n")
    (folder / f"{module}.py").write_text(source)
    return folder


def probe(*folders: Path, ask: tuple[str, ...] = (), **environment: str) -> dict:
    """Ask a fresh process what it finds; its standard output must be that one document."""
    path = os.pathsep.join(map(str, folders))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *ask],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return {**found, "stderr": done.stderr, "by_name": {record["name"]: record for record in found["plugins"]}}


def with_arch(name: str, summary: str = "stranger") -> str:
    return HEAD + dedent(f"""
        @hookimpl
        def zoo_architectures():
            return [Architecture({name!r}, model="acme.model:Acme", summary={summary!r})]
    """)


FAULTS = {
    "import error": ("import einopsy_that_nobody_has", ("ModuleNotFoundError", "einopsy_that_nobody_has")),
    "syntax error": ("def broken(:\n", ("SyntaxError",)),
    "exit at import": ("raise SystemExit(0)", ("SystemExit",)),
    "exception that is no Exception": ("class Panic(BaseException): pass\nraise Panic('at disco')", ("Panic", "disco")),
    "many lines": ("raise RuntimeError('first\\nsecond \\x1b[31mred')", ("first second", "red")),
    "extra argument": (
        HEAD + "@hookimpl\ndef zoo_architectures(pipeline):\n    return []\n",
        ("zoo_architectures", "pipeline"),
    ),
    "hook raises": (HEAD + "@hookimpl\ndef zoo_architectures():\n    raise KeyError('hue')\n", ("KeyError", "hue")),
    "hook exits": (HEAD + "@hookimpl\ndef zoo_architectures():\n    raise SystemExit\n", ("SystemExit",)),
    "late fault": (
        HEAD + "@hookimpl\ndef zoo_architectures():\n    yield Architecture('acme', model='no class', summary='')\n",
        ("'no class'", "package.module:Class"),
    ),
    "misspelt hook": (
        HEAD + "@hookimpl\ndef zoo_architecture():\n    return []\n",
        ("Did you mean 'zoo_architectures'?",),
    ),
    "misspelt, unmarked": ("def zoo_archtectures():\n    return []\n", ("Did you mean 'zoo_architectures'?",)),
    "mark on a stray name": (HEAD + "@hookimpl\ndef metrics():\n    return {}\n", ("'metrics' is no hook",)),
    "marker forgotten": ("def zoo_architectures():\n    return []\n", ("@zoo.hookimpl",)),
    "no hook": ("name = 'acme'\n", ("no hook", "zoo_architectures")),
    "returns nothing": (HEAD + "@hookimpl\ndef zoo_architectures():\n    pass\n", ("returned None",)),
    "returns a number": (HEAD + "@hookimpl\ndef zoo_architectures():\n    return 7\n", ("int", "zoo.Architecture")),
    "returns names": (HEAD + "@hookimpl\ndef zoo_architectures():\n    return ['acme']\n", ("with str",)),
    "one name twice": (
        HEAD + "@hookimpl\ndef zoo_architectures():\n"
        "    return [Architecture('acme', model='a.b:C', summary=each) for each in 'xy']\n",
        ("two architectures", "'acme'"),
    ),
    "wrong metrics": (HEAD + "@hookimpl\ndef zoo_metrics():\n    return {'fid': print}\n", ("zoo_metrics", "mapping")),
    "bad tag": (
        HEAD + "@hookimpl\ndef zoo_architectures():\n"
        "    w = {'No Tag': Weights('x', 'MIT', repo='a/b')}\n"
        "    return [Architecture('acme', model='a.b:C', summary='', weights=w)]\n",
        ("'No Tag'",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_and_stops_nobody(fault, tmp_path):
    source, words = FAULTS[fault]
    install(tmp_path, "acme-gan", source)
    install(tmp_path, "good-gan", GOOD)
    found = probe(tmp_path, ask=("good", "acme"))
    assert found["names"] == sorted(BUILT_IN | {"good"})
    record = found["by_name"]["acme"]
    assert (record["status"], record["distribution"], record["version"]) == ("failed", "acme-gan", "2.1")
    assert all(word in record["reason"] for word in words), record["reason"]
    assert record["reason"].isprintable()
    assert found["answers"][0] == "works"
    assert "acme-gan 2.1" in found["answers"][1]            # who asks for it hears why it is missing
    assert found["answers"][1].isprintable()
    assert {each["name"]: each["status"] for each in found["plugins"]}["dcgan"] == "ok"


def test_entry_point_to_a_missing_module_or_attribute(tmp_path):
    install(tmp_path, "acme-gan", GOOD, value="acme_gan:plugin")
    install(tmp_path, "gone-gan", GOOD, value="nowhere.to_be_found", entry="gone")
    install(tmp_path, "odd-gan", GOOD, value="not an entry point!", entry="odd")
    found = probe(tmp_path)
    assert set(found["names"]) == BUILT_IN
    assert "AttributeError" in found["by_name"]["acme"]["reason"]
    assert "nowhere" in found["by_name"]["gone"]["reason"]
    assert found["by_name"]["odd"]["status"] == "failed"


def test_prints_at_import_and_in_hooks_leave_standard_output_alone(tmp_path):
    source = "print('hello from import')\n" + GOOD.replace("return", "print('and a hook'); return")
    install(tmp_path, "good-gan", source)
    found = probe(tmp_path)                               # its output would not parse otherwise
    assert "good" in found["names"]
    assert "hello from import" in found["stderr"]
    assert "and a hook" in found["stderr"]


def test_same_entry_point_name_in_two_distributions(tmp_path):
    install(tmp_path, "acme-one", with_arch("one"), entry="acme")
    install(tmp_path, "acme-two", with_arch("two"), entry="acme")
    found = probe(tmp_path)
    assert {"one", "two"} <= set(found["names"])
    assert [r["distribution"] for r in found["plugins"] if r["name"] == "acme"] == ["acme-one", "acme-two"]


def test_two_strangers_claim_one_name(tmp_path):
    install(tmp_path, "acme-one", with_arch("same"))
    install(tmp_path, "other-two", with_arch("same"))
    install(tmp_path, "good-gan", GOOD)
    found = probe(tmp_path, ask=("same",))
    assert set(found["names"]) == BUILT_IN | {"good"}
    assert found["answers"][0].startswith("PluginError")
    for text in (found["answers"][0], found["by_name"]["acme"]["reason"], found["by_name"]["other"]["reason"]):
        assert "acme-one 2.1" in text
        assert "other-two 2.1" in text
        assert "ZOO_BLOCK=" in text
    settled = probe(tmp_path, ask=("same",), ZOO_BLOCK="other-two")
    assert settled["answers"] == ["stranger"]
    assert settled["by_name"]["other"]["status"] == "blocked"


def test_a_stranger_cannot_take_a_built_in_name(tmp_path):
    other = "Architecture('other', model='acme.model:Acme', summary='kept')]"
    install(tmp_path, "aaa-gan", with_arch("stylegan").replace(")]", f"), {other}"))
    found = probe(tmp_path, ask=("stylegan", "other"))
    assert found["answers"][0] != "stranger"
    assert found["answers"][1] == "kept"
    record = found["by_name"]["aaa"]
    assert (record["status"], record["architectures"]) == ("failed", ["other"])
    assert "genzoo" in record["reason"]
    assert "aaa-gan 2.1" in record["reason"]
    assert found["by_name"]["stylegan"]["status"] == "ok"


def test_same_distribution_twice_on_the_path(tmp_path):
    first = install(tmp_path / "a", "good-gan", GOOD)
    second = install(tmp_path / "b", "Good_GAN", GOOD.replace("works", "shadowed"), module="good_gan", version="1.0")
    found = probe(first, second, ask=("good",))
    assert [record["version"] for record in found["plugins"] if record["name"].lower().startswith("good")] == ["2.1"]
    assert found["answers"] == ["works"]


def test_one_module_behind_two_distributions(tmp_path):
    install(tmp_path, "acme-one", with_arch("one"))
    install(tmp_path, "copy-two", "", value="acme_one")
    found = probe(tmp_path)
    assert "one" in found["names"]
    assert "acme-one 2.1" in found["by_name"]["copy"]["reason"]


def test_metadata_that_cannot_be_read_is_passed_over(tmp_path):
    install(tmp_path, "good-gan", GOOD)
    (tmp_path / "torn-1.0.dist-info").mkdir()
    (tmp_path / "torn-1.0.dist-info" / "entry_points.txt").write_text("[zoo]\ntorn = torn\n")
    (tmp_path / "garbled-1.0.dist-info").mkdir()
    (tmp_path / "garbled-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "garbled-1.0.dist-info" / "entry_points.txt").write_text("no section\n")
    assert "good" in probe(tmp_path)["names"]


@pytest.mark.parametrize("block", ["good", "good-gan", "GOOD_gan", "x, good"])
def test_block_by_entry_point_or_distribution(block, tmp_path):
    install(tmp_path, "good-gan", GOOD.replace("@hookimpl", "print('imported')\n@hookimpl"))
    found = probe(tmp_path, ask=("good",), ZOO_BLOCK=block)
    assert set(found["names"]) == BUILT_IN
    assert found["by_name"]["good"]["status"] == "blocked"
    assert "ZOO_BLOCK" in found["answers"][0]
    assert "imported" not in found["stderr"]              # blocked means: none of its code runs


def test_a_built_in_can_be_blocked():
    found = probe(ZOO_BLOCK="vae,biggan")
    assert set(found["names"]) == BUILT_IN - {"vae", "biggan"}


def test_optional_hook_of_another_version_is_no_fault(tmp_path):
    install(tmp_path, "good-gan", GOOD + "\n@hookimpl(optionalhook=True)\ndef zoo_from_the_future():\n    return []\n")
    assert "good" in probe(tmp_path)["names"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a distribution for this process, and forget it afterwards."""

    def put(*arguments, **options):
        install(tmp_path, *arguments, **options)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "acme_gan", raising=False)
        registry.refresh()

    yield put
    sys.modules.pop("acme_gan", None)
    monkeypatch.undo()
    registry.refresh()


def test_metrics_and_features_of_plugins(installed):
    installed("acme-gan", HEAD + dedent("""
        @hookimpl
        def zoo_metrics():
            return {"acme_score": "acme_gan:score"}
        @hookimpl
        def zoo_features():
            return {"acme_net": "acme_gan:net"}
    """))  # fmt: skip
    assert registry.metrics()["acme_score"] == "acme_gan:score"
    assert registry.features()["acme_net"] == "acme_gan:net"
    assert "acme_score" not in registry.features()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("acme_model:Acme", ("acme-gan 2.1", "ModuleNotFoundError")),
        ("acme_gan:Missing", ("acme-gan 2.1", "AttributeError")),
        ("acme_gan:hookimpl", ("acme-gan 2.1", "zoo.Model")),
        ("acme_gan:Architecture", ("acme-gan 2.1", "zoo.Model")),
    ],
)
def test_model_class_that_is_none(installed, model, words):
    installed("acme-gan", with_arch("acme").replace("acme.model:Acme", model))
    with pytest.raises(PluginError) as caught:
        registry.model_class(registry.architecture("acme"))
    assert all(word in str(caught.value) for word in words)


def test_model_class_imports_the_class():
    from zoo import Model

    assert issubclass(registry.model_class(registry.architecture("dcgan")), Model)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stylgan", ("Did you mean 'stylegan'?", "biggan, dcgan, r3gan, stylegan, stylegan3, vae")),
        ("StyleGAN ", ("Did you mean 'stylegan'?",)),
        ("st\u0443legan", (r"st\u0443legan", "Did you mean 'stylegan'?")),
        ("stylegan.emoji23", ("Did you mean 'emoji32'?", "stylegan.emoji32")),
        ("stylegan.", ("stylegan.emoji32",)),
        ("acme/cats", ("hub:", "dir:")),
        ("../stylegan", ("dir:",)),
        ("", ("''",)),
        ("\x1b[31m\n", ("\\x1b",)),
        ("x" * 10_000, ("xxx...",)),
    ],
)
def test_unknown_name_says_what_is_possible(name, words):
    with pytest.raises(UnknownName) as caught:
        registry.resolve(name)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.isprintable()
    assert len(message) < 1000


def test_no_default_weights(installed):
    installed("acme-gan", with_arch("acme"))
    with pytest.raises(ZooError, match=r"no default weights.*zoo\.create\('acme'\)"):
        registry.resolve("acme")
    assert not [name for name in registry.list_models() if name.startswith("acme")]
    assert "acme" in registry.list_architectures()


def test_names_and_patterns():
    assert set(registry.list_architectures()) >= BUILT_IN
    assert registry.list_models() == sorted(registry.list_models())
    assert "biggan.emoji32" in registry.list_models()
    assert registry.list_models("*gan.emoji32") == ["biggan.emoji32", "dcgan.emoji32", "stylegan.emoji32"]
    assert registry.list_models("vae") == registry.list_models("vae.*") != []
    assert registry.list_models("nothing*") == []


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_default_weights_of_the_bundled(name):
    architecture, tag, weights = registry.resolve(name)
    assert registry.resolve(f"{name}.{tag}") == (architecture, tag, weights)
    assert (architecture.name, tag) == (name, architecture.default)
    assert weights.bundled
    assert weights.license
