"""BigGAN checkpoints of pytorch-pretrained-biggan, ajbrock and ivclab: the same images, and strict reading."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import biggan_reference as upstream
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import zoo
from zoo.errors import WeightsError
from zoo.formats.contract import Source
from zoo_biggan import ajbrock, huggingface, ivclab
from zoo_biggan.config import BigGANConfig, paper_generator
from zoo_biggan.model import BigGAN

PARITY = Path(__file__).parent / "parity"
DEEP, PLAIN = PARITY / "biggan_deep_toy64", PARITY / "ajbrock_biggan32"
Tensors = dict[str, Tensor]

IMAGES = 1e-5            # absolute, after tanh
LOGITS = 2e-5            # of the largest


def given(case: Path) -> tuple[Tensors, Tensors]:
    return load_file(case / "inputs.safetensors"), load_file(case / "outputs.safetensors")


def assert_same(ours: Tensor, theirs: Tensor, within: float) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= within


def weights(path: Path) -> Tensors:
    return torch.load(path, weights_only=True)


def written(folder: Path, **files: Tensors) -> Path:
    for name, state in files.items():
        torch.save(state, folder / f"{name}.pth")
    return folder


# pytorch-pretrained-biggan.


@pytest.fixture(scope="module")
def deep() -> BigGAN:
    return zoo.convert(DEEP)


TRUNCATIONS = ["0.4", "1.0", "0.445", "0.45", "0.14", "0.28", "0.56", "0.58", "0.94", "0.02", "0.01"]


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_deep_images_are_upstreams_at_each_truncation(deep, truncation):
    inputs, outputs = given(DEEP)
    psi = float(truncation)
    images = deep.sample(z=0.5 * inputs["z"], labels=inputs["y"], psi=psi, clamp=False)
    assert_same(images, outputs[f"img_t{truncation}"], IMAGES)


def test_deep_images_of_mixed_classes_are_upstreams(deep):
    inputs, outputs = given(DEEP)
    images = deep.sample(z=inputs["z"], labels=inputs["y_soft"], psi=0.5, clamp=False)
    assert_same(images, outputs["img_soft_t0.5"], IMAGES)


def test_every_scenario_of_the_deep_case_was_compared():
    names = {f"img_t{truncation}" for truncation in TRUNCATIONS} | {"img_soft_t0.5", "cond", "gen_z_t"}
    assert set(given(DEEP)[1]) == names


@torch.no_grad()
def test_the_deep_condition_and_first_layer_are_upstreams(deep):
    inputs, outputs = given(DEEP)
    generator, z = deep.generator.eval(), inputs["z"]
    rows = generator.embedding(inputs["y"].float())
    assert_same(torch.cat([z, rows], 1), outputs["cond"], 1e-6)
    first = generator.linear(torch.cat([rows, z], 1)).reshape(4, -1, 4, 4)      # channels first, theirs last
    assert_same(first.permute(0, 2, 3, 1).reshape(4, -1), outputs["gen_z_t"], 1e-6)


def test_the_deep_model_is_a_generator_and_trains_with_spectral_norm(deep):
    assert set(deep.networks()) == {"generator"}
    assert deep.architecture == "biggan"
    assert deep.origin["source"]["format"] == "huggingface_biggan"
    config = deep.config
    assert (config.resolution, config.num_classes, config.latent_size, config.statistics) == (64, 12, 16, 51)
    assert (config.norm_eps, config.interpolation, config.spectral) == (1e-4, "swapped", "stored")
    full = zoo.convert(DEEP)
    assert full.complete() == ("discriminator",)
    images, labels = full.sample(2, seed=0, labels=[0, 1]), [0, 1]
    assert torch.isfinite(full.logits(images, labels)).all()
    full.train()
    u = full.generator.to_image.u.clone()
    full.generator(torch.randn(4, 16), torch.eye(12)[:4])
    assert not torch.equal(full.generator.to_image.u, u)


def test_a_deep_model_fitted_to_grey_images_keeps_its_spectral_norm(tmp_path, deep):
    """The last convolution loses outputs: its norm is that of what is left, before any training."""
    zoo.save(deep, tmp_path / "deep")
    grey = zoo.load(f"dir:{tmp_path / 'deep'}", adapt=True, channels=1)
    layer = grey.generator.to_image
    assert grey.adapted["generator.to_image.weight"].startswith("trimmed")
    stored = layer.u @ layer.weight.flatten(1) @ layer.v
    assert stored.item() == pytest.approx(torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item(), rel=0.02)
    untouched = "generator.blocks.0.conv1.v"
    assert torch.equal(grey.state_dict()[untouched], deep.state_dict()[untouched])


def test_the_published_deep_configurations_are_the_papers():
    """The lists of config.json at three sizes, and what the paper counts: 50.4 million parameters at 128 pixels."""
    published = {
        128: [(0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8), (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2),
              (1, 2, 1)],
        256: [(0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8), (1, 8, 8), (0, 8, 8), (1, 8, 4), (0, 4, 4),
              (1, 4, 2), (0, 2, 2), (1, 2, 1)],
        512: [(0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8), (1, 8, 8), (0, 8, 8), (1, 8, 4), (0, 4, 4),
              (1, 4, 2), (0, 2, 2), (1, 2, 1), (0, 1, 1), (1, 1, 1)],
    }  # fmt: skip
    for resolution, layers in published.items():
        assert [(int(grows), a, b) for grows, a, b in paper_generator(resolution, deep=True)] == layers
        settings = BigGANConfig(resolution=resolution, deep=True, width=128, num_classes=1000)
        assert settings.attention_up == (7,)                  # attention_layer_position 8: before block 8
        assert (settings.latent_size, settings.embedding) == (128, 128)
    with torch.device("meta"):
        config = {"width": 128, "num_classes": 1000, "spectral": "stored", "spare_channels": 125, "statistics": 51}
        model = BigGAN(BigGANConfig(resolution=128, deep=True, **config))
    assert round(sum(p.numel() for p in model.generator.parameters()) / 1e6, 1) == 50.4
    bytes_in_all = 4 * sum(tensor.numel() for tensor in model.generator.state_dict().values())
    assert round(bytes_in_all / 1e6) == 211                   # what the published file measures


@pytest.mark.parametrize("config_beside", [True, False], ids=["with its config", "file alone"])
def test_a_deep_network_of_the_papers_blocks_needs_no_configuration(tmp_path, config_beside):
    layers = [list(layer) for layer in paper_generator(128, deep=True)]
    config = {
        "attention_layer_position": 8, "channel_width": 4, "class_embed_dim": 6, "eps": 1e-4, "layers": layers,
        "n_stats": 51, "num_classes": 5, "output_dim": 128, "z_dim": 6,
    }  # fmt: skip
    state = upstream.deep_generator(config)
    torch.save(state, tmp_path / "pytorch_model.bin")
    if config_beside:
        (tmp_path / "config.json").write_text(json.dumps(config))
    model = zoo.convert(tmp_path / "pytorch_model.bin")
    assert model.config.generator_blocks is None
    assert model.config.attention == (64,)
    z, rows = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)), torch.eye(5)[[1, 3]]
    for truncation in (0.3, 0.305):
        theirs = upstream.deep_images(state, config, z, rows, truncation)
        assert_same(model.sample(z=z, labels=rows, psi=truncation, clamp=False), theirs, IMAGES)


def deep_copy(tmp_path: Path, change=None, **config) -> Path:
    state = weights(DEEP / "pytorch_model.bin")
    if change is not None:
        change(state)
    torch.save(state, tmp_path / "pytorch_model.bin")
    settings = {**json.loads((DEEP / "config.json").read_text()), **config}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layers": [[False, 16, 16], "T"]}, "config.json beside pytorch_model.bin: layers.1=T: "),
        ({"layers": [[False, 16, 10**9]]}, "layers.0.2=1000000000: Input should be less than or equal to 64"),
        ({"eps": "small"}, "eps=small: Input should be a valid number"),
        ({"attention_layer_position": 0}, "attention before the first block"),
        ({"attention_layer_position": 4}, "layers.4.snconv1x1_theta.weight_orig' is missing"),
    ],
)
def test_a_deep_configuration_that_does_not_fit_is_refused(tmp_path, config, message):
    with pytest.raises(WeightsError, match=message) as caught:
        zoo.convert(deep_copy(tmp_path, **config), format="huggingface_biggan")
    assert "\n" not in str(caught.value)


# ajbrock/BigGAN-PyTorch.


@pytest.fixture(scope="module")
def both() -> BigGAN:
    return zoo.convert(PLAIN)


def test_a_folder_gives_both_generators_and_the_discriminator(both):
    assert set(both.networks()) == {"generator", "discriminator"}
    assert set(both.averages) == {"generator"}
    assert both.origin["source"]["format"] == "ajbrock_biggan"
    config = both.config
    assert (config.resolution, config.num_classes, config.latent_size, config.embedding) == (32, 7, 24, 12)
    assert (config.width, config.generator_blocks, config.attention_up) == (8, None, (1,))
    assert (config.statistics, config.hierarchical, config.deep) == (1, True, False)


def test_images_are_those_of_the_averaged_generator(both):
    inputs, outputs = given(PLAIN)
    assert_same(both.sample(z=inputs["z"], labels=inputs["y"], clamp=False), outputs["img_eval"], IMAGES)


def test_images_between_two_classes_are_upstreams(both):
    """Upstream's embeddings are halfway between each class and the one before it in the batch."""
    inputs, outputs = given(PLAIN)
    classes = torch.eye(7)[inputs["y"]]
    rows = (classes + classes.roll(1, 0)) / 2
    assert_same(both.sample(z=inputs["z"], labels=rows, clamp=False), outputs["img_interp_y"], IMAGES)


