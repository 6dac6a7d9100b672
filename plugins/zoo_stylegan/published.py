"""Published StyleGAN2 and StyleGAN3 weights on the Hub. The mirrors' own licence tags are missing or wrong."""

from __future__ import annotations

from zoo.plugin import Weights

NVIDIA = "NVIDIA Source Code License-NC"      # research or evaluation only
CONFIG_F_PAPER = "Karras et al., 2020, arXiv:1912.04958"
ADA_PAPER = "Karras et al., 2020, arXiv:2006.06676"
LHQ_PAPER = "Karras et al., 2021, arXiv:2106.12423; data: Skorokhodov et al., 2021, arXiv:2104.06954"


def _config_f(name: str, pixels: int, data: str, megabytes: int) -> Weights:
    """Return an official configuration F generator, in rosinality's form: no discriminator."""
    return Weights(
        summary=f"{data}, {pixels}x{pixels}, the paper's configuration F; generator only",
        license=NVIDIA,
        repo="ZeqiangLai/StyleGAN2",
        files=(f"stylegan2-{name}-config-f.pt",),
        format="rosinality_stylegan2",
        expected={"resolution": pixels, "channels": 3, "num_classes": 0},
        resolution=pixels,
        size=megabytes * 10**6,
        data=data,
        paper=CONFIG_F_PAPER,
    )


def _ada(name: str, pixels: int, data: str, classes: int = 0, megabytes: int | None = None) -> Weights:
    """Return an official StyleGAN2-ADA model with its discriminator."""
    kinds = f", {classes} classes" if classes else ""
    return Weights(
        summary=f"{data}, {pixels}x{pixels}{kinds}, StyleGAN2-ADA, with discriminator",
        license=NVIDIA,
        repo="ZeqiangLai/StyleGAN2-pkl",
        files=(f"ada/{name}.pkl",),
        format="nvlabs_stylegan2",
        expected={"resolution": pixels, "channels": 3, "num_classes": classes},
        resolution=pixels,
        size=None if megabytes is None else megabytes * 10**6,
        data=data,
        paper=ADA_PAPER,
    )


STYLEGAN = {
    "ffhq1024": _config_f("ffhq", 1024, "FFHQ faces", 133),
    "car512": _config_f("car", 512, "LSUN cars", 124),
    "cat256": _config_f("cat", 256, "LSUN cats", 121),
    "church256": _config_f("church", 256, "LSUN churches", 121),
    "horse256": _config_f("horse", 256, "LSUN horses", 121),
    "ffhq1024_ada": _ada("ffhq", 1024, "FFHQ faces"),
    "afhqcat512": _ada("afhqcat", 512, "AFHQ cats"),
    "afhqdog512": _ada("afhqdog", 512, "AFHQ dogs"),
    "afhqwild512": _ada("afhqwild", 512, "AFHQ wild animals"),
    "brecahad512": _ada("brecahad", 512, "BreCaHAD tissue"),
    "metfaces1024": _ada("metfaces", 1024, "MetFaces paintings"),
    "cifar10": _ada("cifar10", 32, "CIFAR-10", 10, megabytes=246),
}
STYLEGAN3 = {
    "lhq256": Weights(
        summary="LHQ landscapes, 256x256, configuration T, with discriminator",
        license=NVIDIA,
        repo="justinpinkney/stylegan3-t-lhq-256",
        files=("lhq-256-stylegan3-t-25Mimg.pkl",),
        format="nvlabs_stylegan3",
        expected={"resolution": 256, "channels": 3, "num_classes": 0},
        resolution=256,
        data="LHQ landscapes",
        paper=LHQ_PAPER,
    ),
}
