"""StyleGAN2 checkpoints of NVlabs (PyTorch and TensorFlow) and rosinality: the same numbers, and strict reading."""

from __future__ import annotations

from argparse import Namespace
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import stylegan2_reference as upstream
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from zoo.formats.contract import network
from zoo.formats.reading import read_file
from zoo.storage import sha256

PARITY = Path(__file__).parent / "parity"
NVLABS = PARITY / "nvlabs_sg2ada_resnet_gray32" / "network-snapshot.inert.pkl"
ROSINALITY = PARITY / "rosinality_train32" / "800000.pt"
GATE = 2e-5      # of the largest number of the reference


def same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error < GATE, f"{error:.1e} of the largest number"


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mixed(styles: Tensor, others: Tensor, layer: int) -> Tensor:
    """Styles up to a layer, others from there on."""
    return torch.cat([styles[:, :layer], others[:, layer:]], dim=1)


# Upstream's own numbers.


@pytest.fixture(scope="module")
def nvlabs() -> zoo.Model:
    return zoo.convert(NVLABS.parent)      # a folder: what lies beside the checkpoint does no harm


@pytest.fixture(scope="module")
def rosinality() -> zoo.Model:
    return zoo.convert(ROSINALITY.parent)


def test_every_number_of_the_nvlabs_case(nvlabs):
    given, wanted = (load_file(NVLABS.parent / f"{name}.safetensors") for name in ("inputs", "outputs"))
    z, labels = given["z"], given["c"]
    same(nvlabs.styles(z, labels), wanted["w"])
    same(nvlabs.styles(z, labels, psi=0.7, cutoff=4), wanted["w_psi0.7_cut4"])
    for psi in (1.0, 0.5):
        for noise in ("const", "none"):
            found = nvlabs.sample(z=z, labels=labels, psi=psi, noise=noise, clamp=False)
            same(found, wanted[f"img_psi{psi:g}_{noise}"])
    found = nvlabs.sample(z=z, labels=labels, psi=0.7, cutoff=4, noise="const", clamp=False)
    same(found, wanted["img_psi0.7_cut4_const"])
    same(nvlabs.sample(z=z, labels=labels, noise="const", clamp=False), wanted["img_unfused_const"])
    styles = nvlabs.styles(z, labels)
    found = nvlabs.synthesise(mixed(styles, styles.roll(1, 0), 4), noise="const", clamp=False)
    same(found, wanted["img_mix4_const"])
    same(nvlabs.logits(wanted["img_psi1_const"].clamp(-2, 2), labels), wanted["D_logits_of_img_psi1_const"])
    same(nvlabs.logits(given["d_noise"], labels), wanted["D_logits_noise"])
    live = deepcopy(nvlabs)
    del live.averages["generator"]
    same(live.sample(z=z, labels=labels, noise="const", clamp=False), wanted["G_img_psi1_const"])


def test_every_number_of_the_rosinality_case(rosinality):
    given, wanted = (load_file(ROSINALITY.parent / f"{name}.safetensors") for name in ("inputs", "outputs"))
    z, other = given["z"], given["z2"]
    styles = rosinality.styles(z)
    same(styles[:, 0], wanted["w"])
    same(rosinality.sample(z=z, noise="const", clamp=False), wanted["img_t1_const"])
    same(rosinality.sample(z=z, noise="none", clamp=False), wanted["img_t1_none"])
    same(rosinality.averages["generator"].w_average, given["latent_avg"])      # the mean that upstream draws
    same(rosinality.sample(z=z, psi=0.5, noise="const", clamp=False), wanted["img_t0.5_const"])
    found = rosinality.synthesise(mixed(styles, rosinality.styles(other), 4), noise="const", clamp=False)
    same(found, wanted["img_mix4_const"])
    same(rosinality.logits(wanted["img_t1_const"].clamp(-2, 2)), wanted["D_logits"])


def test_what_the_cases_are_made_of(nvlabs, rosinality):
    sizes = {"resolution": 32, "channels": 1, "num_classes": 8, "latent": 16, "w": 24, "embed": 12, "mapping_width": 20}
    assert sizes.items() <= nvlabs.config.model_dump().items()
    assert (nvlabs.config.channel_base, nvlabs.config.channel_max) == (512, 32)
    assert (nvlabs.config.stddev_group, nvlabs.config.stddev_channels) == (2, 2)
    assert (nvlabs.config.synthesis_architecture, nvlabs.config.discriminator_architecture) == ("resnet", "skip")
    assert (rosinality.config.channel_base, rosinality.config.channel_max) == (1024, 32)
    for model, path, name in ((nvlabs, NVLABS, "nvlabs_stylegan2"), (rosinality, ROSINALITY, "rosinality_stylegan2")):
        assert (model.architecture, model.absent) == ("stylegan", ())
        assert model.origin["source"]["format"] == name
        assert model.origin["source"]["files"] == {path.name: sha256(path)}
    assert "NVIDIA" in nvlabs.origin["license"]


