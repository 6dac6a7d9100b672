"""Published BigGAN, BigGAN-deep and ResNet GAN weights on the Hub."""

from __future__ import annotations

from zoo.plugin import Weights

STUDIOGAN = "Mingguksky/PyTorch-StudioGAN"
FOLDER = "studiogan_official_ckpt"
STUDIOGAN_PAPER = "Kang et al., 2022, arXiv:2206.09479"
SNGAN_PAPER = "Miyato et al., 2018, arXiv:1802.05957; run of Kang et al., 2022, arXiv:2206.09479"

BIGGAN = {
    "imagenet128_deep": Weights(
        summary="ImageNet, 128x128, 1000 classes, BigGAN-deep; generator only",
        license="Apache-2.0",
        repo="osanseviero/BigGAN-deep-128",
        files=("config.json", "pytorch_model.bin"),
        format="huggingface_biggan",
        expected={"resolution": 128, "channels": 3, "num_classes": 1000, "deep": True},
        resolution=128,
        size=211_000_000,
        data="ImageNet",
    ),
    "imagenet128_sngan": Weights(
        summary="ImageNet, 128x128, 1000 classes, SNGAN's ResNet; generator only",
        license="MIT",
        repo=STUDIOGAN,
        files=(
            f"{FOLDER}/ImageNet_tailored/ImageNet-SNGAN-256-train-2022_03_06_03_53_44/"
            "model=G-best-weights-step=472000.pth",
        ),
        format="studiogan",
        expected={"resolution": 128, "channels": 3, "num_classes": 1000},
        resolution=128,
        data="ImageNet",
        paper=SNGAN_PAPER,
    ),
    "papa_imagenet": Weights(
        summary="Papa-ImageNet, a part of ImageNet, BigGAN; averaged generator only",
        license="MIT",
        repo=STUDIOGAN,
        files=(
            f"{FOLDER}/Papa_ImageNet_tailored/Papa_ImageNet-BigGAN-train-2022_02_23_16_26_07/"
            "model=G_ema-best-weights-step=*.pth",
        ),
        format="studiogan",
        expected={"channels": 3, "deep": False},
        size=69_600_000,
        data="Papa-ImageNet",
        paper=STUDIOGAN_PAPER,
    ),
    "cifar10_sngan": Weights(
        summary="CIFAR-10, 32x32, 10 classes, SNGAN's ResNet; generator only",
        license="MIT",
        repo=STUDIOGAN,
        files=(
            f"{FOLDER}/CIFAR10_tailored/CIFAR10-SNGAN-train-2022_03_06_02_24_46/model=G-best-weights-step=88000.pth",
        ),
        format="studiogan",
        expected={"resolution": 32, "channels": 3, "num_classes": 10},
        resolution=32,
        data="CIFAR-10",
        paper=SNGAN_PAPER,
    ),
}
