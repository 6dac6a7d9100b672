"""zoo.convert and foreign weights by name: which format, what is refused and kept, what a fine-tune makes of it."""

import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from hub_server import running_hub  # noqa: F401
from safetensors.torch import save_file

import zoo
from zoo import conversion, registry
from zoo.cli import main
from zoo.errors import HubError, Unsupported, WeightsError
from zoo.formats.contract import Part
from zoo.training import train
from zoo.transfer import prepare

PARITY = Path(__file__).parent / "parity"
GENERATOR = PARITY / "dcgan_examples_rgb" / "netG_epoch_24.pth"

# A stranger's plugin: a format of its own, a second one that claims the same files, one that does not import, and
# weights on the Hub in a foreign format.
PLUGIN = """
    from zoo.plugin import Architecture, Weights, hookimpl

    NC = "Acme licence, non-commercial"
    REAL = {"resolution": 64, "channels": 3}
    WEIGHTS = {
        "faces": Weights("faces", license=NC, repo="acme/faces", files=("runs/netG_epoch_24.pth",),
                         format="pytorch_dcgan", expected=REAL, resolution=64, size=265_810),
        "swapped": Weights("not what it says", license="MIT", repo="acme/faces", files=("runs/netG_epoch_24.pth",),
                           expected={"resolution": 128}),
        "lost": Weights("no such file", license="MIT", repo="acme/faces", files=("runs/netG_9.pth",)),
    }

    @hookimpl
    def zoo_architectures():
        return [Architecture("acmegan", model="zoo_dcgan.model:DCGAN", summary="a stranger's", weights=WEIGHTS)]

    @hookimpl
    def zoo_formats():
        return {"acme": "acme_formats:ACME", "acme_again": "acme_formats:AGAIN", "acme_broken": "acme_formats:NOTHING"}
"""
FORMATS = """
    from dataclasses import replace
    import torch
    from zoo.formats.contract import Converted, Format, Part, state_dict

    def recognise(source):
        return all("acme.head" in (state_dict(tree) or {}) for tree in source.files.values())

    def read(source):
        file, tensors = source.only()
        part = Part(file, tensors, "net")
        part.move("acme.head", "weight", lambda tensor: tensor.T)
        part.fill("bias", torch.zeros(len(part.peek("acme.head").T)))
        return Converted("tinynet", {"resolution": 4, "channels": 1}, [part.close()], license="CC0-1.0")

    ACME = Format("acme", "a stranger's", (r"acme.*",), recognise, read)
    AGAIN = replace(ACME, name="acme_again", recognise=lambda source: "twice" in str(source.path))
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """The stranger's plugin, installed as any is; caches of this test alone."""
    from test_conformance import MODELS
    from test_registry import install

    folder = install(tmp_path / "site", "acme-gan", dedent(PLUGIN))
    (folder / "acme_formats.py").write_text(dedent(FORMATS))
    tiny = "from zoo.plugin import Architecture, hookimpl\n\n@hookimpl\ndef zoo_architectures():\n"
    tiny += '    return [Architecture("tinynet", model="tinynet_model:Sound", summary="one layer")]\n'
    install(tmp_path / "site2", "tinynet", tiny)
    (tmp_path / "site2" / "tinynet_model.py").write_text(dedent(MODELS))
    for each in (folder, tmp_path / "site2"):
        monkeypatch.syspath_prepend(str(each))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    registry.refresh()
    conversion.load_format.cache_clear()
    yield
    monkeypatch.undo()
    registry.refresh()
    conversion.load_format.cache_clear()
    for name in ("acme_gan", "acme_formats", "tinynet", "tinynet_model"):      # other tests have plugins of these names
        sys.modules.pop(name, None)


@pytest.fixture
def foreign(stranger, tmp_path):
    path = tmp_path / "acme-7.safetensors"
    save_file({"acme.head": torch.arange(64.0).reshape(4, 16)}, path)
    return path


# Formats.


