"""BigGAN and BigGAN-deep as a plugin; the networks are in `zoo_biggan.model`, which this light module names."""

from __future__ import annotations

from zoo.plugin import Architecture, Weights, hookimpl
from zoo_biggan.published import BIGGAN


@hookimpl
def zoo_architectures() -> list[Architecture]:
    """Return the one architecture of this plugin."""
    emoji32 = Weights(
        summary="Noto emoji without smileys, 32x32, 7 classes",
        license="Apache-2.0",
        bundled="zoo_biggan:weights/emoji32",
        resolution=32,
        data="emoji:-smileys-emotion",
    )
    return [
        Architecture(
            "biggan",
            model="zoo_biggan.model:BigGAN",
            summary="class-conditional residual GAN with self-attention and a projection discriminator; also deep",
            paper="Brock et al., 2019, arXiv:1809.11096",
            weights={"emoji32": emoji32, **BIGGAN},
            default="emoji32",
        )
    ]


@hookimpl
def zoo_formats() -> dict[str, str]:
    """Return the readers of foreign checkpoints."""
    return {
        "ajbrock_biggan": "zoo_biggan.ajbrock:FORMAT",
        "huggingface_biggan": "zoo_biggan.huggingface:FORMAT",
        "ivclab_biggan": "zoo_biggan.ivclab:FORMAT",
        "studiogan": "zoo_biggan.studiogan:FORMAT",
    }