def test_the_reference_computes_what_upstreams_code_does():
    given, wanted = (load_file(NVLABS.parent / f"{name}.safetensors") for name in ("inputs", "outputs"))
    tree = read_file(NVLABS)
    generator = upstream.Generator(
        32, z=16, c=8, w=24, channels=1, base=512, most=32, architecture="resnet",
        mapping={"layers": 3, "embed": 12, "width": 20},
    )  # fmt: skip
    judge = upstream.Discriminator(
        32, c=8, channels=1, base=512, most=32, architecture="skip", group=2, extra=2, mapping={"layers": 8}
    )
    generator.load_state_dict(network(tree["G_ema"]))
    judge.load_state_dict(network(tree["D"]))
    with torch.no_grad():
        same(generator.styles(given["z"], given["c"], 0.7, 4), wanted["w_psi0.7_cut4"])
        same(generator(given["z"], given["c"], 0.5), wanted["img_psi0.5_const"])
        same(judge(wanted["img_psi1_const"].clamp(-2, 2), given["c"]), wanted["D_logits_of_img_psi1_const"])


# Other configurations, against the reference.


@dataclass
class Case:
    generator: dict = field(default_factory=dict)
    judge: dict = field(default_factory=dict)
    shared: dict = field(default_factory=dict)
    resolution: int = 16
    batch: int = 4


CASES = {
    "config f": Case(resolution=64),
    "orig": Case(
        {"architecture": "orig"}, {"architecture": "orig", "frozen": 8, "mapping": {"layers": 0}}, {"c": 10}, batch=8
    ),
    "classes": Case(
        {"mapping": {"layers": 1, "rate": 0.1}, "w": 9, "z": 7},
        {"label": 6, "mapping": {"layers": 3, "rate": 0.05, "embed": 5, "width": 4}, "architecture": "skip"},
        {"c": 3, "channels": 4},
    ),
    "clamps": Case({"clamp": 0.8, "architecture": "resnet"}, {"clamp": 0.5, "architecture": "skip"}),
    "one clamp": Case({}, {"clamp": 0.5, "architecture": "skip", "group": None, "extra": 3}, batch=6),
    "other channels": Case({"base": 128, "most": 100}, {"base": 200, "most": 12, "extra": 0}),
    "other filter": Case({"architecture": "resnet"}, {}, {"taps": (1.0, 2.0, 5.0, 5.0, 2.0, 1.0)}),
    "long filter": Case({}, {"architecture": "skip"}, {"taps": (1.0, 0.5, 2.0, 6.0, 6.0, 2.0, 0.5, 1.0)}),
    "silent": Case({"use_noise": False, "architecture": "resnet"}),
}


def drawn(case: Case, seed: int = 0) -> tuple[upstream.Generator, upstream.Discriminator]:
    torch.manual_seed(seed)
    generator = upstream.Generator(case.resolution, **case.generator, **case.shared)
    judge = upstream.Discriminator(case.resolution, **case.judge, **case.shared)
    return generator.eval().requires_grad_(False), judge.eval().requires_grad_(False)


def check(
    model: zoo.Model, generator: upstream.Generator, judge: upstream.Discriminator | None, batch: int = 4
) -> None:
    """Hold a model against the networks that its file was written from."""
    z, classes = randn(batch, generator.z_dim), generator.c_dim
    labels = torch.eye(classes)[torch.arange(batch) % classes] if classes else None
    same(model.styles(z, labels, psi=0.6, cutoff=3), generator.styles(z, labels, 0.6, 3))
    images = generator(z, labels, 0.6, "const")
    same(model.sample(z=z, labels=labels, psi=0.6, noise="const", clamp=False), images)
    same(model.sample(z=z, labels=labels, noise="none", clamp=False), generator(z, labels, 1.0, "none"))
    if judge is not None:
        same(model.logits(images, labels), judge(images, labels))
        noise = randn(*images.shape, seed=1)
        same(model.logits(noise, labels), judge(noise, labels))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nvlabs_pickles_of_every_configuration(case, tmp_path):
    generator, judge = drawn(case)
    path = upstream.write_pickle(tmp_path / "network.pkl", {"G_ema": generator, "D": judge, "augment_pipe": None})
    model = zoo.convert(path)
    assert model.absent == ()
    assert not model.averages
    check(model, generator, judge, case.batch)


