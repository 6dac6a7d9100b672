"""Compiled turns: the weights of uncompiled ones, and phases that differentiate twice are found out by themselves."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.adversarial import r1_loss
from zoo.model import Model
from zoo.noise import Noise, key
from zoo.recipe import Batch, Phase
from zoo.training.compiling import Compiled
from zoo.training.optimisers import Player, players

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")


def played(model: Model, recipe: Any, compiled: Compiled, steps: int) -> dict[str, Tensor]:
    """Train a model as the loop does and return its parameters."""
    model.train()
    model.to(memory_format=torch.channels_last)
    held = players(model, recipe, scale_gradients=False)
    for step in range(steps):
        for index, phase in enumerate(recipe.phases):
            player = held[phase.trains]
            model.requires_grad_(False)
            player.thaw()
            try:
                backward(model, phase, player, compiled, key(step, index))
            except RuntimeError as error:
                if not compiled.unable(phase, error):
                    raise
                player.skip()
                backward(model, phase, player, compiled, key(step, index))
            player.apply(1e-3, (0.0, 0.99), None, player.norms())
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def backward(model: Model, phase: Phase, player: Player, compiled: Compiled, seed: int) -> None:
    noise = Noise(seed)
    images = (noise.uniform(8, 3, 16, 16) * 2 - 1).contiguous(memory_format=torch.channels_last)
    with compiled.turn(phase):
        torch.autograd.backward(phase.loss(model, Batch(images, None, noise)).total())


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.slow      # minutes of compiling on a busy machine
@pytest.mark.parametrize("name", ["dcgan", "stylegan"])
def test_compiled_turns_give_the_weights_of_plain_ones(tiny, name, caplog):
    recipe = replace(tiny(name).recipe(), eps=1e-4)
    if name == "dcgan":
        recipe = replace(recipe, phases=(*recipe.phases, Phase("r1", ("discriminator",), r1_loss(1.0), 2)))
    before = list(tiny(name).state_dict())
    plain, model = tiny(name), tiny(name)
    with caplog.at_level(logging.WARNING, "zoo"):
        first = played(plain, recipe, Compiled(plain, enabled=False), 3)
        second = played(model, recipe, Compiled(model, enabled=True), 3)
    assert furthest(first, second) < 1e-4
    twice = {"dcgan": ["r1"], "stylegan": ["path_length", "r1"]}[name]
    assert [record.args[0] for record in caplog.records if record.name == "zoo"] == twice
    assert list(model.state_dict()) == before
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.allclose(plain.sample(2, seed=0), model.sample(2, seed=0), atol=1e-3)


def test_nothing_is_touched_where_it_is_off(tiny):
    model = tiny("dcgan")
    compiled = Compiled(model, enabled=False)
    (phase, *_) = model.recipe().phases
    with compiled.turn(phase):
        assert not any("forward" in vars(module) for module in model.modules())
    assert not compiled.unable(phase, RuntimeError("double backward"))


def test_another_error_is_not_taken_for_a_double_backward(tiny):
    model = tiny("dcgan")
    compiled = Compiled(model, enabled=True)
    (phase, *_) = model.recipe().phases
    assert not compiled.unable(phase, RuntimeError("out of memory"))
    twice = RuntimeError("aot_autograd does not currently support double backward")
    assert compiled.unable(phase, twice)
    assert not compiled.unable(phase, twice)      # of something that the model itself has compiled
    with compiled.turn(phase):
        assert not any("forward" in vars(module) for module in model.modules())
