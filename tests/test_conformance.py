"""The conformance suite passes on what is built in, and fails, naming the fault, on models that break the contract."""

from __future__ import annotations

from textwrap import dedent

import pytest

import zoo
from zoo import registry
from zoo.testing import CHECKS, check_architecture

SMALL = {
    "dcgan": {"resolution": 16, "latent": 8, "generator_width": 8, "discriminator_width": 8},
    "stylegan": {
        "resolution": 16, "latent": 16, "w": 16, "mapping_layers": 2, "channel_base": 128, "channel_max": 16,
    },
    "biggan": {"resolution": 16, "width": 4},
    "vae": {"resolution": 8, "width": 4, "latent": 4, "prior_width": 8},
}  # fmt: skip
VARIANTS = [
    *((name, classes, {}) for name in SMALL for classes in (0, 3)),
    ("biggan", 3, {"deep": True, "latent": 8, "embedding": 6}),
    ("stylegan", 0, {"synthesis_architecture": "resnet", "discriminator_architecture": "orig", "channels": 4}),
    ("dcgan", 2, {"channels": 1}),
]

# A correct model, and one subclass for each way to break the contract.
PLUGIN = """
    from zoo.plugin import Architecture, hookimpl

    NAMES = ("Sound", "GlobalChance", "Forgetful", "Idle", "DeafToSeeds", "DeafToZ", "WrongSize", "NotFinite",
             "Meddling", "Vector", "Raising", "Standing")

    @hookimpl
    def zoo_architectures():
        return [Architecture(name.lower(), model=f"faulty_model:{name}", summary=name) for name in NAMES]
"""
MODELS = """
    from dataclasses import replace

    import torch
    from torch import nn

    from zoo import Model, ModelConfig, Phase, Recipe, Terms


    def squared(model, batch):
        images = model.net(model.latent(len(batch), batch.noise)).reshape_as(batch.images)
        return Terms({"error": (images - batch.images).square().mean()})


    class Sound(Model):
        loss = staticmethod(squared)
        trains = ("net",)

        def __init__(self, config):
            super().__init__(config)
            self.latent_size = 4
            self.net = nn.Linear(4, config.channels * config.resolution**2)

        def generate(self, z, labels, *, psi, chance):
            return self.averaged("net")(z).reshape(len(z), self.config.channels, *2 * [self.config.resolution])

        def recipe(self):
            return Recipe((Phase("only", self.trains, type(self).loss),), averaged=("net",), batch=4)


    class GlobalChance(Sound):
        @staticmethod
        def loss(model, batch):
            terms = squared(model, batch)
            return Terms({"error": terms.minimise["error"] * torch.rand(())})


    class Forgetful(Sound):
        def __init__(self, config):
            super().__init__(config)
            self.register_buffer("tint", torch.rand(1), persistent=False)

        def generate(self, z, labels, **options):
            return super().generate(z, labels, **options) * self.tint


    class Idle(Sound):
        trains = ("net", "spare")

        def __init__(self, config):
            super().__init__(config)
            self.spare = nn.Linear(2, 2)


    class DeafToSeeds(Sound):
        def generate(self, z, labels, **options):
            return super().generate(torch.randn(z.shape), labels, **options)


    class DeafToZ(Sound):
        def generate(self, z, labels, *, psi, chance):
            return super().generate(chance.normal(*z.shape), labels, psi=psi, chance=chance)


    class WrongSize(Sound):
        def generate(self, z, labels, **options):
            return super().generate(z, labels, **options)[..., 1:]


    class NotFinite(Sound):
        @staticmethod
        def loss(model, batch):
            return Terms({"error": squared(model, batch).minimise["error"].sub(1000).sqrt()})


    class Meddling(Sound):
        @staticmethod
        def loss(model, batch):
            with torch.no_grad():
                model.net.bias.add_(1)
            return squared(model, batch)


    class Vector(Sound):
        @staticmethod
        def loss(model, batch):
            return Terms({"error": squared(model, batch).minimise["error"].expand(3)})


    class Raising(Sound):
        @staticmethod
        def loss(model, batch):
            raise KeyError("no such layer")


    class Standing(Sound):
        def recipe(self):
            return replace(super().recipe(), lr=1e-30)
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """A distribution of broken architectures, found by its entry point as any plugin is."""
    info = tmp_path / "faulty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nfaulty = faulty_plugin\n")
    (tmp_path / "faulty_plugin.py").write_text(dedent(PLUGIN))
    (tmp_path / "faulty_model.py").write_text(dedent(MODELS))
    monkeypatch.syspath_prepend(tmp_path)
    registry.refresh()
    yield {"resolution": 4}
    monkeypatch.undo()
    registry.refresh()


@pytest.mark.parametrize(("name", "classes", "more"), VARIANTS)
def test_built_in_architectures_keep_the_contract(name, classes, more):
    passed = check_architecture(name, num_classes=classes, **{**SMALL[name], **more})
    assert passed == [check.__name__ for check in CHECKS]
    assert len(passed) >= 7


def test_a_sound_plugin_passes(faulty):
    assert len(check_architecture("sound", **faulty)) == len(CHECKS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("globalchance", "losses_use_keyed_noise: phase only: error differs"),
        ("forgetful", "saves_and_loads: buffer tint is not persistent"),
        ("idle", "phases_move_what_they_train: phase only trains spare but no gradient"),
        ("deaftoseeds", "seeds_repeat: the same seed gave other images"),
        ("deaftoz", "seeds_repeat: another z gave the same images"),
        ("wrongsize", r"samples_fit_config: samples are \[4, 3, 4, 3\]"),
        ("notfinite", "phases_move_what_they_train: phase only: term error is nan"),
        ("meddling", r"phases_move_what_they_train: phase only: computing the loss changed net\.bias"),
        ("vector", r"phases_move_what_they_train: phase only: term error has shape \[3\]"),
        ("raising", "phases_move_what_they_train: KeyError: 'no such layer'"),
        ("standing", "trains_on: training did not move net"),
    ],
)
def test_a_broken_plugin_fails_and_the_fault_is_named(faulty, name, message):
    with pytest.raises(AssertionError, match=f"^{name}: {message}"):
        check_architecture(name, **faulty)


def test_a_wrong_name_or_setting_is_the_callers_mistake_not_a_failed_check():
    with pytest.raises(zoo.ZooError, match="Did you mean 'dcgan'"):
        check_architecture("dcgam")
    with pytest.raises(zoo.ZooError, match="resolution=17"):
        check_architecture("dcgan", resolution=17)
