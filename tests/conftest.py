"""What all tests share: few threads, no network, a private home for caches, and tiny models that train in seconds."""

from __future__ import annotations

import os
import signal
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Hundreds of processes import zoo: where bytecode is forbidden, as in many containers, each would compile it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background has its children ignore Ctrl-C, and nohup a closed terminal.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

TINY = {
    "dcgan": {"resolution": 16, "latent": 8, "generator_width": 8, "discriminator_width": 8},
    "stylegan": {
        "resolution": 16,
        "latent": 16,
        "w": 16,
        "mapping_layers": 2,
        "channel_base": 128,
        "channel_max": 16,
    },
}


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_curves():
    """Have trainings of this process draw no curves, which cost as much as the steps of a tiny one; see `curves`."""
    from zoo.training import log

    drawing = log.curves
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "curves", lambda lines, path: None)
        yield drawing


@pytest.fixture(scope="module")
def curves(_no_curves):
    """From here on have the trainings of this file draw their curves, for a test that looks at them."""
    from zoo.training import log

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "curves", _no_curves)
        yield


@pytest.fixture
def tiny():
    """Return a function that makes a tiny model of an architecture, always with the same weights."""
    import torch

    import zoo

    def make(name: str, **config):
        torch.manual_seed(0)
        return zoo.create(name, **{**TINY[name], **config})

    return make