@torch.no_grad()
def test_the_live_generator_is_kept_beside_the_average(both):
    inputs, outputs = given(PLAIN)
    live = both.generator.eval()(inputs["z"], torch.eye(7)[inputs["y"]])
    assert_same(live, outputs["G_img_eval"], IMAGES)


@pytest.mark.parametrize(("file", "scenario"), [("G.pth", "G_img_eval"), ("G_ema.pth", "img_eval")])
def test_either_generator_alone_is_the_generator(file, scenario):
    inputs, outputs = given(PLAIN)
    model = zoo.convert(PLAIN / file)
    assert (set(model.networks()), len(model.averages)) == ({"generator"}, 0)
    assert_same(model.sample(z=inputs["z"], labels=inputs["y"], clamp=False), outputs[scenario], IMAGES)


@pytest.mark.parametrize("place", [PLAIN, PLAIN / "D.pth"], ids=["together", "alone"])
def test_logits_are_upstreams(place):
    inputs, outputs = given(PLAIN)
    model = zoo.convert(place)
    for images, scenario in ((outputs["img_eval"], "D_logits"), (inputs["d_noise"], "D_logits_noise")):
        theirs = outputs[scenario]
        assert_same(model.logits(images, inputs["y"]), theirs, LOGITS * theirs.abs().max().item())


