"""What autoencoders whose latents are small images share: checks of shapes, and work in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.errors import ConfigError

PIXELS = 2**20      # of images that pass a network at once: at 1024x1024 one image takes a gigabyte


def checked_images(images: Tensor, channels: int, factor: int) -> Tensor:
    """Return images [N, channels, H, W] unchanged.

    Raises:
        ConfigError: another shape, or sides that are no multiples of `factor`.
    """
    shape = _shape(images)
    fits = len(shape) == 4 and shape[1] == channels and all(n and n % factor == 0 for n in shape[2:])
    if not fits:
        given = f"Images of shape {shape}" if shape else "What is no floating-point tensor of images"
        raise ConfigError(f"{given}: this VAE encodes [N, {channels}, H, W] with H and W multiples of {factor}.")
    return images


def checked_latents(latents: Tensor, channels: int) -> Tensor:
    """Return latents [N, channels, h, w] unchanged.

    Raises:
        ConfigError: another shape.
    """
    shape = _shape(latents)
    if len(shape) != 4 or shape[1] != channels or not all(shape[2:]):
        given = f"Latents of shape {shape}" if shape else "What is no floating-point tensor of latents"
        raise ConfigError(f"{given}: this VAE takes [N, {channels}, h, w].")
    return latents


def in_parts(network: Callable[[Tensor], Tensor], x: Tensor, pixels: int) -> Tensor:
    """Return the network's output for x [N, ...], computed for as many rows at once as `PIXELS` allows.

    Args:
        pixels: of one image, whether it goes in or comes out.
    """
    return torch.cat([network(part) for part in torch.split(x, max(1, PIXELS // pixels))])


def _shape(tensor: Tensor) -> list[int]:
    """Return the shape of a floating-point tensor with rows; [] for anything else."""
    return list(tensor.shape) if isinstance(tensor, Tensor) and tensor.is_floating_point() and len(tensor) else []
