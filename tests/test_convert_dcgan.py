"""DCGAN checkpoints of the PyTorch examples and of code after them: the same images and logits, and strict reading."""

from __future__ import annotations

import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import zoo
from zoo.formats.contract import Converted, Source
from zoo_dcgan.pytorch_examples import FORMAT

CASE = Path(__file__).parent / "parity" / "dcgan_examples_rgb"
GENERATOR, DISCRIMINATOR = "netG_epoch_24.pth", "netD_epoch_24.pth"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def inputs() -> Tensors:
    return load_file(CASE / "inputs.safetensors")


@pytest.fixture(scope="module")
def outputs() -> Tensors:
    return load_file(CASE / "outputs.safetensors")


def upstream(name: str) -> Tensors:
    return torch.load(CASE / name, weights_only=True)


def samples(model: zoo.Model, inputs: Tensors, **options) -> Tensor:
    return model.sample(z=inputs["z"].flatten(1), **options)


def check_images(model: zoo.Model, inputs: Tensors, outputs: Tensors) -> None:
    for statistics, scenario in (("running", "img_eval"), ("batch", "img_trainbn")):
        torch.testing.assert_close(
            samples(model, inputs, statistics=statistics), outputs[scenario], atol=1e-6, rtol=0
        )


def check_logits(model: zoo.Model, inputs: Tensors, outputs: Tensors) -> None:
    noise, made = (model.logits(images).flatten() for images in (inputs["d_noise"], outputs["img_eval"]))
    torch.testing.assert_close(noise, outputs["D_logit_noise_eval"], atol=1e-6, rtol=0)
    torch.testing.assert_close(noise.sigmoid(), outputs["D_prob_noise_eval"], atol=1e-6, rtol=0)
    torch.testing.assert_close(made.sigmoid(), outputs["D_prob_eval"], atol=1e-6, rtol=0)


# The files that the PyTorch examples write.


def test_a_folder_gives_both_networks(inputs, outputs):
    model = zoo.convert(CASE)
    assert (model.architecture, model.absent) == ("dcgan", ())
    sizes = {"resolution": 64, "channels": 3, "latent": 20, "generator_width": 8, "discriminator_width": 8}
    assert sizes.items() <= model.config.model_dump().items()
    check_images(model, inputs, outputs)
    check_logits(model, inputs, outputs)


def test_a_generator_alone(inputs, outputs):
    model = zoo.convert(CASE / GENERATOR)
    assert model.absent == ("discriminator",)
    check_images(model, inputs, outputs)
    with pytest.raises(zoo.ZooError, match="no discriminator"):
        model.logits(outputs["img_eval"])


def test_a_discriminator_alone(inputs, outputs):
    model = zoo.convert(CASE / DISCRIMINATOR)
    assert model.absent == ("generator",)
    check_logits(model, inputs, outputs)
    with pytest.raises(zoo.ZooError, match="hold no generator"):
        model.sample(1, seed=0)


def test_what_was_converted_is_saved_and_loaded_equal(tmp_path, inputs):
    model = zoo.convert(CASE)
    again = zoo.load(f"dir:{zoo.save(model, tmp_path / 'model')}")
    assert again.config == model.config
    assert again.origin["source"] == model.origin["source"]
    before, after = model.state_dict(), again.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(samples(again, inputs), samples(model, inputs))


# Statistics of the batch.


def test_batch_statistics_leave_the_running_ones_alone(inputs):
    model = zoo.convert(CASE / GENERATOR)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    samples(model, inputs, statistics="batch")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]


def test_an_image_depends_on_its_batch_only_by_batch_statistics(inputs):
    model, z = zoo.convert(CASE / GENERATOR), inputs["z"].flatten(1)
    for statistics, same in (("running", True), ("batch", False)):
        alone, among = (model.sample(z=z[:n], statistics=statistics)[:2] for n in (2, 4))
        assert torch.allclose(alone, among, atol=1e-6) is same


def test_other_statistics_are_refused(inputs):
    with pytest.raises(zoo.ZooError, match="'running' or 'batch'"):
        samples(zoo.convert(CASE / GENERATOR), inputs, statistics="train")


# Other names for the same layers.


