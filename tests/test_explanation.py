"""`zoo explain`: what a log tells, whatever state the run is in, and what to try, as options that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.errors import RunError
from zoo.remedies import REMEDIES, Made, tried
from zoo.watchdog.signs import COLLAPSE, COPIES, DIVERGENCE, OSCILLATES, OVERFITS, POSTERIOR, SIGNS

GAN = {
    "architecture": "dcgan",
    "config": {"resolution": 32, "channels": 3, "num_classes": 0},
    "kimg": 25.6,
    "precision": "no",
    "recipe": {
        "batch": 64, "lr": 2e-4, "betas": [0.5, 0.999], "augment": [], "anneal": "constant", "mirror": False,
        "clip_norm": None, "added": [], "loss": None,
        "phases": [{"name": "discriminator", "trains": ["discriminator"], "every": 1,
                    "settings": {"loss": "nonsaturating"}},
                   {"name": "generator", "trains": ["generator"], "every": 1, "settings": {"loss": "nonsaturating"}}],
    },
}  # fmt: skip
AUTOENCODER = {
    "architecture": "vae",
    "config": {"resolution": 32, "beta": 8.0, "free_bits": 0.0, "warmup": 0.1, "cycles": 1, "latent": 64},
    "recipe": {"batch": 64, "lr": 1e-3, "phases": [{"name": "autoencoder", "trains": ["encoder", "decoder"]}]},
    "kimg": 25.6,
}
WELL = {"spread": 0.9, "apart": 0.8, "vendi": 0.7, "offset": 0.3, "logit_real": 1.0, "logit_fake": -1.0}
SEEN: dict[str, dict[str, float]] = {
    COLLAPSE: {"apart": 0.02},
    DIVERGENCE: {"logit_spread": 900.0},
    OSCILLATES: {"drift": 0.9, "offset": 0.8},
    OVERFITS: {"logit_held": -0.5},
    COPIES: {"copies": 0.8},
}


def written(folder: Path, settings: dict[str, Any], looks: list[dict[str, float]], **more: Any) -> Path:
    """Make a run directory whose log has these looks, one each 40 steps."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(settings))
    lines = [{"step": 40 * i, "kimg": 2.56 * i, "terms": {}, "watchdog": look, **more}
             for i, look in enumerate(looks, 1)]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize("name", SEEN)
def test_each_word_is_explained_with_what_to_try(name, tmp_path):
    run = written(tmp_path / "run", GAN, [WELL, *[{**WELL, **SEEN[name]}] * 8])
    told = zoo.explain(run)
    assert [each.name for each in told.found] == [name]
    (found,) = told.found
    since = 15.36 if name == OSCILLATES else 5.12      # five moves are looked at together
    assert (found.since, found.until) == (since, None)
    assert found.next
    text = str(told)
    assert f"{name}, from {since:g} kimg: {found.evidence}." in text
    assert f"1. {found.next[0]['option']}" in text


def test_what_is_over_is_told_so(tmp_path):
    bad = {**WELL, **SEEN[COLLAPSE]}
    (found,) = zoo.explain(written(tmp_path / "run", GAN, [WELL, bad, bad, bad, WELL, WELL, WELL])).found
    assert (found.since, found.until) == (5.12, 15.36)


def test_a_log_of_before_there_was_a_watchdog_is_judged_by_what_the_losses_watched(tmp_path):
    folder = written(tmp_path / "run", AUTOENCODER, [])
    lines = [{"step": 10 * i, "kimg": 0.64 * i, "terms": {"autoencoder.kl": 0.01, "autoencoder.active": 0.0}}
             for i in range(1, 17)]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 170, "ki')
    told = zoo.explain(folder)
    assert [each.name for each in told.found] == [POSTERIOR]
    assert [step["option"] for step in told.found[0].next] == [
        "--set beta=2", "--set free_bits=0.1", "--set warmup=0.5", "--set cycles=4", "--set latent=32",
    ]  # fmt: skip
    assert any("did not look at this run" in note for note in told.notes)
    assert told.state == "broken off"