def test_a_discriminator_alone_makes_no_images():
    model = zoo.convert(PLAIN / "D.pth")
    assert set(model.networks()) == {"discriminator"}
    with pytest.raises(zoo.ZooError, match="no generator"):
        model.sample(1)


SIZES = {"classes": 5, "latent": 10, "shared": 6}
GENERATORS = {
    "two attentions, a latent rounded down": {"resolution": 32, "ch": 4, **SIZES, "latent": 14, "attention": (8, 32)},
    "not hierarchical": {"resolution": 64, "ch": 2, **SIZES, "hier": False},
    "tables in the norms, mybn": {
        "resolution": 32, "ch": 4, **SIZES, "shared": 0, "hier": False, "norms": "mybn", "attention": (16,),
    },
    "as many classes as channels in the tables": {
        "resolution": 32, "ch": 4, **SIZES, "shared": 0, "hier": False, "classes": 16,
    },
    "cross replica": {"resolution": 128, "ch": 2, **SIZES, "latent": 20, "norms": "sync"},
    "no spectral norm": {"resolution": 256, "ch": 1, **SIZES, "latent": 21, "spectral": False},
    "512 pixels": {"resolution": 512, "ch": 1, **SIZES, "latent": 16, "attention": (32,)},
    "deep": {"resolution": 32, "ch": 4, **SIZES, "deep": True, "attention": (16,)},
    "deep, mybn": {"resolution": 64, "ch": 4, **SIZES, "deep": True, "attention": (64, 32), "norms": "mybn"},
    "deep at 256 pixels": {"resolution": 256, "ch": 4, **SIZES, "deep": True},
}  # fmt: skip


@pytest.mark.parametrize("settings", GENERATORS.values(), ids=GENERATORS.keys())
def test_generators_of_every_kind_are_read_from_their_shapes(tmp_path, settings):
    state = upstream.generator(**settings)
    model = zoo.convert(written(tmp_path, G_ema=state) / "G_ema.pth")
    config, attention = model.config, settings.get("attention", ())
    assert (config.resolution, config.width, config.deep) == (
        settings["resolution"], settings["ch"], settings.get("deep", False),
    )  # fmt: skip
    assert (config.embedding, config.attention) == (settings["shared"], tuple(sorted(attention)))
    z = torch.randn(2, model.latent_size, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 0])
    theirs = upstream.images(state, z, labels)
    assert 0.05 < theirs.std() < 0.9
    assert_same(model.sample(z=z, labels=labels, clamp=False), theirs, IMAGES)