def test_a_file_without_some_networks_gives_a_model_without_them(tmp_path):
    generator, judge = drawn(Case())
    other, _ = drawn(Case(), seed=1)
    alone = zoo.convert(upstream.write_pickle(tmp_path / "generator.pkl", {"G_ema": generator}))
    assert alone.absent == ("discriminator",)
    check(alone, generator, None)
    bare = zoo.convert(upstream.write_pickle(tmp_path / "bare.pkl", generator))
    check(bare, generator, None)
    critic = zoo.convert(upstream.write_pickle(tmp_path / "critic.pkl", {"D": judge}))
    assert critic.absent == ("generator",)
    same(critic.logits(images := randn(4, 3, 16, 16)), judge(images))
    both = zoo.convert(upstream.write_pickle(tmp_path / "both.pkl", {"G": other, "D": None, "G_ema": generator}))
    check(both, generator, None)
    del both.averages["generator"]
    check(both, other, None)


TENSORFLOW = {
    "stylegan2": (Case(resolution=32), "D_stylegan2", {"fmap_base": 128, "fmap_max": 24}, {"fmap_base": 128}),
    "whole batch": (
        Case({"architecture": "resnet"}, {"architecture": "skip", "group": None}, batch=8),
        "D_main", {"architecture": "resnet"}, {"architecture": "skip"},
    ),
    "classes": (
        Case({"architecture": "orig", "mapping": {"layers": 3, "embed": 5, "width": 7}, "clamp": 0.8},
             {"architecture": "orig", "mapping": {"layers": 0}, "extra": 2, "group": 2}, {"c": 3}),
        "D_main", {"architecture": "orig", "label_size": 3, "mapping_layers": 3, "conv_clamp": 0.8},
        {"architecture": "orig", "label_size": 3, "mbstd_group_size": 2, "mbstd_num_features": 2},
    ),
    "mapped classes": (
        Case({"use_noise": False}, {"mapping": {"layers": 2, "rate": 0.1}, "label": 9}, {"c": 2, "taps": (1.0, 1.0)}),
        "D_main", {"label_size": 2, "use_noise": False, "resample_kernel": None},
        {"label_size": 2, "mapping_layers": 2, "mapping_fmaps": 9, "resample_kernel": [1, 1], "mbstd_group_size": 4},
    ),
}  # fmt: skip


def tensorflow(case: Case, function: str, drawing: dict, judging: dict) -> tuple:
    """Networks of a case, and the three objects that a TensorFlow pickle of it holds."""
    generator, judge = drawn(case)
    live, _ = drawn(case, seed=1)
    shared = {"resolution": case.resolution, "num_channels": 3}
    drawing = {**shared, "mapping_layers": 2, "truncation_psi": 0.5, **drawing}
    return generator, judge, live, (
        upstream.tensorflow_generator(live, **drawing),
        upstream.tensorflow_discriminator(judge, function, **shared, **judging),
        upstream.tensorflow_generator(generator, **drawing),
    )  # fmt: skip


@pytest.mark.parametrize("given", TENSORFLOW.values(), ids=TENSORFLOW)
def test_tensorflow_pickles(given, tmp_path):
    generator, judge, live, networks = tensorflow(*given)
    model = zoo.convert(upstream.write_pickle(tmp_path / "stylegan2.pkl", networks))
    check(model, generator, judge, given[0].batch)
    assert model.config.stddev_group == given[0].judge.get("group", 4)
    assert "NVIDIA" in model.origin["license"]
    del model.averages["generator"]
    check(model, live, judge, given[0].batch)


def test_a_tensorflow_pickle_of_one_network(tmp_path):
    generator, judge, _, networks = tensorflow(*TENSORFLOW["stylegan2"])
    model = zoo.convert(upstream.write_pickle(tmp_path / "averaged.pkl", networks[2]))
    assert model.absent == ("discriminator",)
    check(model, generator, None)
    critic = zoo.convert(upstream.write_pickle(tmp_path / "judge.pkl", networks[1]))
    same(critic.logits(images := randn(4, 3, 32, 32)), judge(images))