def test_values_that_were_not_finite_are_divergence(tmp_path):
    record = {"step": 50, "action": "rolled back", "to": 40, "why": "generator.adversarial became nan", "rate": 0.5}
    folder = written(tmp_path / "run", GAN, [WELL], faults=[record], skipped=5)
    told = zoo.explain(folder)
    (found,) = told.found
    assert (found.name, found.since, found.until) == (DIVERGENCE, 2.56, 3.2)
    assert "became nan; went back to 2.56 kimg, with 0.5 of the learning rate" in found.evidence
    assert found.next[0]["option"] == "--set lr=5e-05"
    assert "5 turns were left out because a value was not finite." in told.notes


def test_what_the_run_has_already_is_not_suggested():
    recipe = {**GAN["recipe"], "augment": ["ada"], "added": ["lecam:weight=0.3", "r1:gamma=1,every=1"], "clip_norm": 1}
    made = Made({**GAN, "recipe": recipe})
    options = [step["option"] for name in REMEDIES for step in tried(name, made)]
    assert not [option for option in options if "augment" in option or "lecam" in option or "clip_norm" in option]
    assert "--add r1:gamma=4" in options
    assert tried(POSTERIOR, made) == []


@pytest.mark.parametrize("made", [GAN, AUTOENCODER], ids=["gan", "vae"])
def test_every_option_that_is_suggested_is_taken(made):
    """Additions are applied to a real recipe, settings to the recipe or the configuration."""
    from zoo.additions.apply import added
    from zoo.training import settled

    options = {step["option"] for sign in SIGNS for step in tried(sign.name, Made(made))}
    assert options
    for option in options:
        config = {name: made["config"][name] for name in ("resolution",)}
        words = re.findall(r"--(\w+) (\S+)", option)
        assert " ".join(f"--{flag} {word}" for flag, word in words) == option
        settings = dict(word.split("=", 1) for flag, word in words if flag == "set")
        for name in [name for name in settings if name in made["config"]]:
            value = settings.pop(name)
            config[name] = float(value) if "." in value else int(value)
        model = zoo.create(made["architecture"], **config)
        values = {name: value.split(",") if name in ("augment", "betas") else value for name, value in settings.items()}
        added(model, settled(model.recipe(), values), [word for flag, word in words if flag == "add"])


def command(*words: str | Path) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "zoo", *map(str, words)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_the_command_tells_people_and_programs(tmp_path, capsys):
    from zoo.cli import main

    run = written(tmp_path / "run", GAN, [{**WELL, **SEEN[COLLAPSE]}] * 4)
    assert main(["explain", str(run)]) == 0
    assert "mode collapse, from 2.56 kimg" in capsys.readouterr().out
    assert main(["explain", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["found"][0]["name"] == COLLAPSE
    assert told["found"][0]["next"][0]["option"].startswith("--add r1:gamma=")


@pytest.mark.parametrize("broken", [None, "{", "[]"])
def test_what_is_no_run_is_one_line(broken, tmp_path, capsys):
    from zoo.cli import main

    if broken is not None:
        (tmp_path / "run.json").write_text(broken)
    assert main(["explain", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    with pytest.raises(RunError):
        zoo.explain(tmp_path)


def test_a_strangers_log_ends_in_no_traceback(tmp_path):
    seen = {"apart": "x", "spread": None, "3": 1, "logit_held": 1}
    odd = {"watchdog": seen, "terms": {"a.kl": "x"}, "findings": [{"name": 5}], "faults": []}
    folder = written(tmp_path / "run", {"recipe": [], "config": 3, "kimg": "x"}, [])
    lines = [{"step": 50 * i, "kimg": 3.2 * i, **odd} for i in (1, 2)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert zoo.explain(folder).kimg == 6.4
    assert zoo.Run(folder).watchdog == {}


def test_a_training_that_is_stopped_ends_with_one_line_and_code_1(tmp_path):
    out = tmp_path / "run"
    code, _, said = command(
        "train", "vae", "emoji", "--out", out, "--kimg", "14", "--batch", "128", "--on-collapse", "stop",
        *(word for setting in ("resolution=8", "width=4", "widest=8", "latent=4", "prior=normal", "beta=1000",
                               "free_bits=0", "warmup=0") for word in ("--set", setting)),
    )  # fmt: skip
    assert code == 1
    lines = [line for line in said.splitlines() if "posterior collapse" in line]
    assert len(lines) == 1
    assert "Traceback" not in said
    assert f"`zoo explain {out}`" in lines[0]