DISCRIMINATORS = {
    "32 pixels": {"resolution": 32, "ch": 4, "attention": (0, 3)},
    "narrow": {"resolution": 64, "ch": 2, "wide": False, "attention": (3,)},
    "128 pixels": {"resolution": 128, "ch": 2},
    "narrow, 256 pixels": {"resolution": 256, "ch": 2, "wide": False},
    "deep": {"resolution": 64, "ch": 4, "deep": True, "attention": (2,)},
    "deep, three blocks a stage": {"resolution": 32, "ch": 4, "deep": True, "depth": 3, "attention": (0,)},
    "deep, one block a stage": {"resolution": 128, "ch": 4, "deep": True, "depth": 1},
}


@pytest.mark.parametrize("settings", DISCRIMINATORS.values(), ids=DISCRIMINATORS.keys())
def test_discriminators_of_every_kind_are_read_from_their_shapes(tmp_path, settings):
    state, size = upstream.discriminator(**settings, classes=5), settings["resolution"]
    model = zoo.convert(written(tmp_path, D=state) / "D.pth")
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.tensor([1, 0, 4])
    theirs = upstream.logits(state, images, labels, size)
    assert_same(model.logits(images, labels), theirs, LOGITS * theirs.abs().max().item())


def test_generator_and_discriminator_of_two_widths_are_one_model(tmp_path):
    g = upstream.generator(32, 4, classes=5, latent=12, shared=6, attention=(16,))
    d = upstream.discriminator(32, 6, classes=5, attention=(0, 1, 2, 3))
    model = zoo.convert(written(tmp_path, G=g, D=d))
    assert (model.config.width, model.config.up[0], model.config.down[0]) == (8, (True, 2, 2), (True, 0, 3))
    z, labels = torch.randn(3, 12), torch.tensor([0, 2, 4])
    images = upstream.images(g, z, labels)
    assert_same(model.sample(z=z, labels=labels, clamp=False), images, IMAGES)
    theirs = upstream.logits(d, images, labels, 32)
    assert_same(model.logits(images, labels), theirs, LOGITS * theirs.abs().max().item())


def test_statistics_that_were_accumulated_are_means_again(tmp_path):
    settings = GENERATORS["tables in the norms, mybn"]
    plain, summed = upstream.generator(**settings), upstream.generator(**settings)
    for name in summed:
        if "stored_" in name:
            summed[name] = 16 * summed[name]
        if name.endswith("accumulation_counter"):
            summed[name] = torch.full((1,), 16.0)
    model = zoo.convert(written(tmp_path, G=summed) / "G.pth")
    z, labels = torch.randn(2, 10), torch.tensor([1, 0])
    assert_same(model.sample(z=z, labels=labels, clamp=False), upstream.images(plain, z, labels), IMAGES)


def test_another_epsilon_of_batch_norm_may_be_given():
    assert zoo.convert(PLAIN / "G.pth", norm_eps=1e-4).config.norm_eps == 1e-4


def test_of_copies_the_last_one_written_is_taken(tmp_path):
    for file in ("G.pth", "D.pth"):
        shutil.copy(PLAIN / file, tmp_path / file)
    shutil.copy(PLAIN / "G_ema.pth", tmp_path / "G_copy0.pth")
    adam = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save(adam, tmp_path / "G_optim.pth")
    assert sorted(zoo.convert(tmp_path).networks()) == ["discriminator", "generator"]
    (tmp_path / "G.pth").unlink()
    (tmp_path / "D.pth").rename(tmp_path / "D_best1.pth")
    with pytest.raises(WeightsError, match="holds the copies best1, copy0: give one file"):
        zoo.convert(tmp_path)
    (tmp_path / "G_copy0.pth").rename(tmp_path / "G_ema_best1.pth")
    assert sorted(zoo.convert(tmp_path).networks()) == ["discriminator", "generator"]


# ivclab/BigGAN-Generator-Pretrained-Pytorch.


def released(resolution: int, **settings) -> Tensors:
    return upstream.released_generator(resolution, 4, classes=5, size=6, **settings)


