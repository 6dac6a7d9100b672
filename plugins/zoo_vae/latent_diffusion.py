"""Reads the autoencoder of CompVis' latent-diffusion, alone or inside a whole Stable Diffusion checkpoint.

These files say nothing about their sizes, which the shapes tell, nor about the groups of the norms, 32 in all that was
published, nor about the scale of the latents. Where those differ they are given: norm_groups=4, scaling_factor=0.13025.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, checked
from zoo_vae.diffusers import scales_of
from zoo_vae.kl_config import KLConfig
from zoo_vae.kl_names import LATENT_DIFFUSION, moved, sizes
from zoo_vae.upstream import config_of, tensors_of

INSIDE = "first_stage_model."              # where a whole model keeps its autoencoder; the rest of it is left out
LOSS = re.compile(r"(first_stage_model\.)?loss\..*")      # of the training: discriminator, perceptual network
LEVEL = re.compile(r"(first_stage_model\.)?(encoder\.down|decoder\.up)\.\d+\.block\.\d+\.(norm|conv)1\.weight")


def recognise(source: Source) -> bool:
    """Return whether the file holds levels by latent-diffusion's names."""
    if len(source.files) != 1:
        return False
    tensors = tensors_of(next(iter(source.files.values())))
    return any(LEVEL.fullmatch(name) for name in tensors or ())


def read(source: Source) -> Converted:
    """Return the autoencoder; a diffusers config.json beside the file says the groups and scales that it cannot."""
    file, tree = source.only()
    tensors, prefix = _autoencoder(tensors_of(tree) or {})
    if not tensors:
        raise WeightsError(f"{file}: no dictionary of tensors: give a checkpoint of latent-diffusion.")
    spelling = replace(LATENT_DIFFUSION, prefix=prefix)
    probe = Part(file, tensors, "")
    settings = sizes(probe, spelling)
    config = config_of(source, "AutoencoderKL")
    if config is not None:
        settings |= scales_of(config, len(settings["widths"]))
    parts = moved(probe, spelling, checked(KLConfig, {**settings, "norm_groups": 1}, file))
    return Converted("vae", {"variant": "kl", **settings}, parts)


def _autoencoder(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return the autoencoder's tensors, without its loss, and what their names begin with."""
    prefix = INSIDE if any(name.startswith(INSIDE) for name in tensors) else ""
    return {n: t for n, t in tensors.items() if n.startswith(prefix) and not LOSS.fullmatch(n)}, prefix


FORMAT = Format(
    name="latent_diffusion",
    summary="latent-diffusion's autoencoders by their original names, alone or in a Stable Diffusion checkpoint",
    files=(r".*\.ckpt", r"(.*[-_.])?v?ae([-_.].*)?\.(safetensors|pt|pth)", r"kl\d+\.(pt|pth)"),
    recognise=recognise,
    read=read,
)
