"""Published DCGAN weights on the Hub."""

from __future__ import annotations

from zoo.plugin import Weights

PAPER = "Radford et al., 2016, arXiv:1511.06434"

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
        paper=PAPER,
    ),
    "cifar10": Weights(
        summary="CIFAR-10, 32x32, StudioGAN's DCGAN; generator only",
        license="MIT",
        repo="Mingguksky/PyTorch-StudioGAN",
        revision="7297a41ca14de2b5016e79d6deacf9d10f5144d4",
        files=(
            "studiogan_official_ckpt/CIFAR10_tailored/CIFAR10-DCGAN-train-2022_01_11_20_32_07/"
            "model=G-best-weights-step=26000.pth",
        ),
        format="studiogan_dcgan",
        expected={"variant": "deep_conv", "resolution": 32, "channels": 3},
        resolution=32,
        size=45_800_000,
        data="CIFAR-10",
        paper=PAPER,
    ),
}