def modules(tensors: Tensors) -> list[str]:
    """Return the names of the modules that hold the tensors, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))


def renamed(tensors: Tensors, names: list[str]) -> Tensors:
    """Return the tensors with their modules called otherwise."""
    called = dict(zip(modules(tensors), names, strict=True))
    return {f"{called[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": each for name, each in tensors.items()}


def in_order(network: str) -> list[str]:
    return modules(upstream(network))


G_NAMES = {
    "data parallel": " ".join(f"module.{name}" for name in in_order(GENERATOR)),
    "huggan": " ".join(name.replace("main", "model") for name in in_order(GENERATOR)),
    "a bare Sequential": " ".join(name.removeprefix("main.") for name in in_order(GENERATOR)),
    "convTr": "convTr1 batchNorm1 convTr2 batchNorm2 convTr3 batchNorm3 convTr4 batchNorm4 convTr5",
    "convtr_bn": "convtr1 convtr1_bn convtr2 convtr2_bn convtr3 convtr3_bn convtr4 convtr4_bn convtr5",
    "tconv": "tconv1 bn1 tconv2 bn2 tconv3 bn3 tconv4 bn4 tconv5",
    "blocks": "net.0.0 net.0.1 net.1.0 net.1.1 net.2.0 net.2.1 net.3.0 net.3.1 net.4",
    "pytorch_GAN_zoo": "formatLayer main.batchNorm0 main.convTranspose1 main.batchNorm1 main.convTranspose2 "
    "main.batchNorm2 main.convTranspose3 main.batchNorm3 main.outlayer",
    "WassersteinGAN": "main.initial:20-64:convt main.initial:64:batchnorm main.pyramid:64-32:convt "
    "main.pyramid:32:batchnorm main.pyramid:32-16:convt main.pyramid:16:batchnorm main.pyramid:16-8:convt "
    "main.pyramid:8:batchnorm main.final:8-3:convt",
}
D_NAMES = {
    "data parallel": " ".join(f"module.{name}" for name in in_order(DISCRIMINATOR)),
    "huggan": " ".join(name.replace("main", "model") for name in in_order(DISCRIMINATOR)),
    "a bare Sequential": " ".join(name.removeprefix("main.") for name in in_order(DISCRIMINATOR)),
    "attributes": "conv1 conv2 bn2 conv3 bn3 conv4 bn4 conv5",
    "attributes from 0": "conv0 conv1 bn0 conv2 bn1 conv3 bn2 conv4",
    "blocks": "disc.0 disc.2.0 disc.2.1 disc.3.0 disc.3.1 disc.4.0 disc.4.1 disc.5",
    "pytorch_GAN_zoo": "main.convTranspose3 main.convTranspose2 main.batchNorm2 main.convTranspose1 main.batchNorm1 "
    "main.convTranspose0 main.batchNorm0 decisionLayer",
    "WassersteinGAN": "main.initial:3-8:conv main.pyramid:8-16:conv main.pyramid:16:batchnorm main.pyramid:16-32:conv "
    "main.pyramid:32:batchnorm main.pyramid:32-64:conv main.pyramid:64:batchnorm main.final:64-1:conv",
    "WassersteinGAN of 2017": "main.initial.conv.3-8 main.pyramid.8-16.conv main.pyramid.16.batchnorm "
    "main.pyramid.16-32.conv main.pyramid.32.batchnorm main.pyramid.32-64.conv main.pyramid.64.batchnorm "
    "main.final.64-1.conv",
}


@pytest.mark.parametrize("naming", G_NAMES)
def test_generators_by_other_names(naming, tmp_path, inputs, outputs):
    torch.save(renamed(upstream(GENERATOR), G_NAMES[naming].split()), tmp_path / "generator.pth")
    check_images(zoo.convert(tmp_path), inputs, outputs)


@pytest.mark.parametrize("naming", D_NAMES)
def test_discriminators_by_other_names(naming, tmp_path, inputs, outputs):
    torch.save(renamed(upstream(DISCRIMINATOR), D_NAMES[naming].split()), tmp_path / "discriminator.pth")
    check_logits(zoo.convert(tmp_path), inputs, outputs)


def test_order_in_the_file_does_not_matter(tmp_path, inputs, outputs):
    save_file(dict(sorted(upstream(GENERATOR).items())), tmp_path / "model.safetensors")      # main.10 before main.3
    check_images(zoo.convert(tmp_path / "model.safetensors"), inputs, outputs)


def test_one_file_of_both_networks_and_the_state_of_training(tmp_path, inputs, outputs):
    adam = torch.optim.Adam([nn.Parameter(torch.ones(2, 2, 2, 2))])
    content = {
        "netG_state_dict": upstream(GENERATOR), "netD_state_dict": upstream(DISCRIMINATOR),
        "optimizerG_state_dict": adam.state_dict(), "G_losses": [0.5, 0.25], "epoch": 24,
    }  # fmt: skip
    torch.save(content, tmp_path / "checkpoint.pth")
    model = zoo.convert(tmp_path / "checkpoint.pth")
    check_images(model, inputs, outputs)
    check_logits(model, inputs, outputs)
    assert list(model.origin["source"]["files"]) == ["checkpoint.pth"]
    del content["netD_state_dict"]["main.6.bias"]
    torch.save(content, tmp_path / "checkpoint.pth")
    assert "checkpoint.pth: tensor 'netD_state_dict.main.6.bias' is missing" in refusal(tmp_path / "checkpoint.pth")


def test_one_state_dict_of_both_networks(tmp_path, inputs, outputs):
    tensors = {f"generator.{name}": tensor for name, tensor in upstream(GENERATOR).items()}
    tensors |= {f"discriminator.{name}": tensor for name, tensor in upstream(DISCRIMINATOR).items()}
    torch.save({"state_dict": tensors, "global_step": 5}, tmp_path / "last.ckpt")
    model = zoo.convert(tmp_path / "last.ckpt")
    check_images(model, inputs, outputs)
    check_logits(model, inputs, outputs)


def test_the_average_is_what_samples(tmp_path, inputs, outputs):
    live = {name: tensor + 1 if name.endswith(".weight") else tensor for name, tensor in upstream(GENERATOR).items()}
    torch.save({"netG": live, "avgG": upstream(GENERATOR)}, tmp_path / "gan.pt")
    model = zoo.convert(tmp_path / "gan.pt")
    check_images(model, inputs, outputs)
    assert float((model.generator.head.weight - model.averages["generator"].head.weight).detach().min()) > 0.9
    torch.save({"avgG": upstream(GENERATOR)}, tmp_path / "gan.pt")
    model = zoo.convert(tmp_path / "gan.pt")
    assert list(model.averages) == []
    check_images(model, inputs, outputs)


def test_files_from_before_batches_were_counted(tmp_path, inputs, outputs):
    old = {name: tensor for name, tensor in upstream(GENERATOR).items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / GENERATOR)
    model = zoo.convert(tmp_path / GENERATOR)
    assert int(model.generator.norm.num_batches_tracked) == 0
    check_images(model, inputs, outputs)


# Other sizes, against plain torch.


def generator(latent: int, widths: list[int], channels: int, kernel: int = 4, bias: bool = False) -> nn.Sequential:
    """Return upstream's generator."""
    layers: list[nn.Module] = []
    for index, (a, b) in enumerate(pairwise([latent, *widths])):
        layers += [nn.ConvTranspose2d(a, b, 4, *((2, 1) if index else (1, 0)), bias=bias), nn.BatchNorm2d(b), nn.ReLU()]
    last = (2, 1) if kernel == 4 else (1, 0)
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, kernel, *last, bias=bias), nn.Tanh())


