"""What to try against what goes wrong in a training: command-line options, the likeliest and cheapest first.

Each is told with its exact values, which depend on how the run was made; what the run has already, or what its
architecture cannot take, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zoo.documents import mapping
from zoo.training.run import LARGEST
from zoo.watchdog.signs import COLLAPSE, COPIES, DIVERGENCE, OSCILLATES, OVERFITS, POSTERIOR


@dataclass(frozen=True)
class Made:
    """How a run was made, as run.json says; what is missing or of a strange type counts as not said."""

    settings: Mapping[str, Any]

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        return mapping(self.settings.get("recipe"))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        return mapping(self.settings.get("config"))

    @cached_property
    def phases(self) -> tuple[Mapping[str, Any], ...]:
        phases = self.recipe.get("phases")
        return tuple(each for each in phases if isinstance(each, Mapping)) if isinstance(phases, list) else ()

    @property
    def held(self) -> int:
        """Images held out of the training."""
        return int(self.number(self.settings, "held_out", 0))

    @property
    def critic(self) -> bool:
        """Whether a critic takes part."""
        return any("discriminator" in _sequence(phase.get("trains")) for phase in self.phases)

    @property
    def loss(self) -> str:
        """The adversarial loss, if it is known."""
        named = [mapping(phase.get("settings")).get("loss") for phase in self.phases]
        return str(self.recipe.get("loss") or next((each for each in named if each), ""))

    def added(self, name: str) -> bool:
        """Return whether the recipe was given this addition."""
        return any(str(each).partition(":")[0] == name for each in _sequence(self.recipe.get("added")))

    def set(self, name: str, default: float) -> float:
        """Return a number of the recipe, the configuration or the run."""
        return self.number({**self.settings, **self.config, **self.recipe}, name, default)

    @staticmethod
    def number(of: Mapping[str, Any], name: str, default: float) -> float:
        value = of.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return default
        return float(value) if abs(value) < LARGEST else default      # NaN is not


@dataclass(frozen=True)
class Remedy:
    """One thing to try."""

    option: Callable[[Made], str]      # as on the command line; empty where it does not fit
    why: str


def tried(name: str, made: Made) -> list[dict[str, str]]:
    """Return what to try against a finding, in order, as {"option", "why"}."""
    told = [{"option": remedy.option(made), "why": remedy.why} for remedy in REMEDIES.get(name, ())]
    return [each for each in told if each["option"]]


# Options.


def _slower(factor: float) -> Callable[[Made], str]:
    return lambda made: f"--set lr={made.set('lr', 2e-4) * factor:.3g}"


def _add(text: str, unless: Sequence[str] = (), loss: Sequence[str] = ()) -> Callable[[Made], str]:
    """Return an option that adds something to a critic, unless there it is, or another in its place."""
    name = text.partition(":")[0]

    def option(made: Made) -> str:
        fits = made.critic and not any(made.added(each) for each in (name, *unless))
        return f"--add {text}" if fits and (not loss or made.loss in loss) else ""

    return option


def _penalty(made: Made) -> str:
    """R1, stronger where there is one. Of a new one the weight is Karras et al.'s (2020a): 0.0002 pixels / batch."""
    if not made.critic or made.loss == "wasserstein":
        return ""
    within = mapping(made.phases[0].get("settings")).get("gamma") if made.phases else None
    if within is not None and "gamma" in made.config:      # R1 and R2 within the critic's turn
        return f"--set gamma={4 * float(within):.3g}"
    turns = [phase for phase in made.phases if phase.get("name") == "r1"]
    if turns:
        before = Made.number(mapping(turns[0].get("settings")), "gamma", 1.0)
        return f"--add r1:gamma={4 * before:.3g},every={int(Made.number(turns[0], 'every', 1))}"
    if made.added("r1"):
        text = next(str(each) for each in made.recipe["added"] if str(each).startswith("r1"))
        gamma = next((part.partition("=")[2] for part in text.split(",") if "gamma=" in part), "1")
        return f"--add r1:gamma={4 * float(gamma):.3g}"
    return f"--add r1:gamma={max(0.1, 0.0002 * made.set('resolution', 64) ** 2 / made.set('batch', 32)):.3g}"


def _augment(made: Made) -> str:
    if not made.critic or made.recipe.get("augment"):
        return ""
    # Relativistic and Wasserstein logits have no zero between reals and fakes, which ADA goes by.
    steered = made.loss not in ("wasserstein", "relativistic", "relativistic_average", "")
    return "--set augment=ada" if steered else "--set augment=color,translation,cutout"