@pytest.mark.parametrize(
    ("ask", "word"),
    [
        (lambda part: part.size("gain", 1), r"x.pt, G: tensor 'gain' has the unexpected shape \[3\]"),
        (lambda part: part.size("empty"), r"'empty' has the unexpected shape \[0, 2\]"),
        (lambda part: part.shape("gain", 2), "'gain' has the unexpected shape"),
        (lambda part: part.shape("gone", 1), "x.pt, G: tensor 'gone' is missing"),
        (lambda part: part.move_layer("dense", "head"), "'dense.bias' is missing"),
    ],
)
def test_a_part_names_its_file_its_network_and_the_tensor(ask, word):
    tensors = {"gain": torch.ones(3), "empty": torch.ones(0, 2), "dense.weight": torch.ones(2, 3)}
    part = Part("x.pt", tensors, "generator", "G")
    assert (part.file, part.size("dense.weight", 1), part.shape("dense.weight", 2)) == ("x.pt", 3, (2, 3))
    with pytest.raises(zoo.ZooError, match=word):
        ask(part)


def test_a_strangers_format_reads_a_strangers_file(foreign, tmp_path):
    with pytest.warns(UserWarning, match="acme_broken"):
        model = zoo.convert(foreign)
    assert model.architecture == "tinynet"
    assert torch.equal(model.net.weight, torch.arange(64.0).reshape(4, 16).T)
    assert model.origin["license"] == "CC0-1.0"
    assert model.origin["source"]["format"] == "acme"
    assert list(model.origin["source"]["files"]) == ["acme-7.safetensors"]
    again = zoo.load(f"dir:{zoo.save(model, tmp_path / 'saved')}")
    assert torch.equal(again.sample(2, seed=0), model.sample(2, seed=0))
    assert again.origin["source"] == model.origin["source"]


@pytest.mark.filterwarnings("ignore")
def test_two_claims_ask_for_a_choice(foreign, tmp_path):
    twice = tmp_path / "twice.safetensors"
    shutil.copy(foreign, twice)
    with pytest.raises(WeightsError, match="'acme', 'acme_again'"):
        zoo.convert(twice)
    assert zoo.convert(twice, format="acme").architecture == "tinynet"


def test_a_format_is_named_or_refused(foreign):
    with pytest.raises(zoo.ZooError, match="Did you mean 'acme'"):
        zoo.convert(foreign, format="acm")
    with pytest.raises(zoo.ZooError, match="does not import"):
        zoo.convert(foreign, format="acme_broken")
    with pytest.raises(zoo.ZooError, match="give 'auto' or one of"):
        zoo.convert(foreign, format=7)