def discriminator(channels: int, widths: list[int], side: int = 4, bias: bool = False) -> nn.Sequential:
    """Return upstream's discriminator, without its sigmoid."""
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1, bias=bias), nn.LeakyReLU(0.2)]
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=bias), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, side, bias=bias))


@torch.no_grad()
def written(network: nn.Sequential, path: Path) -> nn.Sequential:
    """Give every tensor of a network a value of its own, write it as upstream does, and return it for evaluation."""
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor) * 0.2)
    torch.save({f"main.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    return network.eval()


SIZES = {
    16: ([16, 8], [4, 8]),
    32: ([24, 12, 6], [4, 8, 16]),
    128: ([32, 16, 8, 4, 2], [3, 6, 12, 24, 48]),
}


@pytest.mark.parametrize("resolution", SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_other_depths_widths_channels_and_biases(resolution, bias, tmp_path):
    channels = 1 if bias else 3
    up, down = SIZES[resolution]
    make = written(generator(7, up, channels, bias=bias), tmp_path / "netG_epoch_0.pth")
    judge = written(discriminator(channels, down, bias=bias), tmp_path / "netD_epoch_0.pth")
    model = zoo.convert(tmp_path)
    assert (model.config.resolution, model.config.channels, model.config.latent) == (resolution, channels, 7)
    z = torch.randn(5, 7)
    with torch.no_grad():
        images = make(z[:, :, None, None])
        torch.testing.assert_close(model.sample(z=z), images, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.logits(images), judge(images).flatten(1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            model.sample(z=z, statistics="batch"), make.train()(z[:, :, None, None]), atol=1e-5, rtol=0
        )


def test_a_last_convolution_of_kernel_1_and_a_discriminator_down_to_2x2(tmp_path):
    """What is known as the PyTorch examples' DCGAN of CIFAR-10 at 32x32: one stage fewer by its last layer."""
    make = written(generator(10, [16, 8, 4, 2], 3, kernel=1), tmp_path / "netG_epoch_199.pth")
    judge = written(discriminator(3, [2, 4, 8, 16], side=2), tmp_path / "netD_epoch_199.pth")
    model = zoo.convert(tmp_path)
    assert model.config.resolution == 32
    z = torch.randn(5, 10)
    with torch.no_grad():
        images = make(z[:, :, None, None])
        torch.testing.assert_close(model.sample(z=z), images, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.logits(images), judge(images).flatten(1), atol=1e-5, rtol=1e-5)


# What is wrong is told by its name in the file.


def refusal(path: Path, **options) -> str:
    with pytest.raises(zoo.ZooError) as caught:
        zoo.convert(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(network: str, tensors: Tensors) -> Converted:
    """Return what the reader makes of tensors, without writing a file and starting a process that reads it."""
    return FORMAT.read(Source(Path("out"), {network: tensors}))


@pytest.mark.parametrize("network", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_missing_tensor_is_named(network, prefix):
    whole = {f"{prefix}{name}": tensor for name, tensor in upstream(network).items()}
    assert read(network, whole).architecture == "dcgan"
    for name in whole:
        cut = {each: tensor for each, tensor in whole.items() if each != name}
        assert FORMAT.recognise(Source(Path("out"), {network: cut}))
        with pytest.raises(zoo.ZooError, match=rf"^{network}: tensor '{re.escape(name)}' is missing"):
            read(network, cut)


@pytest.mark.parametrize("network", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize("extra", ["main.2.running_mean", "main.99.weight", "other.weight", "main.0.weight_orig"])
def test_a_tensor_too_many_is_named(network, extra):
    whole = {**upstream(network), extra: torch.ones(4)}
    assert FORMAT.recognise(Source(Path("out"), {network: whole}))
    with pytest.raises(zoo.ZooError, match=rf"^{network}: tensor '{re.escape(extra)}' is unknown \(1 such\)"):
        read(network, whole)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_such_a_file_is_refused_in_one_line(change, tmp_path):
    tensors = upstream(GENERATOR)
    name = {"missing": "main.7.running_var", "unknown": "main.13.weight"}[change]
    if change == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.ones(4)
    torch.save(tensors, tmp_path / GENERATOR)
    assert f"{GENERATOR}: tensor '{name}' is {change}" in refusal(tmp_path / GENERATOR)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (GENERATOR, "main.3.weight"), (GENERATOR, "main.4.running_mean"), (GENERATOR, "main.10.num_batches_tracked"),
        (DISCRIMINATOR, "main.5.weight"), (DISCRIMINATOR, "main.9.bias"),
    ],
)  # fmt: skip
def test_a_tensor_of_a_wrong_shape_is_named(network, name, tmp_path):
    tensors = upstream(network)
    tensors[name] = torch.cat([tensors[name][None]] * 2)
    torch.save(tensors, tmp_path / network)
    assert f"{network}: tensor '{name}' is {list(tensors[name].shape)}" in refusal(tmp_path / network)


@pytest.mark.parametrize("name", ["main.0.weight", "main.12.weight"])
def test_a_kernel_of_another_size_is_named(name):
    tensors = upstream(GENERATOR)
    tensors[name] = tensors[name][..., :3]
    with pytest.raises(zoo.ZooError, match=f"{GENERATOR}: tensor '{name}' is .* 4, 3"):
        read(GENERATOR, tensors)


@pytest.mark.parametrize(("network", "name"), [(GENERATOR, "main.12.weight"), (DISCRIMINATOR, "main.0.weight")])
def test_images_of_so_many_channels_are_refused(network, name):
    tensors = upstream(network)
    tensors[name] = tensors[name].repeat(1, 3, 1, 1)
    with pytest.raises(zoo.ZooError, match=f"{network}: tensor '{name}' is for 9 channels"):
        read(network, tensors)


def test_numbers_that_are_none_are_named(tmp_path):
    broken = upstream(GENERATOR)
    broken["main.4.running_var"][3] = float("nan")
    torch.save(broken, tmp_path / GENERATOR)
    assert "tensor 'main.4.running_var' holds values that are not finite" in refusal(tmp_path / GENERATOR)


def test_a_cut_file_is_refused(tmp_path):
    content = (CASE / GENERATOR).read_bytes()
    for share in (0.3, 0.9):
        (tmp_path / GENERATOR).write_bytes(content[: int(share * len(content))])
        assert GENERATOR in refusal(tmp_path / GENERATOR)


def test_widths_that_do_not_double_are_refused(tmp_path):
    written(generator(7, [16, 16, 8], 3), tmp_path / GENERATOR)
    assert "tensor 'main." in refusal(tmp_path / GENERATOR)


def test_a_critic_that_tells_classes_too_is_refused(tmp_path):
    tensors = upstream(DISCRIMINATOR)
    tensors["main.11.weight"] = tensors["main.11.weight"].repeat(11, 1, 1, 1)
    torch.save(tensors, tmp_path / DISCRIMINATOR)
    assert "'main.11.weight' gives 11 numbers" in refusal(tmp_path / DISCRIMINATOR)


def test_networks_that_do_not_belong_together_are_refused(tmp_path):
    written(generator(7, [24, 12, 6], 3), tmp_path / "netG_epoch_0.pth")
    written(discriminator(3, [4, 8]), tmp_path / "netD_epoch_0.pth")
    assert "resolution 32" in (message := refusal(tmp_path))
    assert "netD_epoch_0.pth judges 16" in message
    written(generator(7, [24, 12, 6], 3), tmp_path / "netG_epoch_1.pth")
    assert "netG_epoch_0.pth and netG_epoch_1.pth both hold a generator" in refusal(tmp_path)


def test_a_network_of_another_kind_is_not_taken_for_a_dcgan(tmp_path):
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3))
    torch.save({f"encoder.{name}": tensor for name, tensor in other.state_dict().items()}, tmp_path / GENERATOR)
    assert f"{GENERATOR} is of none of the known formats" in refusal(tmp_path / GENERATOR)
    torch.save({"netG": upstream(GENERATOR), "encoder": other.state_dict()}, tmp_path / GENERATOR)
    assert f"{GENERATOR} is of none of the known formats" in refusal(tmp_path / GENERATOR)


# A published one: PyPI gan-face-generate (MIT), the tutorial's generator trained on DigiFace-1M.


@pytest.fixture(scope="module")
def published() -> Path:
    """The weights inside the installed package, which is not imported."""
    spec = find_spec("gan_face_generate")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(place, "weights.tar")).is_file():
            return path
    pytest.skip("gan-face-generate==1.1.1, which holds published DCGAN weights, is not installed")


def test_a_published_generator_is_the_tutorials(published):
    model = zoo.convert(published)
    assert (model.config.resolution, model.config.latent, model.config.generator_width) == (64, 100, 64)
    make = generator(100, [512, 256, 128, 64], 3)
    tensors = torch.load(published, weights_only=True, map_location="cpu")["netG_state_dict"]
    make.load_state_dict({name.removeprefix("main."): tensor for name, tensor in tensors.items()})
    z = torch.randn(16, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for mode, statistics in ((False, "running"), (True, "batch")):
            images = make.train(mode)(z[:, :, None, None])
            torch.testing.assert_close(model.sample(z=z, statistics=statistics), images, atol=1e-6, rtol=0)


def test_a_published_generators_images_are_smooth_and_differ(published):
    """Not noise, and not one image: neighbouring pixels go together, and images do not."""
    images = zoo.convert(published).sample(32, seed=0)
    left, right = images[..., :-1].flatten(), images[..., 1:].flatten()
    assert float(torch.corrcoef(torch.stack([left, right]))[0, 1]) > 0.9
    assert float(images.std(dim=0).mean()) > 0.2
