"""DCGAN as a plugin of the zoo; light: the model module is named here, not imported."""

from zoo.plugin import Architecture, Weights, hookimpl
from zoo_dcgan.published import DCGAN

EMOJI32 = Weights(
    summary="Noto emoji without smileys, 32x32",
    license="Apache-2.0",
    bundled="zoo_dcgan:weights/emoji32",
    resolution=32,
    data="emoji:-smileys-emotion",
)


@hookimpl
def zoo_architectures() -> list[Architecture]:
    return [
        Architecture(
            "dcgan",
            model="zoo_dcgan.model:DCGAN",
            summary="Strided convolutions and batch norm; the plain baseline",
            paper="Radford et al., 2016, arXiv:1511.06434",
            weights={"emoji32": EMOJI32, **DCGAN},
            default="emoji32",
            variants={"deep_conv": "zoo_dcgan.deep_conv:DeepConvGAN"},
        )
    ]


@hookimpl
def zoo_formats() -> dict[str, str]:
    return {
        "pytorch_dcgan": "zoo_dcgan.pytorch_examples:FORMAT",
        "studiogan_dcgan": "zoo_dcgan.studiogan:FORMAT",
    }
