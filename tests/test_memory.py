"""`batch="auto"`: a step is split into as few parts as memory allows, and the training is the same."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode

import zoo
from zoo.memory import free, installed
from zoo.training.memory import finer, fitting, ran_out

# Each image takes 4 MB, and the process may have 1 GB more than it has now, of which it should use 80 %.
SCRIPT = """
import resource
import torch
from zoo.training.memory import fitting

with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), size + (1 << 30)))

def rehearse(count):
    torch.ones(1024 // count, 4 << 20, dtype=torch.uint8)

for states in (0, 500 << 20, 2 << 30):
    print(fitting(rehearse, 1024, states, torch.device("cpu")), end=" ")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux accounts for it")
def test_as_few_parts_as_fit_beside_the_optimisers():
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["8", "16", "1024"]      # 819 MB: 204 images; 319 MB: 79; nothing: one at a time


STATES = (1 << 20) + 7      # bytes that no other test's tensor has


def test_a_gpu_is_tried_beside_one_block_of_the_optimisers_size():
    held = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.empty:
                held.append(sum(type(each) is torch.Tensor and each.is_meta and each.numel() == STATES
                                for each in gc.get_objects()))
            return func(*args, **(kwargs or {}))

    def rehearse(count: int) -> None:
        if count < 4:
            raise torch.OutOfMemoryError

    with Watch():      # nothing is computed on "meta", but tensors live and die there as anywhere
        assert fitting(rehearse, 8, STATES, torch.device("meta")) == 4
    assert held == [0, 0, 0]


def test_enough_memory_takes_the_whole_batch_at_once(tiny, tmp_path):
    run = zoo.train(tiny("dcgan"), "emoji", kimg=0.032, settings={"batch": 16}, batch="auto", out=tmp_path / "run")
    assert (run.settings["accumulate"], run.settings["recipe"]["batch"]) == (1, 16)


def test_parts_are_equal_and_at_least_twice_as_many():
    assert [finer(12, count) for count in (1, 2, 3, 4, 6)] == [2, 4, 6, 12, 12]
    assert finer(5, 1) == 5
    with pytest.raises(zoo.ZooError, match="one image at a time"):
        finer(5, 5)


def test_only_a_want_of_memory_is_taken_for_one():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert ran_out(refused.value)
    assert ran_out(MemoryError())
    assert not ran_out(RuntimeError("shapes do not match"))
    assert not ran_out(ValueError("out of memory"))


def test_what_is_free_is_part_of_what_is_installed():
    assert 0 < free() <= installed()


def test_a_batch_is_a_number_or_auto(tiny, tmp_path, capsys):
    from zoo.cli import main

    given = ["train", "dcgan", "emoji", "--out", str(tmp_path / "run"), "--kimg", "0.064"]
    for wrong in ("0", "-4", "many", "1.5"):
        assert main([*given, f"--batch={wrong}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(zoo.ZooError, match="accumulate=2"):
        zoo.train(tiny("dcgan"), "emoji", kimg=0.064, batch="auto", accumulate=2, out=tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
