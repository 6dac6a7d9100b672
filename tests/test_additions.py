"""What `--add`, `--set loss=` and recipe files make of a training, through the public surface."""

from __future__ import annotations

import json
import re

import pytest
import torch
from faults.undisturbed import differences
from test_registry import install

import zoo
from zoo import registry
from zoo.additions.apply import added
from zoo.additions.listing import LOSSES, listed
from zoo.additions.names import addition, addition_names
from zoo.additions.texts import completed, options, parsed, shown
from zoo.cli import main
from zoo.data import open_images
from zoo.errors import PluginError
from zoo.losses import ADVERSARIAL
from zoo.weights import load

DCGAN = {"resolution": 16, "latent": 8, "generator_width": 8, "discriminator_width": 8}
# Addition -> what is given with it, and the terms and watched values that the log then has beside the plain ones.
CASES: dict[str, tuple[dict[str, object], set[str]]] = {
    "apa:kimg=2": ({}, set()),
    "bcr": ({}, {"discriminator.consistency", "discriminator.consistency_fake"}),
    "bures": ({}, {"generator.bures"}),
    "cr": ({}, {"discriminator.consistency"}),
    "critic_steps:n=2": ({"loss": "wasserstein", "add": ["weight_clipping:limit=0.1"]}, set()),
    "dragan": ({}, {"discriminator.gradient_penalty"}),
    "fading_penalty": ({"add": ["r1"]}, {"discriminator.r1"}),
    "feature_matching": ({}, {"generator.feature_matching"}),
    "gradient_penalty": ({"loss": "wasserstein", "add": ["critic_steps:n=2"]}, {"discriminator.gradient_penalty"}),
    "instance_noise": ({}, set()),
    "lecam:weight=0.01": ({}, {"discriminator.lecam"}),
    "minibatch_std": ({}, set()),
    "mode_seeking:weight=0.1": ({}, {"generator.mode_seeking"}),
    "orthogonal": ({}, {"generator.orthogonal"}),
    "pacgan": ({}, set()),
    "r1:every=4": ({}, {"r1.r1", "r1.r1_gradient"}),
    "r2": ({"loss": "relativistic", "add": ["r1"]}, {"discriminator.r1", "discriminator.r2"}),
    "spectral_norm": ({"loss": "hinge"}, set()),
    "top_k": ({}, set()),
    "ttur": ({}, set()),
    "unrolled:steps=2": ({}, set()),
    "weight_clipping:limit=0.1": ({"loss": "wasserstein"}, set()),
    "zcr": ({}, {"discriminator.latent_consistency", "generator.latent_variety"}),
}


@pytest.fixture(scope="module")
def images():
    return open_images("emoji:smileys-emotion", resolution=16, channels=3)


def trained(images, out, *, steps=200, model=None, loss=None, **options):
    torch.manual_seed(0)
    model = model or zoo.create("dcgan", **DCGAN)
    settings = {"batch": 8, **({"loss": loss} if loss else {})}
    return zoo.train(model, images, kimg=steps * 0.008, out=out, settings=settings, tick_kimg=0.4, **options)


def check(run, steps, *, terms=frozenset()):
    last = run.log[-1]
    assert terms <= set(last["terms"])
    broken = [name for name, value in last["terms"].items() if value is None]
    assert not broken
    assert last["step"] == steps
    assert run.faults == {"skipped": 0, "rollbacks": 0} or not any(run.faults.values())
    if steps >= 200:      # before, the average has hardly left the beginning
        samples = run.model.sample(16, seed=0)
        assert float(samples.std(0).mean()) > 0.02      # not one image of all latents


def test_every_built_in_addition_is_played():
    built_in = {name for name, place in addition_names().items() if place.startswith("zoo.additions.")}
    assert {parsed(text)[0] for text in CASES} == built_in - {"progressive"}      # see tests/test_progressive.py


