"""Adversarial losses on raw logits [N, 1]: pure functions, each with its paper and equation.

A loss is a pair: what the discriminator minimises, given logits of reals and fakes, and what the generator minimises,
given logits of its fakes. Where these pair each fake with a real, the generator is given how far the fake leads.
Several logits for an image [N, K] count as so many more: every loss is the mean over all of them. What compares with a
mean logit takes that of its own process and micro-batch, as batch norm does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import relu, softplus

from zoo.errors import ConfigError, UnknownName, suggest


class Adversarial(NamedTuple):
    """The two sides of one adversarial loss; each returns a scalar, the mean over the batch."""

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]    # (real logits, fake logits) -> scalar
    generator: Callable[[Tensor], Tensor]                # (fake logits; fake minus real ones where paired) -> scalar
    paired: bool = False                                 # relativistic: a fake is judged against its batch's real
    border: float | None = 0.0                           # the logit between reals and fakes; None: there is none
    symmetric: bool = False                              # the generator minimises the discriminator's side with reals
    #                                                      and fakes exchanged; `generator` is its part for the fakes
    kept: float = 1.0                                    # share of its best fakes that a generator learns from in the
    #                                                      end, see `top_k`


def nonsaturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))) (Goodfellow et al., 2014, arXiv:1406.2661, eq. 1)."""
    return softplus(-real).mean() + softplus(fake).mean()


def nonsaturating_generator(fake: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))) (Goodfellow et al., 2014, section 3)."""
    return softplus(-fake).mean()


def saturating_generator(fake: Tensor) -> Tensor:
    """log(1 - sigmoid(D(G(z)))) (Goodfellow et al., 2014, eq. 1: minimax).

    Its gradient vanishes where the discriminator is sure, which the non-saturating loss is the remedy for.
    """
    return -softplus(fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) (Lim and Ye, 2017, arXiv:1705.02894)."""
    return relu(1 - real).mean() + relu(1 + fake).mean()


def critic_generator(fake: Tensor) -> Tensor:
    """-D(G(z)): the generator's side of the hinge and Wasserstein losses."""
    return -fake.mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """((D(x) - 1)^2 + D(G(z))^2) / 2 (Mao et al., 2017, arXiv:1611.04076, eq. 9)."""
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def least_squares_generator(fake: Tensor) -> Tensor:
    """(D(G(z)) - 1)^2 / 2 (Mao et al., 2017, eq. 9)."""
    return 0.5 * (fake - 1).square().mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """D(G(z)) - D(x) (Arjovsky et al., 2017, arXiv:1701.07875, eq. 3); needs a Lipschitz constraint on D."""
    return fake.mean() - real.mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x) - D(G(z))) (RpGAN; Jolicoeur-Martineau, 2018, arXiv:1807.00734, section 4.1).

    Each fake is paired with the real of its row; the generator minimises the same with the two exchanged, which is
    `nonsaturating_generator` of D(G(z)) - D(x).
    """
    return softplus(fake - real).mean()


def relativistic_average_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x) - E[D(G(z))]) - log(1 - sigmoid(D(G(z)) - E[D(x)])) (RaGAN; Jolicoeur-Martineau, 2018).

    Each image is judged against the mean of the other kind. The generator minimises it with the two exchanged.
    """
    return softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()


ADVERSARIAL: dict[str, Adversarial] = {
    "nonsaturating": Adversarial("nonsaturating", nonsaturating_discriminator, nonsaturating_generator),
    "minimax": Adversarial("minimax", nonsaturating_discriminator, saturating_generator),
    "hinge": Adversarial("hinge", hinge_discriminator, critic_generator),
    "least_squares": Adversarial("least_squares", least_squares_discriminator, least_squares_generator, border=0.5),
    "wasserstein": Adversarial("wasserstein", wasserstein_discriminator, critic_generator, border=None),
    "relativistic": Adversarial(
        "relativistic", relativistic_discriminator, nonsaturating_generator, paired=True, border=None
    ),
    "relativistic_average": Adversarial(
        "relativistic_average", relativistic_average_discriminator, nonsaturating_generator,
        paired=True, border=None, symmetric=True,
    ),
}  # fmt: skip


def adversarial(name: str) -> Adversarial:
    """Return the named loss; see `ADVERSARIAL` for the names."""
    if name not in ADVERSARIAL:
        names = sorted(ADVERSARIAL)
        raise UnknownName(f"No loss named {name!r}.{suggest(name, names)} Losses: {', '.join(names)}.")
    return ADVERSARIAL[name]


def top_k(loss: Adversarial, kept: float = 0.5) -> Adversarial:
    """Return the loss with a generator that learns from its best fakes alone (Sinha et al., 2020, arXiv:2002.06224).

    Those are the fakes of a batch with the highest logits; their share falls from 1 to `kept` as kept^progress. The
    paper's falls by 1 % an epoch, down to a half.

    Raises:
        ConfigError: the share is not above 0 and at most 1.
    """
    if not 0 < kept <= 1:
        raise ConfigError(f"kept={kept}: give the share of fakes that a generator learns from, above 0 and at most 1.")
    return loss._replace(name=f"{loss.name}:kept={kept:g}", kept=kept)


def best(logits: Tensor, share: float) -> Tensor:
    """Return the rows [max(1, share N), K] of logits [N, K] with the highest mean."""
    count = max(1, round(share * len(logits)))
    rows: Tensor = logits.detach().flatten(1).mean(1).topk(count).indices
    return logits[rows]
