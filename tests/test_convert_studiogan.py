"""StudioGAN's checkpoints: every backbone that is read, against networks written anew; which files; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from studiogan_reference import Discriminator, Generator, PlainDiscriminator, PlainGenerator, lived, write
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.errors import WeightsError
from zoo.testing import CHECKS, check_architecture

N, CLASSES = 3, 5
IMAGES, LOGITS = 1e-6, 5e-6      # largest difference: absolute, and relative to the largest logit


@dataclass(frozen=True)
class Case:
    generator: Callable[[], nn.Module]
    discriminator: Callable[[], nn.Module]
    expected: dict[str, object]
    size: int = 32
    z: int = 16
    classes: int = CLASSES


CASES = {
    "big": Case(
        lambda: Generator("big", 32, 8, 16, CLASSES, 6, "chunks", attention=(2,)),
        lambda: Discriminator("big", 32, 6, CLASSES, attention=(1,)),
        {"deep": False, "latent": 16, "embedding": 6, "attention_up": (1,), "attention_down": (0,), "projection": True},
    ),
    "big at 64": Case(
        lambda: Generator("big", 64, 4, 20, CLASSES, 6, "chunks", attention=(2,)),
        lambda: Discriminator("big", 64, 8, CLASSES, attention=(1, 3)),
        {"resolution": 64, "attention_down": (0, 2), "width": 4}, size=64, z=20,
    ),
    "big at 128, contrastive": Case(
        lambda: Generator("big", 128, 2, 24, CLASSES, 6, "chunks"),
        lambda: Discriminator("big", 128, 2, CLASSES, "2C"),
        {"resolution": 128, "width": 2, "generator_blocks": None, "projection": False}, size=128, z=24,
    ),
    "big without classes": Case(
        lambda: Generator("big", 32, 4, 16, condition="chunks"), lambda: Discriminator("big", 32, 4, kind="W/O"),
        {"num_classes": 0, "hierarchical": True}, classes=0,
    ),
    "deep": Case(
        lambda: Generator("legacy", 32, 8, 16, CLASSES, 6, "chunks", attention=(2,)),
        lambda: Discriminator("legacy", 32, 4, CLASSES, attention=(1,)),
        {"deep": True, "deep_shortcut": "partial", "attention_up": (3,), "attention_down": (1,)},
    ),
    "deep at 64": Case(
        lambda: Generator("legacy", 64, 4, 16, CLASSES, 6, "chunks"), lambda: Discriminator("legacy", 64, 4, CLASSES),
        {"deep": True, "resolution": 64}, size=64,
    ),
    "deep, StudioGAN's": Case(
        lambda: Generator("studiogan", 32, 8, 16, CLASSES, 6, "chunks", attention=(1,)),
        lambda: Discriminator("studiogan", 32, 8, CLASSES, attention=(1,)),
        {"deep": True, "deep_shortcut": "convolution"},
    ),
    "deep, StudioGAN's, at 64, three blocks each": Case(
        lambda: Generator("studiogan", 64, 4, 16, CLASSES, 6, "chunks", depth=2),
        lambda: Discriminator("studiogan", 64, 4, CLASSES, depth=3),
        {"deep_shortcut": "convolution"}, size=64,
    ),
    "resnet as in SAGAN": Case(
        lambda: Generator("resnet", 32, 8, 16, CLASSES, condition="one_hot", attention=(2,)),
        lambda: Discriminator("resnet", 32, 8, CLASSES, attention=(1,)),
        {"embedding": 0, "hierarchical": False, "latent": 16, "spectral_generator": True},
    ),
    "resnet as in SNGAN": Case(
        lambda: Generator("resnet", 32, 8, CLASSES, CLASSES, condition="one_hot", spectral=False),
        lambda: Discriminator("resnet", 32, 8, CLASSES),
        {"spectral_generator": False, "spectral_discriminator": True, "num_classes": CLASSES}, z=CLASSES,
    ),
    "resnet with batch norm, no classes": Case(
        lambda: Generator("resnet", 64, 2, 16, spectral=False),
        lambda: Discriminator("resnet", 64, 2, kind="W/O", spectral=False),
        {"discriminator_batch_norm": True, "discriminator_rectified": False}, size=64, classes=0,
    ),
    "resnet, shared embedding, auxiliary classifier": Case(
        lambda: Generator("resnet", 32, 4, 16, CLASSES, 16, "shared"),
        lambda: Discriminator("resnet", 32, 4, CLASSES, "AC+ADC"),
        {"embedding": 16, "hierarchical": False, "projection": False},
    ),
    "resnet, tables, twin classifier": Case(
        lambda: Generator("resnet", 32, 4, 16, CLASSES, condition="tables"),
        lambda: Discriminator("resnet", 32, 4, CLASSES, "2C+TAC", spectral=False),
        {"embedding": 0, "projection": False},
    ),
    "DCGAN": Case(
        lambda: PlainGenerator(16), PlainDiscriminator, {"variant": "deep_conv", "num_classes": 0}, classes=0
    ),
    "DCGAN with classes": Case(
        lambda: PlainGenerator(16, CLASSES, spectral=True), lambda: PlainDiscriminator(CLASSES, "PD", spectral=True),
        {"spectral_discriminator": True, "projection": True},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    z: Tensor
    images: Tensor
    labels: Tensor | None


def inputs(case: Case) -> Given:
    torch.manual_seed(7)
    labels = torch.arange(N) % case.classes if case.classes else None
    images = F.interpolate(torch.randn(N, 3, 4, 4), (case.size, case.size), mode="bilinear").clamp(-1, 1)
    return Given(torch.randn(N, case.z), images, labels)


def made(case: Case, given: Given) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator, discriminator = case.generator(), case.discriminator()
    return lived(generator, given.z, given.labels), lived(discriminator, given.images, given.labels)


def furthest(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


@pytest.mark.parametrize("name", CASES)
def test_images_and_logits_are_upstreams(name, tmp_path):
    case = CASES[name]
    given = inputs(case)
    generator, discriminator = made(case, given)
    model = zoo.convert(write(tmp_path, G=generator, D=discriminator))
    with torch.no_grad():
        images, logits = generator(given.z, given.labels), discriminator(given.images, given.labels)
    assert min(float(images.std()), float(logits.std())) > 1e-3      # references that say something
    assert furthest(model.sample(z=given.z, labels=given.labels, clamp=False), images) < IMAGES
    assert furthest(model.logits(given.images, given.labels)[:, 0], logits) < LOGITS * float(logits.abs().max())
    for setting, value in case.expected.items():
        assert getattr(model.config, setting) == value, setting


@pytest.fixture(scope="module")
def big():
    case = CASES["big"]
    given = inputs(case)
    generator, discriminator = made(case, given)
    torch.manual_seed(1)
    return given, generator, lived(case.generator(), given.z, given.labels, seed=1), discriminator


def test_a_run_is_a_live_and_an_averaged_generator_and_a_discriminator(big, tmp_path):
    given, generator, average, discriminator = big
    run = write(tmp_path, G=generator, G_ema=average, D=discriminator)
    write(run, when="current", step=2000, G=average, G_ema=generator, D=discriminator)      # the best are taken
    model = zoo.convert(run)
    assert model.origin["license"] == "MIT"
    assert model.origin["source"]["format"] == "studiogan"
    assert furthest(model.sample(z=given.z, labels=given.labels, clamp=False), average(given.z, given.labels)) < IMAGES
    live = model.generator.eval()(given.z, model.onehot(given.labels, N))
    assert furthest(live, generator(given.z, given.labels)) < IMAGES
    zoo.save(model, tmp_path / "saved")
    again = zoo.load(f"dir:{tmp_path / 'saved'}")
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(again.logits(given.images, given.labels), model.logits(given.images, given.labels))


def test_an_averaged_generator_alone_is_the_generator_and_gets_a_discriminator_to_train(big, tmp_path):
    given, _, average, _ = big
    model = zoo.convert(write(tmp_path, G_ema=average) / "model=G_ema-best-weights-step=1000.pth")
    assert (list(model.averages), model.absent) == ([], ("discriminator",))
    assert furthest(model.sample(z=given.z, labels=given.labels, clamp=False), average(given.z, given.labels)) < IMAGES
    assert model.complete() == ("discriminator",)
    judged = model.logits(given.images, given.labels)
    assert float(judged.abs().max()) < 100      # its spectral norms are near 1 before any training


def test_training_refines_the_stored_vectors_and_evaluation_does_not(big, tmp_path):
    given, *_, discriminator = big
    model = zoo.convert(write(tmp_path, D=discriminator) / "model=D-best-weights-step=1000.pth")
    rows = model.onehot(given.labels, N)
    before = {name: buffer.clone() for name, buffer in model.discriminator.named_buffers()}
    model.discriminator.eval()(given.images, rows)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.discriminator.named_buffers())
    model.discriminator.train()(given.images, rows)
    discriminator.train()(given.images, given.labels)
    model.discriminator.eval()
    discriminator.eval()
    logits = discriminator(given.images, given.labels)
    assert any(not torch.equal(before[name], buffer) for name, buffer in model.discriminator.named_buffers())
    assert furthest(model.logits(given.images, given.labels)[:, 0], logits) < 1e-5 * float(logits.abs().max())


def test_what_a_relu_in_place_does_to_shortcuts_is_kept(big, tmp_path):
    given, *_, discriminator = big
    file = write(tmp_path, D=discriminator) / "model=D-best-weights-step=1000.pth"
    other = zoo.convert(file, discriminator_rectified=False).logits(given.images, given.labels)
    same = zoo.convert(file).logits(given.images, given.labels)
    assert furthest(same, other) > 0.01 * float(same.abs().max())


def test_names_of_parallel_training_and_any_name_of_the_file_will_do(big, tmp_path):
    given, generator, *_ = big
    wrapped = {f"module.{name}": tensor for name, tensor in generator.state_dict().items()}
    torch.save(wrapped, tmp_path / "mine.pt")
    images = zoo.convert(tmp_path / "mine.pt").sample(z=given.z, labels=given.labels, clamp=False)
    assert furthest(images, generator(given.z, given.labels)) < IMAGES


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        zoo.convert(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_files_that_do_not_belong_together_are_refused(big, tmp_path):
    _, generator, average, discriminator = big
    several = tmp_path / "several"
    several.mkdir()
    write(write(several, G=generator), step=2000, G=average)
    assert "step=1000.pth, model=G-best-weights-step=2000.pth are each a generator" in refusal(several)
    strangers = tmp_path / "steps"
    strangers.mkdir()
    write(write(strangers, G=generator), step=2000, D=discriminator)
    assert "of different steps" in refusal(strangers)
    sizes = tmp_path / "sizes"
    sizes.mkdir()
    write(sizes, G=generator, D=Discriminator("big", 64, 2, CLASSES))
    assert "has resolution 64" in refusal(sizes)
    classes = tmp_path / "classes"
    classes.mkdir()
    write(classes, G=generator, D=Discriminator("big", 32, 6, 9))
    assert "knows 9 classes" in refusal(classes)


SPOILS: dict[str, tuple[str, Callable[[dict[str, Tensor]], object]]] = {
    "missing weight": ("blocks.1.0.conv2d1.weight_orig", lambda s: s.pop("blocks.1.0.conv2d1.weight_orig")),
    "missing vector": ("blocks.0.0.conv2d2.weight_v", lambda s: s.pop("blocks.0.0.conv2d2.weight_v")),
    "missing bias": ("linear0.bias", lambda s: s.pop("linear0.bias")),
    "missing block": ("blocks.1.0", lambda s: [s.pop(n) for n in list(s) if n.startswith("blocks.1.")]),
    "missing attention": ("blocks.2.0.sigma", lambda s: s.pop("blocks.2.0.sigma")),
    "extra": ("blocks.0.0.conv2d9.weight", lambda s: s.update({"blocks.0.0.conv2d9.weight": torch.zeros(3)})),
    "wrong shape": ("conv2d5.bias", lambda s: s.update({"conv2d5.bias": torch.zeros(4)})),
    "wrong vector": ("linear0.weight_u", lambda s: s.update({"linear0.weight_u": torch.zeros(3)})),
    "too few axes": ("linear0.weight_orig", lambda s: s.update({"linear0.weight_orig": torch.zeros(3)})),
    "not finite": ("shared.weight", lambda s: s["shared.weight"].fill_(torch.nan)),
    "InfoGAN": ("info_mix_linear.weight", lambda s: s.update({"info_mix_linear.weight": torch.zeros(3, 3)})),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILS)
def test_a_spoilt_file_is_refused_by_the_tensors_name(name, big, tmp_path):
    tensor, spoil = SPOILS[name]
    state = {name: tensor.clone() for name, tensor in big[1].state_dict().items()}
    spoil(state)
    path = tmp_path / "model=G-best-weights-step=1.pth"
    torch.save({"state_dict": state}, path)
    message = refusal(path)
    assert tensor in message
    assert path.name in message


def test_heads_of_many_logits_and_cut_files_are_refused(big, tmp_path):
    path = tmp_path / "model=D-best-weights-step=1.pth"
    torch.save({"state_dict": Discriminator("big", 32, 6, CLASSES, "MH").state_dict()}, path)
    assert "'linear1.weight_orig' gives 6 logits" in refusal(path)
    path.write_bytes(path.read_bytes()[:5000])
    assert path.name in refusal(path)
    torch.save({"state_dict": {"linear0.weight": 3}, "step": torch.zeros(1)}, path)
    assert path.name in refusal(path)


@pytest.mark.parametrize("spectral", [False, True])
def test_the_deep_conv_variant_keeps_the_contract_of_an_architecture(spectral):
    passed = check_architecture(
        "dcgan", variant="deep_conv", resolution=16, latent=8, num_classes=3, generator_widths=(16, 8, 8),
        discriminator_widths=(8, 8, 16), spectral_discriminator=spectral,
    )  # fmt: skip
    assert len(passed) == len(CHECKS)
