"""Which numbers are a bad sign, and why: one table. A sign is called by its name once it has lasted.

The limits were fixed by `benchmarks/challenges/watchdog.py --tuning`, on other seeds than those it is scored on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from zoo.watchdog.readings import Reading

COLLAPSE, OVERFITS, DIVERGENCE = "mode collapse", "discriminator overfits", "divergence"
OSCILLATES, POSTERIOR, COPIES = "oscillation", "posterior collapse", "memorisation"


@dataclass(frozen=True)
class Limit:
    """One number and where it becomes a bad sign."""

    value: float
    why: str


LIMITS: dict[str, Limit] = {
    "apart": Limit(0.15, "samples this near to each other, in the median, are a few images shown again and again"),
    "spread": Limit(0.15, "samples that differ so little, compared with reals, are variations of one image"),
    "fallen": Limit(0.4, "variety that a training has had and lost to this share does not come back by itself"),
    "offset": Limit(1.5, "in standard deviations of the reals: a mean this far off is outside of the data"),
    "logits": Limit(50.0, "logits of reals and samples spread so far that they give the generator no direction"),
    "missing": Limit(0.9, "share of the reals that have too few samples like them, of a training that had more"),
    "held": Limit(0.5, "of the way from the training images' logits to the samples': held out ones taken for fakes"),
    "copies": Limit(0.3, "share of samples that nearly are a training image"),
    "drift": Limit(0.45, "in standard deviations of the reals: so far the samples' mean moves from look to look"),
    "adrift": Limit(0.5, "in the same unit: so far from the reals' mean is that of samples that wander"),
    "kl": Limit(0.5, "nats that the latents of an image say in all: less than one bit"),
    "active": Limit(0.5, "latent dimensions that vary with the image: not even one, on average"),
}
SETTLING = 50_000       # images, and at most this share of a training, in which samples may be alike, and wander
SETTLING_SHARE = 0.1
WANDERS = 5             # looks over which samples move about
RISEN = 2.0             # times its limit: variety that was there, so that its loss counts at any time
HAD, LEFT = 0.15, 0.25  # coverage that a training has had at least, and what share of it is left where it was lost


@dataclass(frozen=True)
class Sign:
    """One way in which a training goes wrong."""

    name: str
    lasting: int                                      # looks in a row that must see it
    curable: bool                                     # other chance and a lower learning rate may mend it
    seen: Callable[[Sequence[Reading], float], str]   # (looks, the latest last; images of the whole training) -> the
    #                                                   evidence in words; empty: nothing


def _below(look: Reading, name: str) -> bool:
    return name in look and look[name] < LIMITS[name].value


def _above(look: Reading, name: str) -> bool:
    return name in look and look[name] > LIMITS[name].value


def _best(looks: Sequence[Reading], name: str) -> float:
    return max((look[name] for look in looks if name in look), default=0.0)


def _at(name: str) -> str:
    return f"(limit {LIMITS[name].value:g})"


# Samples that are alike.


def _alike(looks: Sequence[Reading]) -> bool:
    return _below(looks[-1], "apart") or _below(looks[-1], "spread")


def _collapse(looks: Sequence[Reading], whole: float) -> str:
    now = looks[-1]
    if _posterior(looks, whole):      # then a decoder has nothing to tell images apart by
        return ""
    if _alike(looks):
        if _settling(looks, whole):
            return ""
        spread, apart = now.get("spread", 0.0), now.get("apart", 0.0)
        return (
            f"samples differ {spread:.2g} times as much as reals {_at('spread')} and lie {apart:.2g} "
            f"times as far from their nearest other {_at('apart')}"
        )
    best = _best(looks, "vendi")
    if "vendi" in now and now["vendi"] < LIMITS["fallen"].value * best and best > LIMITS["fallen"].value:
        return f"variety fell to {now['vendi']:.2g} of that of real images, from {best:.2g} {_at('fallen')}"
    return _lost(looks)


def _lost(looks: Sequence[Reading]) -> str:
    """Variety may stay, and lie where hardly any image of the data is: samples that have left what they covered."""
    now = looks[-1]
    best = _best(looks, "coverage")
    if best < HAD or now.get("coverage", best) > LEFT * best or not _above(now, "missing"):
        return ""
    return (
        f"samples cover {now['coverage']:.2g} of the reals, from {best:.2g}, and {now['missing']:.2g} of these have "
        f"too few like them {_at('missing')}"
    )


def _settling(looks: Sequence[Reading], whole: float) -> bool:
    """Return whether samples are alike because the training has only begun: not where they have differed before."""
    return _early(looks, whole) and not any(look.get("apart", 0.0) > RISEN * LIMITS["apart"].value for look in looks)


def _early(looks: Sequence[Reading], whole: float) -> bool:
    return looks[-1]["images"] < min(SETTLING, SETTLING_SHARE * whole)


# Values that run away.


def _divergence(looks: Sequence[Reading], whole: float) -> str:
    now = looks[-1]
    if now.get("broken"):
        return f"{now['broken']:.0%} of the samples hold values that are not finite"
    if now.get("lost") or now.get("skipped"):
        return f"{now.get('lost', 0):g} terms are not finite, {now.get('skipped', 0):g} turns were left out"
    # Not the gap of their means: these cross again and again while a critic runs away.
    spread = now.get("logit_spread", 0.0)
    if spread > LIMITS["logits"].value:
        return f"the critic's logits of reals and samples have a standard deviation of {spread:.3g} {_at('logits')}"
    if _above(now, "offset"):
        return f"the samples' mean is {now['offset']:.2g} standard deviations off that of the reals {_at('offset')}"
    return ""


def _oscillation(looks: Sequence[Reading], whole: float) -> str:
    """Young networks move as much, but towards the data: what wanders stays off it."""
    moves = [look for look in looks if "drift" in look and "offset" in look][-WANDERS:]
    if len(moves) < WANDERS or _alike(looks) or _early(looks, whole):
        return ""
    drift, offset = (median(look[name] for look in moves) for name in ("drift", "offset"))
    if drift <= LIMITS["drift"].value or offset <= LIMITS["adrift"].value:
        return ""
    return (
        f"in {WANDERS} looks the samples' mean moved by {drift:.2g} standard deviations from each to the next "
        f"{_at('drift')}, and stayed {offset:.2g} off that of the reals {_at('adrift')}, in the median"
    )


# Critics that know their images by heart.


def _overfits(looks: Sequence[Reading], whole: float) -> str:
    """Karras et al., 2020a, arXiv:2006.06676, eq. 1: r_v, from images that the critic has never learnt from."""
    now = looks[-1]
    if not {"logit_real", "logit_fake", "logit_held"} <= set(now) or _alike(looks):
        return ""
    real, fake, held = now["logit_real"], now["logit_fake"], now["logit_held"]
    if real <= fake or real - held <= LIMITS["held"].value * (real - fake):
        return ""
    return (
        f"the critic's mean logit is {real:.3g} on training images, {held:.3g} on held out ones, {fake:.3g} on "
        f"samples: {(real - held) / (real - fake):.2g} of the way {_at('held')}"
    )


def _copies(looks: Sequence[Reading], whole: float) -> str:
    now = looks[-1]
    if _alike(looks) or not _above(now, "copies"):
        return ""
    return f"{now['copies']:.0%} of the samples nearly are a training image {_at('copies')}"


# Latents that say nothing.


def _posterior(looks: Sequence[Reading], whole: float) -> str:
    now = looks[-1]
    if not (_below(now, "kl") or _below(now, "active")):
        return ""
    return f"the latents tell {now.get('kl', 0):.2g} nats of an image, {now.get('active', 0):.2g} of them are active"


SIGNS: tuple[Sign, ...] = (
    Sign(DIVERGENCE, 2, curable=True, seen=_divergence),
    Sign(COLLAPSE, 3, curable=True, seen=_collapse),
    Sign(POSTERIOR, 3, curable=False, seen=_posterior),
    Sign(COPIES, 3, curable=False, seen=_copies),
    Sign(OVERFITS, 3, curable=False, seen=_overfits),
    Sign(OSCILLATES, 2, curable=True, seen=_oscillation),
)