STEPS = [20, pytest.param(200, marks=pytest.mark.slow)]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("text", sorted(CASES))
def test_so_many_steps_with_an_addition(text, steps, images, tmp_path):
    given, terms = CASES[text]
    add = [text, *given.get("add", [])]
    run = trained(images, tmp_path / "run", steps=steps, loss=given.get("loss"), add=add)
    check(run, steps, terms=terms)
    name, chosen = parsed(text)
    complete = shown(name, completed(addition(name).apply, chosen, name))
    assert complete in run.settings["recipe"]["added"]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("loss", sorted(set(ADVERSARIAL) - {"wasserstein"}))
def test_so_many_steps_with_a_loss(loss, steps, images, tmp_path):
    run = trained(images, tmp_path / "run", steps=steps, loss=loss)
    check(run, steps)
    assert {phase["settings"]["loss"] for phase in run.settings["recipe"]["phases"]} == {loss}
    assert run.settings["recipe"]["loss"] == loss


def test_what_is_listed_is_what_there_is():
    rows = listed()
    assert {row["name"] for row in rows if row["kind"] == "loss"} == set(ADVERSARIAL) == set(LOSSES)
    assert {row["name"] for row in rows if row["kind"] == "addition"} == set(addition_names())
    for row in rows:
        assert row["summary"]
        assert "arXiv:" in row["paper"]
        assert row["failure"] or row["name"] == "minimax"
        if row["kind"] == "addition":      # what is shown can be given as it is
            name, given = parsed(row["use"].removeprefix("--add "))
            assert completed(addition(name).apply, given, name) == row["options"] == options(addition(name).apply)


