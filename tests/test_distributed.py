"""Several real processes on one machine: the weights of one, the same everywhere, whatever a loss reaches or breaks."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from conftest import TINY
from PIL import Image
from processes import together
from torch import Tensor, distributed, nn

import zoo
from zoo.data import batches, open_images
from zoo.noise import Noise
from zoo.recipe import Batch
from zoo.training import engine as meeting
from zoo.training.gradients import Gradients
from zoo.training.optimisers import players

# A larger eps keeps Adam from blowing up rounding noise where a gradient is almost zero.
SHORT: dict[str, Any] = {"kimg": 0.08, "batch": 16, "settings": {"eps": 1e-4}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """32 images of noise in four classes."""
    path = tmp_path_factory.mktemp("pictures")
    pixels = torch.randint(256, (32, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for i, image in enumerate(pixels.numpy()):
        (path / f"class{i % 4}").mkdir(exist_ok=True)
        Image.fromarray(image).save(path / f"class{i % 4}" / f"{i}.png")
    return path


def trained(name: str, config: dict[str, Any], data: Path, out: Path, options: dict[str, Any]) -> dict[str, Tensor]:
    """Train a tiny model and return its tensors, in whichever process this is."""
    torch.manual_seed(0)
    model = zoo.create(name, **{**TINY[name], **config})
    zoo.train(model, data, out=out, **{**SHORT, **options})
    return {name: value.clone() for name, value in model.state_dict().items()}


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def agree(everyone: list[dict[str, Tensor]]) -> bool:
    return all(torch.equal(mine[name], value) for mine in everyone for name, value in everyone[0].items())


# Weights.


@pytest.mark.parametrize(
    ("processes", "config", "options"),
    [
        # StyleGAN's first step has R1 and path length too.
        (2, {"num_classes": 4}, {"accumulate": 2, "settings": {"eps": 1e-4, "augment": ("color", "cutout")}}),
        pytest.param(2, {}, {}, marks=pytest.mark.slow),
        pytest.param(4, {}, {"settings": {"eps": 1e-4, "clip_norm": 0.1}}, marks=pytest.mark.slow),
        pytest.param(2, {"num_classes": 4}, {"settings": {"eps": 1e-4, "mirror": True}}, marks=pytest.mark.slow),
    ],
)
def test_several_processes_give_the_weights_of_one(pictures, tmp_path, processes, config, options):
    alone = trained("stylegan", config, pictures, tmp_path / "one", {**options, "accumulate": 1})
    everyone = together(trained, processes, "stylegan", config, pictures, tmp_path / "several", options)
    assert agree(everyone)
    assert furthest(alone, everyone[0]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_keeps_processes_together(pictures, tmp_path, precision):
    everyone = together(trained, 2, "stylegan", {}, pictures, tmp_path / "two", {"precision": precision})
    assert agree(everyone)
    assert all(bool(torch.isfinite(value).all()) for value in everyone[0].values())


def test_statistics_of_batch_norm_are_averaged(pictures, tmp_path):
    everyone = together(trained, 2, "dcgan", {}, pictures, tmp_path / "run", {"kimg": 0.032})
    assert agree(everyone)
    names = [name for name in everyone[0] if name.endswith("running_mean")]
    assert any(bool(everyone[0][name].abs().max() > 1e-3) for name in names)


# Gradients.


class Branches(nn.Module):
    """Three linear maps of which each process may use any."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleList(nn.Linear(5, 3) for _ in range(3))


def reached(bucket: int | None, fail: int | None) -> tuple[list[Tensor | None], Tensor, list[Tensor | None]]:
    """Average, in two turns, gradients of which each process reaches others; one process may fail in the backward."""
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    model = Branches()
    gradients = Gradients(list(model.parameters()), bucket=bucket)

    def backward(parts: list[int]) -> None:
        x = torch.full((2, 5), float(rank + 1))
        loss = torch.stack([model.parts[part](x).sum() for part in parts]).sum()
        if rank == fail:      # the last map's gradient comes first: its bucket is already on its way
            loss.register_hook(lambda gradient: None)
            model.parts[0].weight.register_hook(out_of_memory)
        with gradients.collected():
            loss.backward()

    flags = torch.zeros(2)
    try:
        backward([0, 2] if rank == 0 else [0])
    except MemoryError:
        flags[0] = 1
    sums = gradients.average(flags)
    first = [value.grad if value.grad is None else value.grad.clone() for value in model.parameters()]
    model.zero_grad(set_to_none=True)
    fail = None
    model.parts[0].weight._backward_hooks = None
    backward([1])
    gradients.average(torch.zeros(2))
    return first, sums, [value.grad if value.grad is None else value.grad.clone() for value in model.parameters()]


