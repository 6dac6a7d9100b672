"""Published DCGAN weights on the Hub."""

from __future__ import annotations

from zoo.plugin import Weights

DCGAN = {
    "mnist": Weights(
        summary="MNIST digits, 64x64, grey; generator only",
        license="not stated",
        repo="huggan/dcgan-mnist",
        files=("pytorch_model.bin",),
        format="pytorch_dcgan",
        expected={"resolution": 64, "channels": 1, "num_classes": 0},
        resolution=64,
        size=14_300_000,
        data="MNIST",
    ),
}
