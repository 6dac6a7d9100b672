"""StyleGAN2 and StyleGAN3 as a plugin of the zoo; light: the model module is named here, not imported."""

from zoo.plugin import Architecture, Weights, hookimpl
from zoo_stylegan.published import STYLEGAN, STYLEGAN3

EMOJI32 = Weights(
    summary="Noto emoji without smileys, 32x32",
    license="Apache-2.0",
    bundled="zoo_stylegan:weights/emoji32",
    resolution=32,
    data="emoji:-smileys-emotion",
)


@hookimpl
def zoo_architectures() -> list[Architecture]:
    return [
        Architecture(
            "stylegan",
            model="zoo_stylegan.model:StyleGAN",
            summary="StyleGAN2: a mapped style modulates each layer",
            paper="Karras et al., 2020, arXiv:1912.04958",
            weights={"emoji32": EMOJI32, **STYLEGAN},
            default="emoji32",
        ),
        Architecture(
            "stylegan3",
            model="zoo_stylegan.alias_free.model:StyleGAN3",
            summary="StyleGAN3: alias-free, details move with the surfaces that they are on",
            paper="Karras et al., 2021, arXiv:2106.12423",
            weights=STYLEGAN3,
        ),
    ]


@hookimpl
def zoo_formats() -> dict[str, str]:
    return {
        "nvlabs_stylegan2": "zoo_stylegan.nvlabs:FORMAT",
        "nvlabs_stylegan3": "zoo_stylegan.nvlabs_alias_free:FORMAT",
        "rosinality_stylegan2": "zoo_stylegan.rosinality:FORMAT",
        "tensorflow_stylegan2": "zoo_stylegan.tensorflow:FORMAT",
    }