def _relativistic(made: Made) -> str:
    known = made.critic and made.loss not in ("", "relativistic", "relativistic_average", "wasserstein")
    return "--set loss=relativistic --add r1 --add r2" if known else ""


def _hinge(made: Made) -> str:
    return "--set loss=hinge" if made.critic and made.loss in ("nonsaturating", "minimax", "least_squares") else ""


def _clip(made: Made) -> str:
    return "" if made.recipe.get("clip_norm") else "--set clip_norm=1"


def _betas(made: Made) -> str:
    betas = _sequence(made.recipe.get("betas"))
    return "--set betas=0,0.99" if betas and isinstance(betas[0], int | float) and betas[0] > 0.5 else ""


def _anneal(made: Made) -> str:
    return "--set anneal=cosine" if made.recipe.get("anneal") == "constant" else ""


def _mirror(made: Made) -> str:
    return "" if made.recipe.get("mirror") else "--set mirror=true"


def _precision(made: Made) -> str:
    return "--precision bf16" if made.settings.get("precision") == "fp16" else ""


def _classes(made: Made) -> str:
    return _add("mode_seeking")(made) if made.set("num_classes", 0) else ""


def _vae(name: str, change: Callable[[float], float]) -> Callable[[Made], str]:
    """Return an option that changes a setting of an autoencoder that has it."""

    def option(made: Made) -> str:
        before = made.config.get(name)
        if not isinstance(before, int | float) or isinstance(before, bool) or change(before) == before:
            return ""
        return f"--set {name}={change(before):.3g}"

    return option


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


REMEDIES: Mapping[str, tuple[Remedy, ...]] = {
    COLLAPSE: (
        Remedy(_penalty, "a critic that is not so steep leaves room around each image"),
        Remedy(_slower(0.5), "both players follow each other more closely"),
        Remedy(_relativistic, "each sample is judged against a real image, so none can be dropped unnoticed"),
        Remedy(_add("pacgan:m=2"), "a critic that sees two images at once notices that they are alike"),
        Remedy(_classes, "latents far apart must give images far apart, within a class too"),
        Remedy(_add("bures"), "samples must vary as reals do in the critic's features"),
        Remedy(_augment, "where there are few images: the critic cannot learn them by heart"),
    ),
    OVERFITS: (
        Remedy(_augment, "the critic sees changed images, more so the more it overfits"),
        Remedy(_add("lecam"), "logits are held near each other's running means"),
        Remedy(_mirror, "twice as many images, where left and right may be exchanged"),
        Remedy(_add("cr", unless=("bcr",)), "the critic must judge an image as it does when it is shifted"),
        Remedy(_penalty, "a critic that is not so steep fits single images less"),
    ),
    COPIES: (
        Remedy(_augment, "the critic, and through it the generator, cannot learn single images by heart"),
        Remedy(_mirror, "twice as many images, where left and right may be exchanged"),
        Remedy(_add("lecam"), "logits are held near each other's running means"),
    ),
    DIVERGENCE: (
        Remedy(_slower(0.25), "steps that are too long are the usual cause"),
        Remedy(_add("gradient_penalty", unless=("spectral_norm", "weight_clipping"), loss=("wasserstein",)),
               "a Wasserstein critic has no bound of its own"),
        Remedy(_penalty, "keeps the critic from growing ever steeper"),
        Remedy(_clip, "no single step can throw the weights far"),
        Remedy(_hinge, "the critic learns only from what lies within its margin"),
        Remedy(_add("spectral_norm"), "bounds the critic's slope, layer by layer"),
        Remedy(_precision, "the range of float32 at the price of half precision"),
    ),
    OSCILLATES: (
        Remedy(_betas, "momentum carries the players past each other"),
        Remedy(_slower(0.5), "smaller circles"),
        Remedy(_penalty, "damps the circling around an equilibrium"),
        Remedy(_anneal, "the circles shrink towards the end"),
        Remedy(_add("unrolled"), "the generator sees how its critic would answer"),
    ),
    POSTERIOR: (
        Remedy(_vae("beta", lambda beta: min(beta, max(1.0, beta / 4))), "the divergence weighs less"),
        Remedy(_vae("free_bits", lambda bits: max(bits, 0.1)), "a little information of each dimension costs nothing"),
        Remedy(_vae("warmup", lambda share: max(share, 0.5)), "the decoder learns to use the latents first"),
        Remedy(_vae("cycles", lambda cycles: max(cycles, 4)), "the weight rises anew, several times"),
        Remedy(_vae("latent", lambda latent: max(2, latent // 2)), "fewer dimensions to pay for"),
    ),
}  # fmt: skip