def out_of_memory(gradient: Tensor) -> Tensor:
    raise MemoryError


@pytest.mark.parametrize("bucket", [None, 1, 100])
def test_parts_that_only_some_processes_reach(bucket):
    found = together(reached, 2, bucket, None)
    for first, sums, second in found:
        assert [value is not None for value in first] == [True, True, False, False, True, True]
        assert sums.tolist() == [0, 0]
        assert torch.equal(first[0], torch.full((3, 5), 2 * 1.5))      # mean of 2 x 1 and 2 x 2
        assert torch.equal(first[1], torch.full((3,), 2.0))
        assert torch.equal(first[4], torch.full((3, 5), 1.0))          # mean of 2 x 1 and nothing
        assert [value is not None for value in second] == [False, False, True, True, False, False]
        assert torch.equal(second[2], torch.full((3, 5), 3.0))


@pytest.mark.parametrize("bucket", [None, 1])
@pytest.mark.parametrize("fail", [0, 1])
def test_a_process_that_fails_within_its_backward_leaves_nobody_waiting(bucket, fail):
    found = together(reached, 2, bucket, fail)
    for first, sums, second in found:
        assert sums.tolist() == [1, 0]
        assert all(torch.equal(mine, value) for mine, value in zip(first, found[0][0]) if value is not None)
        assert torch.equal(second[2], torch.full((3, 5), 3.0))      # the next turn is as if nothing had been