@pytest.mark.parametrize(
    ("resolution", "chunk", "attended", "steps"), [(128, 5, 2, (1, 15, 29, 50)), (512, 4, 4, (25,))]
)
def test_released_images_are_upstreams(tmp_path, resolution, chunk, attended, steps):
    state = released(resolution, chunk=chunk, attended=attended)
    torch.save(state, tmp_path / f"biggan{resolution}-release.pt")
    model = zoo.convert(tmp_path)
    config = model.config
    assert (config.width, config.generator_blocks, config.attention) == (4, None, (64,))
    assert (config.statistics, config.norm_eps, config.spectral) == (51, 1e-4, "stored")
    z, labels = torch.randn(2, model.latent_size, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 4])
    for step in steps:
        theirs = upstream.released_images(state, resolution, z, labels, step)
        assert 0.05 < theirs.std() < 0.9
        assert_same(model.sample(z=z, labels=labels, psi=step * 0.02, clamp=False), theirs, IMAGES)


# All.


FILES = {
    "huggingface_biggan": (DEEP / "pytorch_model.bin", "generator.layers.2.bn_1.scale.weight_v", "embeddings.weight"),
    "ajbrock_biggan G": (PLAIN / "G.pth", "blocks.1.0.bn2.gain.u0", "output_layer.2.bias"),
    "ajbrock_biggan D": (PLAIN / "D.pth", "blocks.1.1.gamma", "blocks.2.0.conv2.bias"),
}


def altered(tmp_path: Path, source: Path, change) -> Path:
    state = weights(source)
    change(state)
    if (source.parent / "config.json").exists():
        shutil.copy(source.parent / "config.json", tmp_path)
    torch.save(state, tmp_path / source.name)
    return tmp_path / source.name


@pytest.mark.parametrize(("source", "first", "second"), FILES.values(), ids=FILES.keys())
def test_altered_files_are_refused_by_the_tensors_name(tmp_path, source, first, second):
    def cut(state: Tensors) -> None:
        state[first] = torch.zeros(3, 3, 3)

    def poison(state: Tensors) -> None:
        state[second] = torch.full_like(state[second], float("nan"))

    changes = {
        f"{first!r} is missing": lambda state: state.pop(first),
        "'blocks.0.0.extra' is unknown": lambda state: state.update({"blocks.0.0.extra": torch.zeros(1)}),
        f"tensor {first!r}": cut,
        f"tensor {second!r}.* not finite": poison,
    }
    for message, change in changes.items():
        with pytest.raises(WeightsError, match=message.replace("[", r"\[")) as caught:
            zoo.convert(altered(tmp_path, source, change))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reader"),
    [
        (DEEP / "pytorch_model.bin", huggingface.FORMAT),
        (PLAIN / "G.pth", ajbrock.FORMAT),
        (PLAIN / "D.pth", ajbrock.FORMAT),
        (Path("biggan128-release.pt"), ivclab.FORMAT),
    ],
    ids=lambda value: getattr(value, "stem", ""),
)
def test_every_tensor_of_the_file_is_needed(source, reader):
    """Whichever is lost, the file is known and refused by its name; what upstream only logs may go."""
    state = weights(source) if source.exists() else released(128, chunk=5, attended=2)
    side = source.parent / "config.json"
    configs = {"config.json": json.loads(side.read_text())} if side.exists() else {}
    for lost in state:
        rest = {name: tensor for name, tensor in state.items() if name != lost}
        incomplete = Source(source, {source.name: rest}, configs)
        assert reader.recognise(incomplete)
        if lost.endswith(("sv0", "running_mean", "running_var", "num_batches_tracked")):
            assert reader.read(incomplete).parts
            continue
        with pytest.raises(WeightsError, match=re.escape(f"{source.name}: tensor {lost!r} is missing")):
            reader.read(incomplete)


def test_a_cut_file_is_refused(tmp_path):
    whole = (PLAIN / "G.pth").read_bytes()
    (tmp_path / "G.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"G\.pth"):
        zoo.convert(tmp_path / "G.pth")


@pytest.mark.parametrize("case", [DEEP, PLAIN], ids=["huggingface_biggan", "ajbrock_biggan"])
def test_a_converted_model_is_saved_and_loaded_bit_by_bit(tmp_path, case):
    model = zoo.convert(case)
    zoo.save(model, tmp_path / "saved")
    again = zoo.load(f"dir:{tmp_path / 'saved'}")
    assert list(again.state_dict()) == list(model.state_dict())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(again.sample(3, seed=1, psi=0.5), model.sample(3, seed=1, psi=0.5))
    assert {name: again.origin[name] for name in model.origin} == model.origin
