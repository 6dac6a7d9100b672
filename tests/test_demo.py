"""The demo, shortened: what it measures, what it leaves, and that it overwrites nothing."""

from __future__ import annotations

import json

import pytest
import torch

import zoo
from zoo.cli.progress import Progress
from zoo.demo import demo


@pytest.fixture(scope="module")
def summary(curves, tmp_path_factory):
    return demo(tmp_path_factory.mktemp("demo") / "out", Progress, kimg=0.064, samples=128)


def test_three_models_are_measured_against_the_smileys(summary):
    assert [name for name, _ in summary.rows] == ["parent, before", "fine-tuned", "from scratch"]
    for _, found in summary.rows:
        assert found.receipt["data"]["name"] == "emoji:smileys-emotion"
        assert found.receipt["real_images"] == 169
        assert found.receipt["fake_images"] == 128
    values = {name: found["kid"] for name, found in summary.rows}
    assert len(set(values.values())) == 3
    # Two steps of training leave noise; the parent makes at least emoji.
    assert values["parent, before"] < values["from scratch"]
    assert len(summary.table()) == 4


def test_runs_grids_card_and_publication_are_left(summary):
    for name in ("finetuned", "scratch"):
        run = summary.directory / name
        for part in ("run.json", "log.jsonl", "curves.png", "evaluation.json", "model/README.md"):
            assert (run / part).is_file(), part
        assert list((run / "samples").glob("*.png"))
    settings = json.loads((summary.directory / "finetuned" / "run.json").read_text())
    assert settings["parent"]["name"] == "stylegan.emoji32"
    assert settings["data"]["images"] == 169
    published = zoo.load(f"dir:{summary.published}")
    trained = zoo.load(f"dir:{summary.directory}/finetuned/model")
    assert torch.equal(published.sample(2, seed=0), trained.sample(2, seed=0))
    assert "| kid |" in (summary.published / "README.md").read_text()


def test_the_parent_is_left_as_it_is(summary):
    assert not torch.equal(
        zoo.load("stylegan").sample(2, seed=0), zoo.load(f"dir:{summary.directory}/finetuned/model").sample(2, seed=0)
    )


def test_a_folder_with_files_is_refused(summary):
    with pytest.raises(zoo.ZooError, match="not empty"):
        demo(summary.directory, Progress)
