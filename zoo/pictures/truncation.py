"""The truncation trick at a glance: the same latents at several psi.

Brock et al., 2019, arXiv:1809.11096, section 3.1; in w for style-based generators, Karras et al., 2019,
arXiv:1812.04948, appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from zoo.errors import ConfigError
from zoo.pictures.lettering import lettered
from zoo.pictures.samples import Labels, Progress, count, images_of, latents

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.model import Model

PSIS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def truncation_sweep(
    model: Model,
    psis: Sequence[float] = PSIS,
    *,
    n: int = 8,
    seed: int = 0,
    labels: Labels = None,
    progress: Progress | None = None,
) -> Image:
    """Return one row for each psi, of the same latents, labels and further chance in each column.

    Args:
        psis: truncations, from above; 1 is none.
        n: columns.
        seed: of the latents: those of ``model.sample(n, seed=seed)``.
        labels: class indices [n] or rows [n, classes]; None: the classes in turn.
        progress: called with ("sweep", images done, images in all).

    Raises:
        ConfigError: no psi, or n is not 1 to 1000; as `zoo.Model.sample`.
        WeightsError: the model makes values that are not finite.
    """
    if not len(psis):
        raise ConfigError("A sweep without any psi shows nothing: give some, such as psis=(0.5, 1.0).")
    n = count("n", n)
    labels = model.each_class(n) if labels is None else labels
    rows = []
    for done, psi in enumerate(psis, 1):
        rows.append(images_of(model, latents(model, n, seed, psi), labels, seed=seed, psi=psi))
        if progress is not None:
            progress("sweep", done * n, len(psis) * n)
    return lettered(torch.cat(rows), n, rows=[f"psi {psi:g}" for psi in psis])