def test_rosinality_files_of_every_layout(tmp_path):
    case = Case({"z": 10, "mapping": {"layers": 3}}, {}, {"base": 512, "most": 16}, resolution=64)
    generator, judge = drawn(case)
    live, _ = drawn(case, seed=1)
    state, average = upstream.rosinality_generator(generator), generator.mapping.w_avg
    critic = upstream.rosinality_discriminator(judge)
    torch.save({"g_ema": state, "latent_avg": average}, tmp_path / "converted.pt")
    model = zoo.convert(tmp_path / "converted.pt")
    assert (model.config.channel_base, model.config.channel_max, model.absent) == (512, 16, ("discriminator",))
    check(model, generator, None)
    whole = {"g_ema": state, "g": upstream.rosinality_generator(live), "d": critic, "latent_avg": average[None]}
    torch.save(whole, tmp_path / "whole.pt")
    model = zoo.convert(tmp_path / "whole.pt")
    check(model, generator, judge)
    del model.averages["generator"]
    live.mapping.w_avg.copy_(average)
    check(model, live, judge)
    save_file(state, tmp_path / "generator.safetensors")
    bare = zoo.convert(tmp_path / "generator.safetensors")
    styles = bare.styles(randn(20_000, 10, seed=2))[:, 0]
    far = (bare.generator.w_average - styles.mean(0)).abs() / styles.std(0)      # a mean of 4096 is within 1 / 64
    assert float(far.max()) < 5 / 64


@pytest.mark.parametrize("widths", [(8, 12, 6), (4, 4, 8)])
def test_channels_that_no_rule_gives_are_listed(widths, tmp_path):
    generator, judge = drawn(Case({"widths": widths}, {"widths": widths}))
    state = {"g_ema": upstream.rosinality_generator(generator), "d": upstream.rosinality_discriminator(judge)}
    torch.save({**state, "latent_avg": generator.mapping.w_avg}, tmp_path / "model.pt")
    model = zoo.convert(tmp_path / "model.pt")
    assert model.config.widths == model.config.discriminator_widths == widths
    check(model, generator, judge)
    check(zoo.load(f"dir:{zoo.save(model, tmp_path / 'model')}"), generator, judge)


# Saved and loaded.


@pytest.mark.parametrize("name", ["nvlabs", "rosinality"])
def test_a_converted_model_is_saved_and_loaded_bit_for_bit(name, tmp_path, request):
    model = request.getfixturevalue(name)
    loaded = zoo.load(f"dir:{zoo.save(model, tmp_path / 'model')}")
    assert loaded.config == model.config
    assert loaded.origin["source"] == model.origin["source"]
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    labels = None if name == "rosinality" else [0, 3]
    assert torch.equal(model.sample(2, seed=0, labels=labels), loaded.sample(2, seed=0, labels=labels))


# Refused, in one line that names what the file calls it.


