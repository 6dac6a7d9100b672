"""Trained weights fitted to another size, colour count or number of classes: what is kept, and what is said of it."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.adaptation import adapted
from zoo.errors import WeightsError
from zoo.noise import Noise

VERBS = {"copied", "grown", "trimmed", "re-initialised", "dropped"}


def verbs(model: zoo.Model) -> dict[str, str]:
    return {name: what.split(" ")[0] for name, what in model.adapted.items()}


def kept(model: zoo.Model, parent: zoo.Model, prefix: str) -> bool:
    """Whether all tensors under a prefix are the parent's, and said to be."""
    mine, theirs = model.state_dict(), parent.state_dict()
    names = [name for name in mine if name.startswith(prefix)]
    assert names
    return all(model.adapted[name] == "copied" and torch.equal(mine[name], theirs[name]) for name in names)


CHANGES = [{"resolution": 64}, {"resolution": 16}, {"channels": 4}, {"channels": 1}, {"num_classes": 5}]


@pytest.mark.parametrize("name", ["stylegan", "dcgan"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_tensor_is_reported_and_images_come_out(name, change):
    parent, model = zoo.load(name), zoo.load(name, adapt=True, **change)
    config = {**parent.config.model_dump(), **change}
    assert model.config.model_dump() == config
    state = model.state_dict()
    assert set(state) <= set(model.adapted)
    assert set(model.adapted) - set(state) == {n for n, what in model.adapted.items() if what == "dropped"}
    assert set(verbs(model).values()) <= VERBS
    assert "copied" in verbs(model).values()
    assert set(verbs(model).values()) != {"copied"}
    trained = parent.state_dict()
    for tensor, what in verbs(model).items():
        if what == "copied":
            assert torch.equal(state[tensor], trained[tensor])
        elif what in ("grown", "trimmed"):
            before, after = list(trained[tensor].shape), list(state[tensor].shape)
            assert model.adapted[tensor] == f"{what} {before} -> {after}"
            assert (after > before) == (what == "grown")
    images = model.sample(2, seed=0)
    assert images.shape == (2, config["channels"], config["resolution"], config["resolution"])
    assert bool(torch.isfinite(images).all())
    labels = [0, 4] if config["num_classes"] else None
    assert model.logits(images, labels).shape == (2, 1)
    assert all(p.requires_grad for n, p in model.named_parameters() if not n.startswith("averages."))


@pytest.mark.parametrize("resolution", [16, 64])
def test_stylegan_keeps_the_blocks_that_both_sizes_share(resolution):
    parent, model = zoo.load("stylegan"), zoo.load("stylegan", adapt=True, resolution=resolution)
    shared = [size for size in (4, 8, 16, 32) if size <= resolution]
    assert all(kept(model, parent, f"generator.blocks.{size}x{size}.") for size in shared)
    assert all(kept(model, parent, f"discriminator.blocks.{size}x{size}.") for size in shared[1:])
    assert kept(model, parent, "generator.mapping.")
    assert kept(model, parent, "discriminator.conv.")
    new = {name for name, what in verbs(model).items() if what == "re-initialised"}
    gone = {name for name, what in verbs(model).items() if what == "dropped"}
    assert all(".64x64." in name for name in new)
    assert all(".32x32." in name for name in gone)
    assert bool(new) == (resolution == 64)
    assert bool(gone) == (resolution == 16)


def test_a_larger_stylegan_draws_the_parents_picture_below_its_new_block():
    parent, model = zoo.load("stylegan"), zoo.load("stylegan", adapt=True, resolution=64)
    with torch.no_grad():      # what the new block adds is random; without it only the parent's picture remains
        model.generator.blocks["64x64"].to_image.conv.weight.zero_()
    large = model.sample(8, seed=0, noise="none", clamp=False)
    small = parent.sample(8, seed=0, noise="none", clamp=False)
    difference = (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean()
    assert float(difference) < 0.25 * float(small.std())


def test_dcgan_keeps_the_blocks_next_to_the_image():
    parent, model = zoo.load("dcgan"), zoo.load("dcgan", adapt=True, resolution=64)
    for prefix in ("generator.blocks.1_2.", "generator.blocks.1_4.", "generator.to_image."):
        assert kept(model, parent, prefix)
    for prefix in ("discriminator.from_image.", "discriminator.blocks.0.", "discriminator.blocks.1."):
        assert kept(model, parent, prefix)
    new = {name.rpartition(".conv")[0].rpartition(".norm")[0] or name for name, what in verbs(model).items()
           if what == "re-initialised"}  # fmt: skip
    assert all("blocks.1_8" in name or "blocks.2" in name for name in new)
    assert verbs(model)["generator.head.weight"] == "grown"


def test_new_colours_begin_as_the_mean_of_the_trained_ones():
    parent, model = zoo.load("stylegan"), zoo.load("stylegan", adapt=True, channels=4)
    name = "generator.blocks.32x32.to_image.conv.weight"
    before, after = parent.state_dict()[name], model.state_dict()[name]
    assert torch.equal(after[:3], before)
    assert torch.allclose(after[3], before.mean(0))
    # Alpha is then the grey of the picture, and the colours stay as they were.
    images = model.sample(4, seed=0, noise="none", clamp=False)
    expected = parent.sample(4, seed=0, noise="none", clamp=False)
    assert torch.allclose(images[:, :3], expected, atol=1e-4)
    assert torch.allclose(images[:, 3], expected.mean(1), atol=1e-4)


def test_one_channel_keeps_the_first():
    parent, model = zoo.load("stylegan"), zoo.load("stylegan", adapt=True, channels=1)
    expected = parent.sample(4, seed=0, noise="none", clamp=False)[:, :1]
    assert torch.allclose(model.sample(4, seed=0, noise="none", clamp=False), expected, atol=1e-4)


def test_new_classes_of_a_dcgan_all_look_like_the_parents_pictures():
    model = zoo.load("dcgan", adapt=True, num_classes=5)
    z = torch.randn(6, model.latent_size, generator=torch.Generator().manual_seed(0))
    first, last = (model.sample(z=z, labels=[label] * 6) for label in (0, 4))
    assert torch.allclose(first, last, atol=1e-5)
    near = torch.stack([first[..., 1:].flatten(), first[..., :-1].flatten()])
    assert float(torch.corrcoef(near)[0, 1]) > 0.7


def test_fewer_classes_keep_the_first_ones(tiny, tmp_path):
    parent = tiny("dcgan", num_classes=4)
    folder = zoo.save(parent, tmp_path / "model")
    model = zoo.load(f"dir:{folder}", adapt=True, num_classes=2)
    z = torch.ones(2, 8)
    assert torch.equal(model.sample(z=z, labels=[0, 1]), parent.sample(z=z, labels=[0, 1]))
    assert verbs(model)["generator.head.weight"] == "trimmed"


def test_averages_are_fitted_too(tiny, tmp_path):
    parent = tiny("stylegan").follow(("generator",))
    with torch.no_grad():
        parent.averages["generator"].blocks["4x4"].const.add_(1)
    model = zoo.load(f"dir:{zoo.save(parent, tmp_path / 'model')}", adapt=True, resolution=32)
    name = "generator.blocks.4x4.const"
    state = model.state_dict()
    assert torch.equal(state[f"averages.{name}"], parent.state_dict()[f"averages.{name}"])
    assert not torch.equal(state[f"averages.{name}"], state[name])
    assert verbs(model)[f"averages.{name}"] == "copied"


def test_nothing_changed_means_all_copied():
    model = zoo.load("dcgan", adapt=True)
    assert set(model.adapted.values()) == {"copied"}
    assert torch.equal(model.sample(2, seed=0), zoo.load("dcgan").sample(2, seed=0))


@pytest.mark.parametrize("name", ["stylegan", "dcgan"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_without_adapt_a_changed_shape_is_refused_and_adapt_named(name, change):
    with pytest.raises(WeightsError, match="adapt=True"):
        zoo.load(name, **change)


def test_a_setting_that_changes_no_tensor_needs_no_adapt():
    assert zoo.load("stylegan", conv_clamp=256.0).config.conv_clamp == 256


def test_a_wrong_setting_is_refused_before_anything_is_read():
    with pytest.raises(zoo.ZooError, match="Did you mean 'resolution'"):
        zoo.load("stylegan", adapt=True, resolutoin=64)
    with pytest.raises(zoo.ZooError, match="power of two"):
        zoo.load("stylegan", adapt=True, resolution=48)


def test_labels_that_join_leave_the_images_as_they_were():
    """Before any training, each class looks like what the parent makes of the same z."""
    parent, conditional = zoo.load("stylegan"), zoo.load("stylegan", adapt=True, num_classes=5)
    z = parent.latent(8, Noise(0))
    images = conditional.sample(z=z, labels=[0, 1, 2, 3, 4, 0, 1, 2], noise="none")
    assert torch.allclose(images, parent.sample(z=z, noise="none"), atol=1e-4)


def test_what_became_of_each_tensor_is_told_apart():
    fresh = {name: torch.zeros(shape) for name, shape in {
        "same": (2, 3), "grown": (4, 3), "trimmed": (2, 2), "both": (3, 4), "new": (1,), "ndim": (6,),
    }.items()}  # fmt: skip
    fresh["kind"] = torch.zeros(2, dtype=torch.int64)
    trained = {
        "same": torch.ones(2, 3), "grown": torch.tensor([[0.0, 2, 4], [2, 4, 6]]), "trimmed": torch.ones(2, 3),
        "both": torch.ones(2, 3), "ndim": torch.ones(2, 3),
        "kind": torch.ones(2), "gone": torch.ones(1),
    }  # fmt: skip
    tensors, report = adapted(fresh, trained)
    assert report == {
        "same": "copied", "grown": "grown [2, 3] -> [4, 3]", "trimmed": "trimmed [2, 3] -> [2, 2]",
        "both": "re-initialised [2, 3] -> [3, 4]", "new": "re-initialised",
        "ndim": "re-initialised", "kind": "re-initialised", "gone": "dropped",
    }  # fmt: skip
    assert torch.equal(tensors["grown"][2:], torch.tensor([[1.0, 3, 5], [1, 3, 5]]))
    assert not tensors["both"].any()
    assert set(tensors) == set(fresh)