def test_recipes_are_shown(capsys):
    assert main(["recipes"]) == 0
    assert "--add pacgan" in (shown_ := capsys.readouterr().out)
    assert "--set loss=hinge" in shown_
    assert main(["recipes", "r1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["options"] == {"gamma": 1.0, "every": 1}
    assert main(["recipes", "pacgn"]) == 2
    assert "Did you mean" in capsys.readouterr().err


# What an addition does to a recipe.


def test_r1_takes_the_place_of_the_recipes_own(tiny):
    model = tiny("stylegan")
    recipe = added(model, model.recipe(), ["r1:gamma=3,every=8"])
    assert [(p.name, p.every) for p in recipe.phases] == [
        ("generator", 1), ("path_length", 4), ("discriminator", 1), ("r1", 8)
    ]  # fmt: skip
    assert recipe.phases[3].loss.parts[0].gamma == 3
    assert recipe.added == ("r1:gamma=3,every=8",)


def test_additions_are_applied_stage_by_stage_whatever_their_order(tiny):
    texts = ["spectral_norm", "r1", "top_k", "critic_steps:n=3"]
    names = []
    for order in (texts, texts[::-1]):
        model = tiny("dcgan")
        recipe = added(model, model.recipe(), order)
        critic, generator = recipe.phases
        assert type(critic.loss).__name__ == "Spectral"                  # around everything
        assert [part.name for part in critic.loss.loss.parts] == ["r1"]
        assert generator.loss.adversarial.name == "nonsaturating:kept=0.5"
        assert (critic.every, generator.every) == (1, 3)
        names.append(recipe.added)
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("add", "settings", "said"),
    [
        (["r1", "r1:gamma=2"], {}, "r1 is added twice"),
        (["r1:gama=2"], {}, "The addition r1 has no option 'gama'. Did you mean 'gamma'? Options: gamma=1, every=1"),
        (["r1:gamma=-1"], {}, "The addition r1: gamma=-1: Input should be greater than 0"),
        (["r1:gamma=nan"], {}, "finite number"),
        (["r1:every=1.5"], {}, "valid integer"),
        (["r1:gamma"], {}, "write NAME or NAME:option=value"),
        (["r1:gamma=1,gamma=2"], {}, "gives gamma twice"),
        (["pac"], {}, "No addition is named 'pac'"),
        ("r1", {}, "give a list of additions, such as ['r1']"),
        (["pacgan:m=3"], {}, "does not divide the batch of 8"),
        (["weight_clipping", "spectral_norm"], {}, "projects its weights already"),
        (["bcr", "cr"], {}, "'consistency'"),
        ([], {"loss": "hing"}, "No loss named 'hing'. Did you mean 'hinge'"),
    ],
)
def test_what_does_not_fit_is_one_line(add, settings, said, images, tmp_path):
    model = zoo.create("dcgan", **DCGAN)
    with pytest.raises(zoo.ZooError, match=re.escape(said)) as error:
        zoo.train(model, images, kimg=0.016, out=tmp_path / "run", batch=8, settings=settings, add=add)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("options", [{"settings": {"loss": "hinge"}}, {"add": ["r1"]}, {"add": ["pacgan"]}])
def test_a_model_without_critic_says_so(options, images, tiny, tmp_path):
    model = zoo.create("vae", resolution=16, width=4, widest=8, latent=4, prior_width=8)
    with pytest.raises(zoo.ZooError, match=r"autoencoder|discriminator"):
        zoo.train(model, images, kimg=0.064, out=tmp_path / "run", **options)


@pytest.mark.parametrize(("norm", "lines"), [(True, 1), (False, 0)])
def test_a_penalty_of_the_slope_warns_of_batch_norm(norm, lines, caplog):
    model = zoo.create("dcgan", **DCGAN, discriminator_norm=norm)
    added(model, model.recipe(), ["gradient_penalty"])
    assert [record.getMessage()[:24] for record in caplog.records] == ["The critic has batch norm"[:24]] * lines


def test_r3gans_own_penalties_are_not_doubled():
    model = zoo.create("r3gan", resolution=16, latent=8, channel_base=512, channel_max=32, blocks=1)
    with pytest.raises(zoo.ZooError, match="has R1 and R2 already"):
        added(model, model.recipe(), ["r1"])


# Packs: a critic of another kind, that is saved with the model.


def test_a_model_with_packs_is_saved_loaded_and_trained_on(images, tmp_path):
    run = trained(images, tmp_path / "run", steps=20, add=["pacgan:m=4"])
    config = json.loads((run.directory / "model" / "config.json").read_text())
    assert config["critic"] == {"kind": "packed", "m": 4}
    model = load(run.directory / "model")
    faces = torch.rand(8, 3, 16, 16) * 2 - 1
    assert model.logits(faces).shape == (2, 1)
    assert torch.equal(model.logits(faces), run.model.logits(faces))
    more = trained(images, tmp_path / "more", steps=20, model=model)
    assert more.settings["critic"] == {"kind": "packed", "m": 4}
    with pytest.raises(zoo.ZooError, match="no discriminator of its own"):
        trained(images, tmp_path / "twice", steps=20, model=load(run.directory / "model"), add=["pacgan"])


def test_a_fine_tune_with_packs_warms_its_fresh_critic_up(images, tmp_path, caplog):
    model = zoo.create("dcgan", **DCGAN)
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    run = zoo.finetune(model, images, kimg=0.08, out=tmp_path / "run", batch=8, add=["pacgan"], method="full",
                       settings={"warmup_kimg": 0.08})  # fmt: skip
    assert run.settings["fresh"] == ["discriminator"]
    assert all(torch.equal(value, before[name]) for name, value in run.model.generator.state_dict().items())
    assert run.settings["recipe"]["added"] == ["pacgan:m=2"]


@pytest.mark.parametrize(
    "add", [["pacgan", "bures", "lecam"], ["unrolled:steps=1", "r1:every=4"], ["instance_noise", "zcr"]]
)
def test_a_training_with_additions_goes_on_to_the_bit(add, images, tmp_path):
    options = {"add": add, "batch": 8, "tick_kimg": 0.04, "sample_kimg": 1.0, "checkpoint_kimg": 0.056}

    def train(name, progress=None):
        torch.manual_seed(0)
        model = zoo.create("dcgan", **DCGAN)
        zoo.train(model, images, kimg=0.16, out=tmp_path / name, resume=True, progress=progress, **options)

    def broken_off(kimg, total, values):
        if kimg > 0.1:
            raise KeyboardInterrupt

    train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("parts", broken_off)
    train("parts")
    assert differences(tmp_path / "parts", tmp_path / "whole") == []


def test_a_run_goes_on_with_the_same_additions_only(images, tmp_path):
    trained(images, tmp_path / "run", steps=10, add=["r1"])
    with pytest.raises(zoo.ZooError, match="added"):
        trained(images, tmp_path / "run", steps=20, add=["r1:gamma=2"], resume=True)


# The command line and recipe files.

SHORT = ["emoji:smileys-emotion", "--kimg", "0.016", "--batch", "8", *(
    word for name, value in DCGAN.items() for word in ("--set", f"{name}={value}")
)]  # fmt: skip


def recipe_of(out):
    return json.loads((out / "run.json").read_text())["recipe"]


def test_a_recipe_file_says_what_the_options_say(tmp_path, capsys):
    file = tmp_path / "recipe.toml"
    settings = 'loss = "hinge"\nlr = 1e-4\nbetas = [0.5, 0.9]\nmirror = true\n'
    file.write_text(f"[set]\n{settings}[add.r1]\ngamma = 2\n[add.cr]\n")
    assert main(["train", "dcgan", *SHORT, "--out", str(tmp_path / "a"), "--recipe", str(file)]) == 0
    options = ["--set", "loss=hinge", "--set", "lr=1e-4", "--set", "betas=0.5,0.9", "--set", "mirror=true"]
    additions = ["--add", "r1:gamma=2", "--add", "cr"]
    assert main(["train", "dcgan", *SHORT, "--out", str(tmp_path / "b"), *options, *additions]) == 0
    assert recipe_of(tmp_path / "a") == recipe_of(tmp_path / "b")
    over = ["--set", "lr=2e-4", "--add", "r1:gamma=5,every=2"]      # the command line counts first
    assert main(["finetune", "dcgan", SHORT[0], "--kimg", "0.016", "--batch", "8", "--out", str(tmp_path / "c"),
                 "--recipe", str(file), *over]) == 0  # fmt: skip
    assert recipe_of(tmp_path / "c")["lr"] == 2e-4
    assert recipe_of(tmp_path / "c")["added"] == ["cr:weight=10", "r1:gamma=5,every=2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        ("[set", "is no TOML"),
        ("lr = 1\n", "'lr' is not understood"),
        ("[sett]\n", "Did you mean 'set'"),
        ("[add]\nr1 = 1\n", r"write \[add.r1\]"),
        ("[add.r1]\ngamma = {a = 1}\n", "gamma must be a number"),
        ("[add.r1]\ngama = 1\n", "no option 'gama'"),
        ("[set]\nlearning = 1\n", "No setting 'learning'"),
    ],
)
def test_a_recipe_file_that_is_wrong_is_one_line(text, said, tmp_path, capsys):
    file = tmp_path / "recipe.toml"
    if text is not None:
        file.write_text(text)
    assert main(["train", "dcgan", *SHORT, "--out", str(tmp_path / "run"), "--recipe", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error)


PLUGIN = """
from dataclasses import replace
from zoo.plugin import hookimpl

@hookimpl
def zoo_additions():
    return {"half_batch": "acme_add:HALF", "r1": "acme_add:HALF", "none": "acme_add:nothing"}

def __getattr__(name):
    if name != "HALF":
        raise AttributeError(name)
    from zoo.additions.contract import Addition

    def half(model, recipe, *, least: int = 2):
        return replace(recipe, batch=max(least, recipe.batch // 2))

    return Addition(summary="half the batch", failure="no memory", paper="arXiv:0000.00000", apply=half)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A distribution that offers additions, found by its entry point as any plugin is."""
    install(tmp_path, "acme-add", PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    registry.refresh()
    yield
    monkeypatch.undo()
    registry.refresh()


@pytest.mark.usefixtures("plugin")
def test_a_plugin_adds_to_the_additions():
    assert addition_names()["r1"] == "zoo.additions.penalties:R1"      # a built-in name stays
    model = zoo.create("dcgan", resolution=16)
    half = added(model, model.recipe(), ["half_batch:least=3"])
    assert half.batch == model.recipe().batch // 2
    with pytest.raises(PluginError, match=r"^The addition 'none'"):
        added(model, model.recipe(), ["none"])
