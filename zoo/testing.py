"""The conformance suite: what every architecture must do, for a plugin's own tests.

    from zoo.testing import check_architecture

    def test_acme():
        check_architecture("acme", resolution=16)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from zoo.loading import create
from zoo.model import Model, ModelConfig
from zoo.noise import Noise, key
from zoo.recipe import Batch, Phase

BATCH = 4


def check_architecture(name: str, **config: object) -> list[str]:
    """Run every check on a model of the named architecture and return the names of those that passed.

    Args:
        config: settings that make a small model, so that the checks take seconds.

    Raises:
        AssertionError: naming the check and what went wrong.
    """
    passed = []
    for check in CHECKS:
        torch.manual_seed(0)
        model = create(name, **config)
        try:
            check(model)
        except Exception as error:      # whatever goes wrong inside a model is that check's failure
            cause = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{name}: {check.__name__}: {cause}") from error
        passed.append(check.__name__)
    return passed


def samples_fit_config(model: Model) -> None:
    """Samples have the promised shape and are finite."""
    images = model.sample(BATCH, seed=0, clamp=False)
    size = model.config.resolution
    assert images.shape == (BATCH, model.config.channels, size, size), f"samples are {list(images.shape)}"
    assert bool(torch.isfinite(images).all()), "samples are not finite"


def seeds_repeat(model: Model) -> None:
    """The same seed gives the same images, another seed others, and given latents are used as they are."""
    first, again, other = model.sample(2, seed=1), model.sample(2, seed=1), model.sample(2, seed=2)
    assert torch.equal(first, again), "the same seed gave other images"
    assert not torch.equal(first, other), "another seed gave the same images"
    z = model.latent(2, Noise(3))
    assert torch.equal(model.sample(z=z, seed=0), model.sample(z=z, seed=0)), "the same z gave other images"
    other_z = model.sample(z=model.latent(2, Noise(4)), seed=0)
    assert not torch.equal(model.sample(z=z, seed=0), other_z), "another z gave the same images"


def config_round_trips(model: Model) -> None:
    """The configuration survives JSON."""
    config: ModelConfig = type(model.config).model_validate_json(model.config.model_dump_json())
    assert config == model.config, "config.json reads back differently"


def saves_and_loads(model: Model) -> None:
    """A saved model loads strictly into equal tensors, and makes the same images bit for bit."""
    from zoo.weights import load, save

    kept = model.state_dict()
    for name, _ in model.named_buffers():
        assert name in kept, f"buffer {name} is not persistent, so it is neither saved nor loaded"
    with TemporaryDirectory() as folder:
        loaded = load(save(model.follow(model.recipe().averaged), Path(folder) / "model"))
        stored = loaded.state_dict()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, stored[name]), f"{name} changed"
        assert torch.equal(model.sample(2, seed=0), loaded.sample(2, seed=0)), "samples changed"


def phases_move_what_they_train(model: Model) -> None:
    """Each phase gives finite terms whose gradients reach the networks it trains; computing them changes no weight."""
    model.train()
    for phase in model.recipe().phases:
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        gradients = _gradients(model, phase)
        for name, gradient in gradients.items():
            assert bool(torch.isfinite(gradient).all()), f"phase {phase.name}: the gradient of {name} is not finite"
        for trained in phase.trains:
            reached = [g for n, g in gradients.items() if n.startswith(f"{trained}.") and bool(g.abs().sum() > 0)]
            assert reached, f"phase {phase.name} trains {trained} but no gradient reaches it"
        for name, parameter in model.named_parameters():
            assert torch.equal(before[name], parameter), f"phase {phase.name}: computing the loss changed {name}"


def losses_use_keyed_noise(model: Model) -> None:
    """With the same batch and the same keyed noise a loss repeats itself: it uses no other chance."""
    model.eval()      # without batch statistics, which training updates, and dropout, whose chance the trainer keys
    for phase in model.recipe().phases:
        first, second = (_minimised(model, phase) for _ in range(2))
        for name, value in first.items():
            assert torch.equal(value, second[name]), f"phase {phase.name}: {name} differs from one call to the next"


def trains_on(model: Model) -> None:
    """A few real steps of the whole recipe run, change every trained network and leave it finite."""
    from zoo.training import train

    images = _MemoryImages(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    recipe = replace(model.recipe(), batch=BATCH)
    with TemporaryDirectory() as folder:
        train(model, images.folder(Path(folder) / "data"), kimg=0.012, out=Path(folder) / "run", recipe=recipe)
    moved = {name.split(".")[0] for name, value in model.named_parameters() if name in before
             and not torch.equal(value, before[name])}  # fmt: skip
    wanted = {network for phase in recipe.phases for network in phase.trains}
    assert wanted <= moved, f"training did not move {', '.join(sorted(wanted - moved))}"
    assert all(bool(torch.isfinite(value).all()) for value in model.parameters()), "training left values not finite"


CHECKS: tuple[Callable[[Model], None], ...] = (
    samples_fit_config,
    seeds_repeat,
    config_round_trips,
    saves_and_loads,
    phases_move_what_they_train,
    losses_use_keyed_noise,
    trains_on,
)


class _MemoryImages:
    """A few random images that a model's configuration takes, written as a folder of PNG."""

    def __init__(self, model: Model, count: int = 8):
        self.count, self.config = count, model.config

    def folder(self, path: Path) -> Path:
        from zoo.images import save_grid

        noise = Noise(key("images"))
        size = self.config.resolution
        for index in range(self.count):
            part = path / f"class{index % max(1, self.config.num_classes)}" if self.config.num_classes else path
            part.mkdir(parents=True, exist_ok=True)
            save_grid(noise.uniform(1, self.config.channels, size, size) * 2 - 1, part / f"{index}.png")
        return path


def _batch(model: Model) -> Batch:
    config = model.config
    noise = Noise(key("conformance"))
    images = noise.uniform(BATCH, config.channels, config.resolution, config.resolution) * 2 - 1
    labels = None
    if config.num_classes:
        labels = model.onehot(torch.arange(BATCH) % config.num_classes, BATCH)
    return Batch(images, labels, noise, progress=0.5)


def _gradients(model: Model, phase: Phase) -> dict[str, Tensor]:
    model.requires_grad_(False)
    for name in phase.trains:
        model.get_submodule(name).requires_grad_(True)
    model.zero_grad(set_to_none=True)
    terms = phase.loss(model, _batch(model))
    for name, term in terms.minimise.items():
        assert term.ndim == 0, f"phase {phase.name}: term {name} has shape {list(term.shape)}, not one number"
        assert bool(torch.isfinite(term)), f"phase {phase.name}: term {name} is {float(term.detach())}"
    torch.autograd.backward(terms.total())
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def _minimised(model: Model, phase: Phase) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in phase.loss(model, _batch(model)).minimise.items()}
