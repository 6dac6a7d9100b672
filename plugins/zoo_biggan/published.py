"""Published BigGAN, BigGAN-deep and ResNet GAN weights on the Hub."""

from __future__ import annotations

from zoo.plugin import Weights

STUDIOGAN = "Mingguksky/PyTorch-StudioGAN"
COMMIT = "7297a41ca14de2b5016e79d6deacf9d10f5144d4"
BIGGAN_PAPER = "Brock et al., 2019, arXiv:1809.11096"
CONTRAGAN_PAPER = "Kang and Park, 2020, arXiv:2006.12681"
SNGAN_PAPER = "Miyato et al., 2018, arXiv:1802.05957"
SAGAN_PAPER = "Zhang et al., 2019, arXiv:1805.08318"


def _studiogan(
    what: str,
    folder: str,
    file: str,
    pixels: int,
    classes: int,
    *,
    paper: str,
    megabytes: int | None = None,
    deep: bool = False,
) -> Weights:
    """Return a generator that StudioGAN's authors trained (Kang et al., 2022, arXiv:2206.09479)."""
    return Weights(
        summary=f"{what}, {pixels}x{pixels}, {classes} classes; generator only",
        license="MIT",
        repo=STUDIOGAN,
        revision=COMMIT,
        files=(f"studiogan_official_ckpt/{folder}/model={file}.pth",),
        format="studiogan",
        expected={"resolution": pixels, "channels": 3, "num_classes": classes, "deep": deep},
        resolution=pixels,
        size=None if megabytes is None else megabytes * 10**6,
        data=what.partition(",")[0],
        paper=paper,
    )


BIGGAN = {
    "imagenet128_deep": Weights(
        summary="ImageNet, BigGAN-deep, 128x128, 1000 classes; generator only",
        license="Apache-2.0",
        repo="osanseviero/BigGAN-deep-128",
        files=("config.json", "pytorch_model.bin"),
        format="huggingface_biggan",
        expected={"resolution": 128, "channels": 3, "num_classes": 1000, "deep": True},
        resolution=128,
        size=211_000_000,
        data="ImageNet",
        paper=BIGGAN_PAPER,
    ),
    "imagenet128": _studiogan(
        "ImageNet, BigGAN", "ImageNet_tailored/ImageNet-BigGAN-256-train-2022_02_13_09_14_45",
        "G_ema-best-weights-step=200000", 128, 1000, paper=BIGGAN_PAPER, megabytes=282,
    ),
    "imagenet128_contragan": _studiogan(
        "ImageNet, ContraGAN", "ImageNet_tailored/ImageNet-ContraGAN-256-train-2022_02_14_21_10_44",
        "G_ema-best-weights-step=176000", 128, 1000, paper=CONTRAGAN_PAPER, megabytes=282,
    ),
    "imagenet128_sngan": _studiogan(
        "ImageNet, SNGAN", "ImageNet_tailored/ImageNet-SNGAN-256-train-2022_03_06_03_53_44",
        "G-best-weights-step=472000", 128, 1000, paper=SNGAN_PAPER, megabytes=504,
    ),
    "imagenet128_sagan": _studiogan(
        "ImageNet, SAGAN", "ImageNet_tailored/ImageNet-SAGAN-256-train-2022_03_12_17_11_43",
        "G-best-weights-step=120000", 128, 1000, paper=SAGAN_PAPER, megabytes=505,
    ),
    "papa_imagenet64": _studiogan(
        "Papa-ImageNet, BigGAN", "Papa_ImageNet_tailored/Papa_ImageNet-BigGAN-train-2022_02_23_16_26_07",
        "G_ema-best-weights-step=48000", 64, 100, paper=BIGGAN_PAPER, megabytes=70,
    ),
    "cifar10": _studiogan(
        "CIFAR-10, BigGAN", "CIFAR10_tailored/CIFAR10-BigGAN-Mod-train-2022_01_13_11_18_11",
        "G_ema-best-weights-step=100000", 32, 10, paper=BIGGAN_PAPER, megabytes=38,
    ),
    "cifar10_deep": _studiogan(
        "CIFAR-10, BigGAN-deep", "CIFAR10_tailored/CIFAR10-BigGAN-Deep-train-2022_02_02_21_48_16",
        "G_ema-best-weights-step=96000", 32, 10, paper=BIGGAN_PAPER, megabytes=32, deep=True,
    ),
    "cifar10_sngan": _studiogan(
        "CIFAR-10, SNGAN", "CIFAR10_tailored/CIFAR10-SNGAN-train-2022_03_06_02_24_46",
        "G-best-weights-step=88000", 32, 10, paper=SNGAN_PAPER,
    ),
}  # fmt: skip
