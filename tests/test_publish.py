"""zoo.publish with real models, to a real HTTP server: what is sent, what is refused before, what the card says."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import OWNER_TOKEN, READER_TOKEN, running_hub  # noqa: F401

import zoo
from zoo.cards import render
from zoo.errors import HubError, RunError, WeightsError, ZooError

FILES = ("README.md", "config.json", "manifest.json", "model.safetensors", "samples.png")
TINY = {"resolution": 16, "latent": 8, "generator_width": 4, "discriminator_width": 4}


@pytest.fixture
def model():
    torch.manual_seed(1)
    return zoo.create("dcgan", **TINY)


@pytest.fixture
def run(model, tmp_path):
    """A real, short training on eight real image files."""
    from PIL import Image

    for i in range(8):
        (tmp_path / "private place" / "dots").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (i * 30, 0, 0)).save(tmp_path / "private place" / "dots" / f"{i}.png")
    model.origin = {"name": "hub:acme/dots", "repo": "acme/dots", "commit": "a" * 40, "license": "CC-BY-NC-4.0"}
    return zoo.train(model, tmp_path / "private place" / "dots", kimg=0.016, batch=8, out=tmp_path / "run")


def front(card: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def same(one, other) -> bool:
    return torch.equal(one.sample(4, seed=3, clamp=False), other.sample(4, seed=3, clamp=False))


def test_what_is_published_loads_bit_for_bit_by_name_and_by_commit(hub, model):
    first = zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    torch.manual_seed(2)
    changed = zoo.create("dcgan", **TINY)
    second = zoo.publish(changed, "acme/cats", token=OWNER_TOKEN)
    assert first.files == FILES
    assert [commit.sha for commit in hub.repositories["acme/cats"].commits[1:]] == [first.commit, second.commit]
    assert same(zoo.load(f"hub:acme/cats@{first.commit}"), model)
    assert same(zoo.load("hub:acme/cats", revision=first.commit), model)
    assert same(zoo.load("hub:acme/cats"), changed)
    assert zoo.load("hub:acme/cats").origin["commit"] == second.commit


def test_a_private_model_loads_with_the_right_token_only(hub, model):
    zoo.publish(model, "acme/secret", private=True, token=OWNER_TOKEN)
    assert same(zoo.load("hub:acme/secret", token=OWNER_TOKEN), model)
    with pytest.raises(HubError, match="acme/secret"):
        zoo.load("hub:acme/secret@main", token=READER_TOKEN)


def test_publishing_again_makes_no_commit(hub, model):
    first = zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    again = zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    assert (again.commit, again.created) == (first.commit, False)
    assert hub.seen("POST .*/commit/") == 1


def test_a_card_that_was_edited_on_the_hub_does_not_stop_loading(hub, model):
    zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    hub.publish("acme/cats", {"README.md": b"---\nlicense: mit\n---\nMy own words."})
    assert same(zoo.load("hub:acme/cats"), model)


def test_no_published_byte_holds_the_token_or_the_folders_of_the_data(hub, run):
    zoo.publish(run, "acme/dots2", token=OWNER_TOKEN)
    for content in hub.repositories["acme/dots2"].commits[-1].files.values():
        assert b"hf_" not in content
        assert b"private place" not in content
        assert OWNER_TOKEN.encode() not in content


def test_a_dry_run_writes_the_same_files_and_asks_nobody(hub, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dry = zoo.publish(model, "acme/cats", dry_run=True)
    assert (dry.url, dry.commit, dry.created) == ("", "", False)
    assert hub.requests == []
    assert dry.directory.name == "acme--cats"
    zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    sent = hub.repositories["acme/cats"].commits[-1].files
    assert {path.name: path.read_bytes() for path in dry.directory.iterdir()} == {name: sent[name] for name in FILES}
    assert same(zoo.load(f"dir:{dry.directory}"), model)


def test_a_dry_run_needs_no_client(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)      # importing it raises ImportError
    assert zoo.publish(model, "acme/cats", dry_run=True).files == FILES


# Refused before the first request.


def test_weights_that_are_not_finite_are_refused_before_any_request(hub, model):
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(WeightsError, match="not finite"):
        zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    assert hub.requests == []


def test_finite_weights_whose_samples_are_not_are_refused_before_any_request(hub, model):
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.copy_(torch.where(torch.rand_like(parameter) < 0.5, 3e38, -3e38))
    with pytest.raises(WeightsError, match="not finite"):
        zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    assert hub.requests == []


def test_a_model_that_its_weights_do_not_describe_is_refused_before_any_request(hub, model):
    model.generator.register_forward_hook(lambda module, given, images: images * 0.5)      # not part of what is saved
    with pytest.raises(WeightsError, match="samples changed"):
        zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    assert hub.requests == []


def test_a_saved_model_that_was_altered_is_refused_before_any_request(hub, model, tmp_path):
    weights = zoo.save(model, tmp_path / "saved") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match="altered"):
        zoo.publish(tmp_path / "saved", "acme/cats", token=OWNER_TOKEN)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["cats", "acme/cats/more", "../cats", "acme/cats@", ""])
def test_a_wrong_repository_name_is_refused_before_any_work(hub, model, name):
    with pytest.raises(HubError, match="OWNER/REPO"):
        zoo.publish(model, name, dry_run=True)


def test_a_folder_without_model_or_run_is_named(hub, tmp_path):
    with pytest.raises(RunError, match="neither a run"):
        zoo.publish(tmp_path, "acme/cats")
    with pytest.raises(ZooError, match="no-such"):
        zoo.publish("no-such", "acme/cats")
    assert hub.requests == []


# Runs and their cards.


@pytest.mark.parametrize("form", ["run", "directory", "model folder"])
def test_a_run_is_published_with_its_card(hub, run, form):
    given = {"run": run, "directory": str(run.directory), "model folder": run.directory / "model"}[form]
    dry = zoo.publish(given, "acme/reds", dry_run=True)
    assert dry.directory == run.directory / "publish"
    trained = run.directory / "model" / "model.safetensors"
    assert (dry.directory / "model.safetensors").read_bytes() == trained.read_bytes()
    card = (dry.directory / "README.md").read_text()
    facts = json.loads((run.directory / "run.json").read_text())
    assert facts["data"]["fingerprint"] in card
    assert 'zoo.load("hub:acme/reds")' in card
    assert "Fine-tuned from acme/dots at aaaaaaaaaa" in card
    assert "private place" not in card
    assert "None is recorded" in card
    header = front(card)
    assert header["license"] == "cc-by-nc-4.0"
    assert header["base_model"] == "acme/dots"
    assert "does not allow commercial use" in card
    assert "model-index" not in header


def test_an_evaluation_reaches_the_card_only_if_it_is_about_these_weights(run, tmp_path):
    images = tmp_path / "private place" / "dots"
    found = zoo.evaluate(run, images, metrics=("kid",), samples=8, features="pixels", force=True)
    card = (zoo.publish(run, "acme/reds", dry_run=True).directory / "README.md").read_text()
    metrics = front(card)["model-index"][0]["results"][0]["metrics"]
    assert {metric["type"]: metric["value"] for metric in metrics} == {"kid": found["kid"]}
    assert f"| kid | {found['kid']:.6g} ± {found['kid_std_error']:.2g} |" in card
    assert found.receipt["features"]["digest"] in card
    assert "private place" not in card
    record = json.loads((run.directory / "evaluation.json").read_text())
    record["receipt"]["model"]["digest"] = "0" * 64
    (run.directory / "evaluation.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="other weights"):
        dry = zoo.publish(run, "acme/reds", dry_run=True)
    assert "model-index" not in front((dry.directory / "README.md").read_text())


def test_a_run_without_a_model_says_how_to_go_on(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="no model yet"):
        zoo.publish(tmp_path, "acme/cats", dry_run=True)


# Cards.


HOSTILE = "x\n---\nlicense: mit\n---\n# Owned <script>alert()</script> | [a](javascript:b) ![i](http://e) `c` {{ 7*7 }}"


def test_values_cannot_break_out_of_the_card(model):
    model.origin = {"license": HOSTILE, "parent": {"name": HOSTILE, "repo": HOSTILE}, "method": HOSTILE}
    run = {"data": {"name": f"hf:{HOSTILE}", "fingerprint": HOSTILE}, "versions": {HOSTILE: HOSTILE}, "kimg": HOSTILE}
    receipt = {"features": {"name": HOSTILE}, "data": {"name": HOSTILE}}
    card = render(model, run=run, evaluation={"values": {HOSTILE: 1.5}, "receipt": receipt})
    header = front(card)
    assert header["license"] == "other"
    assert header["license_name"].startswith("x --- license: mit")
    assert "base_model" not in header
    assert "datasets" not in header
    body = card.split("\n---\n", 1)[1]
    assert "\n---" not in body
    assert not re.search(r"^# Owned", body, re.MULTILINE)
    assert "<script" not in body
    assert not re.search(r"(?<!\\)\]\(", body)
    assert "49" not in body
    table = [line for line in body.splitlines() if "alert" in line and line.startswith("|")]
    assert table
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in table)


def test_a_card_says_nothing_that_is_not_recorded(model):
    card = render(model)
    header = front(card)
    assert set(header) == {"library_name", "pipeline_tag", "tags"}
    assert (header["library_name"], header["pipeline_tag"]) == ("genzoo", "unconditional-image-generation")
    for heading in ("## Training", "## Samples", "## Versions"):
        assert heading not in card
    assert "No licence is recorded" in card


@pytest.mark.parametrize(
    ("license_", "entries", "commercial"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}, True),
        ("CC-BY-NC-SA-4.0", {"license": "cc-by-nc-sa-4.0"}, False),
        ("Nvidia Source Code License-NC", {"license": "other", "license_name": "Nvidia Source Code License-NC"}, False),
    ],
)
def test_a_fine_tune_keeps_the_licence_of_its_parent(model, license_, entries, commercial):
    card = render(model, run={"parent": {"name": "stylegan.faces", "license": license_}})
    assert front(card).items() >= entries.items()
    assert ("does not allow commercial use" in card) is not commercial


def test_the_example_of_the_documentation_runs(hub, run, tmp_path, monkeypatch):
    text = (Path(__file__).parent.parent / "docs" / "publishing.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "runs").mkdir()
    run.directory.rename(tmp_path / "runs" / "cats")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", OWNER_TOKEN)
    names: dict = {"zoo": zoo}
    exec(example, names)
    assert names["publication"].commit == hub.repositories["acme/cats"].commits[-1].sha
    assert names["model"].origin["commit"] == names["publication"].commit


def test_the_example_of_a_card_runs(hub, model):
    zoo.publish(model, "acme/cats", token=OWNER_TOKEN)
    card = hub.repositories["acme/cats"].commits[-1].files["README.md"].decode()
    example = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    names: dict = {}
    exec(example, names)
    assert names["images"].shape == (16, 3, 16, 16)


@pytest.mark.parametrize("name", ["emoji_private/acme/photos", "/home/someone/emoji"])
def test_folders_of_the_publisher_stay_private(name):
    from zoo.cards import public_name

    assert "/" not in public_name(name)