def refused(path: Path, *words: str) -> None:
    with pytest.raises(zoo.ZooError) as caught:
        zoo.convert(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    for word in words:
        assert word in text, text


def without(name: str):
    def change(module: torch.nn.Module) -> None:
        place, _, last = name.rpartition(".")
        delattr(module.get_submodule(place), last)

    return change


def longer(name: str):
    def change(module: torch.nn.Module) -> None:
        place, _, last = name.rpartition(".")
        home = module.get_submodule(place)
        tensor = getattr(home, last)
        value = torch.cat([tensor, tensor[:1]])
        setattr(home, last, torch.nn.Parameter(value) if isinstance(tensor, torch.nn.Parameter) else value)

    return change


def added(name: str):
    return lambda module: module.get_submodule(name).register_buffer("extra", torch.ones(2))


def attribute(name: str, value: object):
    def change(module: torch.nn.Module) -> None:
        place, _, last = name.rpartition(".")
        setattr(module.get_submodule(place), last, value)

    return change


ALTERED = {
    "missing": ("G_ema", without("synthesis.b8.conv0.affine.bias"), "synthesis.b8.conv0.affine.bias", "missing"),
    "missing module": ("D", without("b8"), "b8", "missing"),
    "extra": ("G_ema", added("synthesis.b8"), "synthesis.b8.extra", "unknown"),
    "extra judging": ("D", added("b4.fc"), "b4.fc.extra", "unknown"),
    "shape": ("G_ema", longer("synthesis.b8.conv1.bias"), "synthesis.b8.conv1.bias", "[25]"),
    "shape judging": ("D", longer("b4.fc.weight"), "b4.fc.weight", "[25, 384]"),
    "first shape": ("G_ema", longer("synthesis.b4.const"), "synthesis.b4."),
    "not finite": ("G_ema", lambda module: module.mapping.w_avg.fill_(torch.nan), "mapping.w_avg", "finite"),
    "activation": ("D", attribute("b8.conv0.activation", "swish"), "b8.conv0.activation", "swish"),
    "clamps": ("G_ema", attribute("synthesis.b8.conv0.conv_clamp", 1.0), "conv_clamp"),
    "scale": ("G_ema", attribute("mapping.fc1.weight_gain", 0.5), "mapping.fc1.weight_gain"),
    "filter": ("D", lambda module: module.b8.conv1.resample_filter.add_(1), "b8.conv1.resample_filter"),
    "architecture": ("D", attribute("b8.architecture", "dense"), "architecture"),
    "resolution": ("G_ema", attribute("img_resolution", 10**30), "img_resolution"),
    "classes": ("D", attribute("c_dim", "many"), "c_dim", "many"),
    "other classes": ("D", attribute("img_channels", 1), "channels"),
}


@pytest.mark.parametrize("alteration", ALTERED.values(), ids=ALTERED)
def test_an_altered_nvlabs_pickle_is_refused(alteration, tmp_path):
    which, change, *words = alteration
    generator, judge = drawn(Case())
    networks = {"G_ema": generator, "D": judge}
    change(networks[which])
    refused(upstream.write_pickle(tmp_path / "network.pkl", networks), *words)


def test_a_cut_file_is_refused(tmp_path):
    for path in (NVLABS, ROSINALITY):
        whole = path.read_bytes()
        cut = tmp_path / path.name
        cut.write_bytes(whole[: len(whole) * 2 // 3])
        refused(cut)


def test_an_altered_rosinality_file_is_refused(tmp_path):
    generator, judge = drawn(Case())
    state = {"g_ema": upstream.rosinality_generator(generator), "d": upstream.rosinality_discriminator(judge)}
    path = tmp_path / "model.pt"

    def variant(which: str, name: str, tensor: Tensor | None) -> dict:
        changed = {key: dict(value) for key, value in state.items()}
        changed[which].pop(name, None)
        changed[which] |= {} if tensor is None else {name: tensor}
        return {**changed, "latent_avg": generator.mapping.w_avg, "args": Namespace(size=16)}

    for which, name, tensor, word in (
        ("g_ema", "convs.1.activate.bias", None, "missing"),
        ("d", "convs.1.skip.1.weight", None, "missing"),
        ("g_ema", "convs.9.activate.bias", torch.ones(3), "unknown"),
        ("d", "final_linear.2.bias", torch.ones(3), "unknown"),
        ("g_ema", "to_rgbs.1.bias", torch.ones(2, 3, 1, 1), "[2, 3, 1, 1]"),
        ("g_ema", "convs.0.conv.weight", torch.ones(3), "convs.0.conv.weight"),
        ("d", "convs.1.conv1.1.bias", torch.ones(9), "[9]"),
        ("d", "convs.2.conv2.0.kernel", torch.ones(4, 4), "filter"),
    ):
        torch.save(variant(which, name, tensor), path)
        refused(path, name, word)
    torch.save({**variant("d", "none", None), "latent_avg": torch.ones(3)}, path)
    refused(path, "latent_avg")
    torch.save({**variant("d", "none", None), "e_ema": torch.ones(3)}, path)
    refused(path, "e_ema")


def test_an_altered_tensorflow_pickle_is_refused(tmp_path):
    path = tmp_path / "stylegan2.pkl"

    def variables(network: upstream.Network, name: str, change) -> None:
        found = dict(network.state["variables"])
        found[name] = change(found[name]) if name in found else change(None)
        network.state["variables"] = [pair for pair in found.items() if pair[1] is not None]

    for name, change, word in (
        ("4x4/Conv/mod_bias", lambda array: None, "missing"),
        ("16x16/Conv2/bias", lambda array: torch.ones(3).numpy(), "unknown"),
        ("8x8/Conv1/bias", lambda array: array[1:], "[23]"),
        ("8x8/Conv1/weight", lambda array: array[0], "shape"),
    ):
        networks = tensorflow(*TENSORFLOW["stylegan2"])[3]
        variables(networks[2].state["components"]["synthesis"], name, change)
        refused(upstream.write_pickle(path, networks), f"synthesis/{name}", word)
    for name, value in (("nonlinearity", "relu"), ("progressive", True), ("resolution", 48)):
        networks = tensorflow(*TENSORFLOW["stylegan2"])[3]
        networks[1].state["static_kwargs"] = {**networks[1].state["static_kwargs"], name: value}
        refused(upstream.write_pickle(path, networks), name)
