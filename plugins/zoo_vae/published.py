"""Published autoencoders of latent diffusion models on the Hub; good samples need a model of their latents besides."""

from __future__ import annotations

from zoo.plugin import Weights

LATENT_DIFFUSION = "Rombach et al., 2022, arXiv:2112.10752"
FILES = ("config.json", "diffusion_pytorch_model.safetensors")

VAE = {
    "sd_ft_mse": Weights(
        summary="Stable Diffusion's autoencoder, decoder fine-tuned on squared error; 4 latent channels",
        license="MIT",
        repo="stabilityai/sd-vae-ft-mse",
        files=FILES,
        format="diffusers_kl",
        expected={"variant": "kl", "channels": 3, "latent_channels": 4},
        resolution=256,
        size=335_000_000,
        data="LAION-Aesthetics and LAION-Humans",
        paper=LATENT_DIFFUSION,
    ),
    "sdxl": Weights(
        summary="Stable Diffusion XL's autoencoder; 4 latent channels",
        license="MIT",
        repo="stabilityai/sdxl-vae",
        files=FILES,
        format="diffusers_kl",
        expected={"variant": "kl", "channels": 3, "latent_channels": 4},
        resolution=1024,
        size=335_000_000,
        paper="Podell et al., 2023, arXiv:2307.01952",
    ),
    "taesd": Weights(
        summary="tiny autoencoder for Stable Diffusion's latents",
        license="MIT",
        repo="madebyollin/taesd",
        files=FILES,
        format="taesd",
        expected={"variant": "tiny", "channels": 3, "latent_channels": 4},
        resolution=256,
        size=9_800_000,
        paper="O. B. Bohan, 2023, github.com/madebyollin/taesd",
    ),
    "flux": Weights(
        summary="FLUX.1's autoencoder; 16 latent channels",
        license="Apache-2.0",
        repo="black-forest-labs/FLUX.1-schnell",
        files=tuple(f"vae/{file}" for file in FILES),
        format="diffusers_kl",
        expected={"variant": "kl", "channels": 3, "latent_channels": 16},
        resolution=1024,
        paper=LATENT_DIFFUSION,
    ),
}