def test_a_folder_is_searched_for_the_files_of_each_format(foreign, tmp_path):
    folder = tmp_path / "download"
    folder.mkdir()
    (folder / "README.md").write_text("# Acme")
    shutil.copy(foreign, folder / "acme.safetensors")
    save_file({"other": torch.zeros(1)}, folder / "acme_optimizer.safetensors")      # a name like the format's
    assert zoo.convert(folder, format="acme").architecture == "tinynet"
    shutil.copy(foreign, folder / "acme_2.safetensors")
    with pytest.raises(WeightsError, match=r"several checkpoints \(acme\.safetensors, acme_2\.safetensors\)"):
        zoo.convert(folder, format="acme")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"acme.head": torch.zeros(4, 15)}, "'acme.head' is [15, 4] after conversion"),
        ({"acme.tail": torch.zeros(1)}, "'acme.tail' is unknown"),
        ({"acme.head": torch.full((4, 16), float("nan"))}, "'acme.head' holds values that are not finite"),
        ({"acme.head": torch.zeros(4, 16, dtype=torch.int32)}, "'acme.head' holds torch.int32"),
        ({"acme.head": torch.zeros(4)}, "acme"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_that_the_file_has(foreign, change, words):
    save_file({"acme.head": torch.zeros(4, 16), **change}, foreign)
    with pytest.raises(WeightsError) as caught:
        zoo.convert(foreign, format="acme")
    assert words in str(caught.value)
    assert "acme-7.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_what_nobody_knows_is_refused_with_the_known_formats(foreign, tmp_path, tiny):
    save_file({"nothing": torch.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match=r"none of the known formats: acme, .*pytorch_dcgan"):
        zoo.convert(foreign)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="no file by a known name"):
        zoo.convert(tmp_path / "empty")
    with pytest.raises(WeightsError, match="is no checkpoint of the format pytorch_dcgan"):
        zoo.convert(foreign, format="pytorch_dcgan")
    (tmp_path / "outer").mkdir()
    shutil.copytree(GENERATOR.parent, tmp_path / "outer" / "inner")
    with pytest.raises(WeightsError, match="look into its folders inner"):
        zoo.convert(tmp_path / "outer")
    with pytest.raises(WeightsError, match="does not exist"):
        zoo.convert(tmp_path / "nowhere.pt")
    with pytest.raises(WeightsError, match="no path"):
        zoo.convert(None)
    with pytest.raises(WeightsError, match="is a zoo model already"):
        zoo.convert(zoo.save(tiny("dcgan"), tmp_path / "ours"))
    save_file({"acme.head": torch.zeros(4, 16)}, foreign)
    with pytest.raises(WeightsError, match="tinynet has no setting 'size'"):
        zoo.convert(foreign, format="acme", size=3)


def test_a_folder_with_one_file_under_a_name_of_its_own(tmp_path):
    shutil.copy(GENERATOR, tmp_path / "my favourite.pt")
    (tmp_path / "notes.txt").write_text("from a friend")
    assert zoo.convert(tmp_path).absent == ("discriminator",)


# The command line.


def test_convert_writes_a_model_and_says_what_it_is(tmp_path, capsys):
    out = tmp_path / "converted"
    assert main(["convert", str(GENERATOR), str(out)]) == 0
    said = capsys.readouterr().out
    assert "netG_epoch_24.pth (pytorch_dcgan): dcgan at 64 pixels" in said
    assert zoo.load(f"dir:{out}").absent == ("discriminator",)
    assert main(["convert", str(GENERATOR), str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["convert", str(GENERATOR), str(tmp_path / "again"), "--format", "pytorch_dcgan", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["networks"], facts["absent"]) == (["generator"], ["discriminator"])
    config = json.loads((out / "config.json").read_text())
    assert config["absent"] == ["discriminator"]
    assert set(config["origin"]["source"]["files"]) == {"netG_epoch_24.pth"}


def test_convert_refuses_in_one_line(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(b"no checkpoint")
    for arguments in (
        [str(tmp_path / "x.pth"), str(tmp_path / "o")],
        [str(tmp_path / "none.pth"), str(tmp_path / "o")],
        [str(GENERATOR), str(tmp_path / "o"), "--format", "pickle"],
        [str(GENERATOR), str(tmp_path / "o"), "--set", "size=3"],
        [str(GENERATOR), str(tmp_path / "o"), "--set", "size"],
        [str(GENERATOR), str(tmp_path / "o"), "--set", "format=auto"],
    ):
        assert main(["convert", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("zoo: ")
        assert error.count("\n") == 1
        assert not (tmp_path / "o").exists()


# Foreign weights by name.


@pytest.fixture
def faces(stranger, hub):
    content = GENERATOR.read_bytes()
    hub.publish("acme/faces", {"runs/netG_epoch_24.pth": content, "README.md": b"---\nlicense: mit\n---\n"})
    return hub


@pytest.mark.filterwarnings("ignore:The format")
def test_foreign_weights_are_fetched_and_converted_once(faces, tmp_path):
    with pytest.warns(UserWarning, match=r"acmegan\.faces is licensed for non-commercial use only: Acme licence"):
        model = zoo.load("acmegan.faces")
    direct = zoo.convert(GENERATOR)
    assert torch.equal(model.sample(2, seed=0), direct.sample(2, seed=0))
    assert model.origin["name"] == "acmegan.faces"
    assert model.origin["license"] == "Acme licence, non-commercial"      # the entry's, not the repository's tag
    assert model.origin["repo"] == "acme/faces"
    assert model.origin["source"]["files"] == direct.origin["source"]["files"]
    asked = len(faces.requests)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)                       # the licence is said once
        again = zoo.load("acmegan.faces", cache_dir=None)
    assert len(faces.requests) == asked
    assert torch.equal(again.sample(2, seed=0), model.sample(2, seed=0))
    assert not list((tmp_path / "home").rglob(".draft-*"))


@pytest.mark.filterwarnings("ignore")
def test_converted_weights_that_were_damaged_are_made_again(faces, tmp_path):
    before = zoo.load("acmegan.faces").sample(1, seed=0)
    (kept,) = (tmp_path / "home" / "converted").glob("*/model.safetensors")
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    assert torch.equal(zoo.load("acmegan.faces").sample(1, seed=0), before)
    assert kept.read_bytes() != bytes(content)


@pytest.mark.filterwarnings("ignore")
def test_foreign_weights_that_are_not_what_the_entry_says(faces, tmp_path):
    with pytest.raises(WeightsError, match="has resolution=64, not 128"):
        zoo.load("acmegan.swapped")
    with pytest.raises(HubError, match=r"holds no file runs/netG_9\.pth"):
        zoo.load("acmegan.lost")
    assert not list((tmp_path / "home" / "converted").glob("*/"))


@pytest.mark.filterwarnings("ignore")
def test_a_cut_foreign_file_leaves_no_trace_in_the_cache(stranger, hub, tmp_path):
    hub.publish("acme/faces", {"runs/netG_epoch_24.pth": GENERATOR.read_bytes()[:100_000]})
    with pytest.raises(WeightsError, match=r"netG_epoch_24\.pth"):
        zoo.load("acmegan.faces")
    assert not list((tmp_path / "home" / "converted").glob("*"))


@pytest.mark.filterwarnings("ignore")
def test_a_cache_that_cannot_be_written_is_named(faces, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="set ZOO_HOME"):
        zoo.load("acmegan.faces")


@pytest.mark.filterwarnings("ignore")
def test_list_says_what_is_here_and_how_large_it_is(faces, capsys):
    def row() -> dict:
        assert main(["list", "acmegan.*", "--json"]) == 0
        return next(each for each in json.loads(capsys.readouterr().out) if each["tag"] == "faces")

    assert (row()["cached"], row()["bytes"], row()["resolution"]) == (False, 265_810, 64)
    zoo.load("acmegan.faces")
    assert row()["cached"] is True
    assert row()["bytes"] > 265_810 / 2
    assert main(["list", "acmegan.*"]) == 0
    assert "non-commercial" in capsys.readouterr().out


def test_every_published_entry_can_be_converted_by_an_installed_format():
    for name, found in registry.architectures().items():
        for tag, weights in found.weights.items():
            if weights.files:
                assert weights.paper, f"{name}.{tag}"
                assert weights.expected, f"{name}.{tag}"
                assert weights.format in conversion.format_names(), f"{name}.{tag}"
                fields = registry.model_class(found, weights.expected.get("variant")).Config.model_fields
                assert set(weights.expected) <= set(fields), f"{name}.{tag}"


# Weights that lack a network.


@pytest.fixture
def lone(tiny, tmp_path):
    """A trained DCGAN's generator, saved without its discriminator."""
    model = tiny("dcgan")
    model.without(["discriminator"])
    return zoo.save(model, tmp_path / "lone")


def test_weights_without_a_discriminator_say_so(lone):
    model = zoo.load(f"dir:{lone}")
    assert model.absent == ("discriminator",)
    assert list(model.networks()) == ["generator"]
    with pytest.raises(Unsupported, match="came without"):
        model.logits(model.sample(1))
    with pytest.raises(Unsupported, match="hold no discriminator"):
        _ = model.discriminator
    assert "discriminator" not in json.dumps(list(model.state_dict()))
    with pytest.raises(zoo.ZooError, match="cannot do without"):
        model.without(["generator"])


def test_weights_with_a_discriminator_alone_judge_and_do_not_sample(tiny, tmp_path):
    whole = tiny("dcgan")
    images = whole.sample(3, seed=0)
    expected = whole.logits(images)
    loaded = zoo.load(f"dir:{zoo.save(whole.without(['generator']), tmp_path / 'd')}")
    assert torch.equal(loaded.logits(images), expected)
    with pytest.raises(Unsupported, match="hold no generator"):
        loaded.sample(1)


def test_an_absent_network_is_checked_like_any_name(lone):
    config = json.loads((lone / "config.json").read_text())
    (lone / "manifest.json").unlink()
    (lone / "config.json").write_text(json.dumps({**config, "absent": ["critic"]}))
    with pytest.raises(zoo.ZooError, match="cannot do without critic"):
        zoo.load(f"dir:{lone}")


def test_a_fine_tune_gives_a_fresh_discriminator_that_learns_alone_first(lone, tmp_path):
    parent = zoo.load(f"dir:{lone}")
    kept = {name: value.clone() for name, value in parent.generator.state_dict().items()}
    data = images_for(parent, tmp_path / "data")
    model, images, recipe, facts = prepare(parent, data, "auto", 0.128, {}, lambda model, recipe: recipe)
    assert facts["fresh"] == ["discriminator"]
    assert facts["method"] == "full"
    assert recipe.fresh == ("discriminator",)
    assert recipe.warmup_kimg > 0
    untrained = {name: value.clone() for name, value in model.discriminator.state_dict().items()}
    all_warm = replace(recipe, warmup_kimg=1.0, batch=8)
    train(model, images, kimg=0.064, out=tmp_path / "warm", recipe=all_warm, sample_kimg=0.016)
    for name, value in model.generator.state_dict().items():
        assert torch.equal(value, kept[name]), f"{name} moved in the warm-up"
    for name, value in model.discriminator.named_parameters():
        assert not torch.equal(value, untrained[name]), f"{name} stood still"


def test_after_the_warm_up_everything_moves_and_a_resume_repeats_it(lone, tmp_path):
    def run(out: str, kimg: float, **options) -> zoo.Run:
        torch.manual_seed(0)
        return zoo.finetune(
            f"dir:{lone}", data, kimg=kimg, out=tmp_path / out, checkpoint_kimg=0.016,
            settings={"warmup_kimg": 0.032, "batch": 8, "ema_kimg": 0.1}, **options,
        )  # fmt: skip

    data = images_for(zoo.load(f"dir:{lone}"), tmp_path / "data")
    whole = run("whole", 0.064).model
    assert whole.absent == ()
    parent = zoo.load(f"dir:{lone}").generator.state_dict()
    assert all(not torch.equal(value, parent[name]) for name, value in whole.generator.named_parameters())
    run("cut", 0.064)
    checkpoints = sorted((tmp_path / "cut" / "checkpoints").iterdir())
    shutil.rmtree(checkpoints[-1])                        # as if killed after the step before
    resumed = run("cut", 0.064, resume=True).model
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_fresh_discriminator_has_nothing_to_freeze(lone, tmp_path):
    data = images_for(zoo.load(f"dir:{lone}"), tmp_path / "data")
    with pytest.raises(Unsupported, match="this one is fresh"):
        zoo.finetune(f"dir:{lone}", data, kimg=0.01, out=tmp_path / "run", method="freeze_d")


def images_for(model: zoo.Model, folder: Path) -> Path:
    from zoo.images import save_grid

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(16):
        size = model.config.resolution
        save_grid(torch.rand(1, model.config.channels, size, size, generator=generator) * 2 - 1, folder / f"{i}.png")
    return folder