def phases(name: str, bucket: int | None, dtype: torch.dtype) -> dict[str, list[Tensor | None]]:
    """Return the averaged gradients of every phase of a model's recipe, R1's and path length's among them."""
    distributed.init_process_group("gloo")
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(0)
    model = zoo.create(name, **TINY[name])
    found: dict[str, list[Tensor | None]] = {}
    for phase in model.recipe().phases:
        model.requires_grad_(False)
        for network in phase.trains:
            model.get_submodule(network).requires_grad_(True)
        parameters = [value for value in model.parameters() if value.requires_grad]
        gradients = Gradients(parameters, bucket=bucket)
        noise = Noise(1, share=rank, shares=processes)
        batch = Batch(noise.uniform(8 // processes, 3, 16, 16) * 2 - 1, None, noise)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = phase.loss(model, batch).total()
        with gradients.collected():
            torch.autograd.backward(loss)
        gradients.average(torch.zeros(1))
        found[phase.name] = [None if value.grad is None else value.grad.clone() for value in parameters]
        model.zero_grad(set_to_none=True)
    return found


def test_gradients_that_travel_during_the_backward_are_those_that_travel_after_it():
    after, during = (together(phases, 2, "stylegan", bucket, torch.float32)[1] for bucket in (None, 2000))
    assert {"r1", "path_length"} <= after.keys() == during.keys()
    for name, values in after.items():
        assert any(value is not None and bool(value.abs().max() > 0) for value in values)
        for one, other in zip(values, during[name], strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_two_processes_have_the_gradients_of_one_in_reduced_precision_too(dtype):
    """The batch's parts are summed in another order: that may change no more than the precision itself does.

    How much that is depends on the processor: of path length's second derivative in bfloat16, a third with tile
    instructions and less than a fifth without. It points the same way all the same.
    """
    exact, alone = (together(phases, 1, "stylegan", None, each)[0] for each in (torch.float32, dtype))
    first, second = together(phases, 2, "stylegan", None, dtype)
    for name in exact:
        true, whole, mine, other = (
            torch.cat([part.flatten() for part in each[name] if part is not None])
            for each in (exact, alone, first, second)
        )
        assert torch.equal(mine, other)
        assert float((whole - mine).norm()) < 1.5 * float((whole - true).norm()), name
        assert float(torch.cosine_similarity(whole, true, dim=0)) > 0.9, name


def hung(over: Path) -> str:
    """Say what a process says when another one does not come, which is there until it has been missed."""
    meeting.TIMEOUT = timedelta(seconds=2)
    accelerator, _ = meeting.engine("no")
    if accelerator.is_main_process:
        with pytest.raises(zoo.ZooError) as caught, meeting.together():
            accelerator.reduce(torch.ones(1))
        over.touch()
        return str(caught.value)
    while not over.exists():
        time.sleep(0.05)
    return ""


def test_a_process_that_hangs_does_not_keep_the_others(tmp_path):
    assert together(hung, 2, tmp_path / "over")[0] == (
        "Another process of this run did not answer for 0:00:02, so this one stops too: go on with --resume."
    )


# Turns that are left out.


def player(scale: bool):
    torch.manual_seed(0)
    model = zoo.create("dcgan", **TINY["dcgan"])
    return next(iter(players(model, model.recipe(), scale_gradients=scale).values()))


def push(one, value: float) -> None:
    for parameter in one.parameters.values():
        parameter.grad = torch.full_like(parameter, value)


def test_a_loss_scale_is_lowered_by_an_overflow_alone():
    one = player(scale=True)
    begun = one.scale
    one.average(Accelerator(), torch.zeros(1))
    one.skip()      # memory ran out before anything was scaled
    assert one.scale == begun
    push(one, 1.0)
    one.norms()
    one.skip()      # finite, yet unwanted
    assert one.scale == begun
    push(one, float("inf"))
    assert not torch.isfinite(one.norms())
    one.skip()
    assert one.scale == begun / 2
    assert all(parameter.grad is None for parameter in one.parameters.values())


def test_what_is_skipped_moves_nothing_and_what_is_applied_does():
    one = player(scale=False)
    before = {name: value.detach().clone() for name, value in one.parameters.items()}
    push(one, float("nan"))
    one.norms()
    name, parameter = list(one.parameters.items())[2]
    for value in list(one.parameters.values())[:2]:
        value.grad.zero_()
    assert one.first_bad() == name
    one.skip()
    assert all(torch.equal(before[name], value) for name, value in one.parameters.items())
    push(one, 1.0)
    one.apply(1e-3, (0.0, 0.99), None, one.norms())
    assert not torch.equal(before[name], parameter)
    assert one.first_bad() is None


# Images.


@pytest.fixture(scope="module")
def dozen(tmp_path_factory) -> Path:
    """Twelve images that can be told apart by their brightness."""
    path = tmp_path_factory.mktemp("dozen")
    for i in range(12):
        Image.new("L", (8, 8), i * 20).save(path / f"{i:02}.png")
    return path


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch", [6, 18])
def test_every_image_is_seen_equally_often(dozen, processes, batch):
    """Over whole epochs, also where a batch holds the end of one and the beginning of the next."""
    images = open_images(dozen, resolution=8, channels=1)
    steps = 36 // batch      # three epochs
    shares = [batches(images, batch=batch, seed=3, share=share, shares=processes) for share in range(processes)]
    seen: Counter[int] = Counter()
    for _ in range(steps):
        parts = [next(share)[0] for share in shares]
        assert {len(part) for part in parts} == {batch // processes}
        seen.update(int(pixels[0, 0, 0]) for part in parts for pixels in part)
    assert seen == {i * 20: 3 for i in range(12)}


def refused(data: Path, out: Path, batch: int) -> str:
    with pytest.raises(zoo.ZooError) as caught:
        zoo.train(zoo.create("dcgan", **{**TINY["dcgan"], "channels": 1}), data, kimg=1, out=out, batch=batch)
    return str(caught.value)


def test_work_that_cannot_be_shared_is_refused(dozen, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    (few / "one.png").write_bytes((dozen / "01.png").read_bytes())
    assert together(refused, 2, few, tmp_path / "run", 8) == 2 * [
        "1 images for 2 processes: use at most 1, or more images."
    ]
    assert "multiple of 2" in together(refused, 2, dozen, tmp_path / "run", 9)[1]
    assert not (tmp_path / "run").exists()


def resumed_apart(data: Path, folders: Path) -> str:
    """Resume in another folder in each process, as on machines without a disk that they share."""
    out = folders / os.environ["RANK"]
    with pytest.raises(zoo.ZooError) as caught:
        trained("dcgan", {}, data, out, {"resume": True, "kimg": 0.096})
    return str(caught.value)


def test_processes_that_find_different_checkpoints_are_refused(pictures, tmp_path):
    trained("dcgan", {}, pictures, tmp_path / "0", {})
    (tmp_path / "1").mkdir()
    for said in together(resumed_apart, 2, pictures, tmp_path):
        assert "different checkpoints" in said
        assert "(step 5, none)" in said


def apart(data: Path, fewer: Path, out: Path) -> str:
    """Train on other data in each process, as on machines whose copies differ."""
    with pytest.raises(zoo.ZooError) as caught:
        trained("dcgan", {}, (data, fewer)[int(os.environ["RANK"])], out, {})
    return str(caught.value)


def test_processes_that_see_different_data_are_refused(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "fewer")
    (tmp_path / "fewer" / "class0" / "0.png").write_bytes(b"no image")
    for said in together(apart, 2, pictures, tmp_path / "fewer", tmp_path / "run"):
        assert "(32, 31 images that can be read)" in said
    assert not (tmp_path / "run" / "run.json").exists()
