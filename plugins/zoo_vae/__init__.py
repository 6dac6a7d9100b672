"""A variational autoencoder as a plugin; the networks are in `zoo_vae.model`, which this light module names."""

from __future__ import annotations

from zoo.plugin import Architecture, Weights, hookimpl
from zoo_vae.published import VAE


@hookimpl
def zoo_formats() -> dict[str, str]:
    """Return the readers of published autoencoders."""
    return {
        "diffusers_kl": "zoo_vae.diffusers:FORMAT",
        "latent_diffusion": "zoo_vae.latent_diffusion:FORMAT",
        "taesd": "zoo_vae.taesd:FORMAT",
    }


@hookimpl
def zoo_additions() -> dict[str, str]:
    """Return what judges an autoencoder's images besides their error."""
    return {"patch_critic": "zoo_vae.additions:PATCH_CRITIC", "perceptual": "zoo_vae.additions:PERCEPTUAL"}


@hookimpl
def zoo_architectures() -> list[Architecture]:
    """Return the one architecture of this plugin."""
    emoji32 = Weights(
        summary="Noto emoji without smileys, 32x32, 7 classes",
        license="Apache-2.0",
        bundled="zoo_vae:weights/emoji32",
        resolution=32,
        data="emoji:-smileys-emotion",
    )
    return [
        Architecture(
            "vae",
            model="zoo_vae.model:VAE",
            summary="convolutional residual variational autoencoder that weighs its own reconstruction error",
            paper="Kingma and Welling, 2014, arXiv:1312.6114",
            weights={"emoji32": emoji32, **VAE},
            default="emoji32",
            variants={"kl": "zoo_vae.kl:AutoencoderKL", "tiny": "zoo_vae.tiny:TinyAutoencoder"},
        )
    ]
