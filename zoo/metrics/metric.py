"""What a metric is, and what every metric asks of its two sets of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import EvaluationError, PluginError
from zoo.uncertainty import STD_ERROR

if TYPE_CHECKING:
    from torch import Tensor


def _two(dimensions: int) -> int:
    return 2


def _none(dimensions: int) -> int:
    return 0


GROUPS = 10                      # of images left out in turn, unless told otherwise
FEATURES = ("real", "fake")      # inputs that a function takes first and by place; all others go by name
SEEDED = (*FEATURES, "seed")
INPUTS = (
    *SEEDED, "real_labels", "fake_labels", "extractor", "model", "fakes", "samples", "images", "places", "device",
    "classes", "held_out", "classifier",
)  # fmt: skip


def _nothing() -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Metric:
    """A function, what it looks at, and how many images it needs: too few are refused before any are sampled.

    Inputs are attributes of `zoo.metrics.evidence.Evidence`; what no metric names is never computed.
    """

    function: Callable[..., Mapping[str, float]]       # of its inputs -> named values
    inputs: tuple[str, ...] = FEATURES                 # of INPUTS: what the function takes
    least: Callable[[int], int] = _two                 # feature dimensions -> fewest images of a side
    trusted: Callable[[int], int] = _none              # feature dimensions -> fewest images of a side unless forced
    advice: str = ""                                   # why so many, and what to use instead
    smooth: bool = True                                # a few images less move its values little: `zoo.metrics.errors`
    networks: Callable[[], Mapping[str, str]] = _nothing      # what it looks with besides the features: name -> sha256

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.inputs) - set(INPUTS)):
            raise PluginError(f"A metric asks for {', '.join(unknown)}; it may have {', '.join(INPUTS)}.")

    def check(self, name: str, real: int, fake: int, dimensions: int, *, force: bool = False) -> None:
        """Refuse so many real and fake images if they are too few for this metric.

        Raises:
            EvaluationError: fewer than it can work with, or than can be trusted unless `force`.
        """
        least, trusted = self.least(dimensions), self.trusted(dimensions)
        given = f"{real} real and {fake} fake images"
        if min(real, fake) < least:
            raise EvaluationError(f"{given} are too few for metric {name!r}: give {least} of each at least.")
        if self.doubtful(real, fake, dimensions) and not force:
            raise EvaluationError(
                f"{given} are too few for metric {name!r} on {dimensions} features: {self.advice}; "
                f"or give {trusted} of each, or force it."
            )

    def doubtful(self, real: int, fake: int, dimensions: int) -> bool:
        """Return whether so many images give values that are not to be trusted."""
        return min(real, fake) < self.trusted(dimensions)

    def __call__(
        self, real: Tensor | None = None, fake: Tensor | None = None, *, seed: int = 0, **further: Any
    ) -> dict[str, float]:
        """Return the named values of real [N, d] and fake [M, d] features and of further inputs; others are ignored."""
        given = {"real": real, "fake": fake, "seed": seed, **further}
        first = [given[name] for name in FEATURES if name in self.inputs]
        others = {name: given[name] for name in self.inputs if name not in FEATURES}
        return {name: float(value) for name, value in self.function(*first, **others).items()}


def matched(real: Tensor, fake: Tensor, *, least: int) -> tuple[Tensor, Tensor]:
    """Return both as float64 on one device, after checking that they are [N, d] and [M, d] with N, M >= least.

    Raises:
        EvaluationError: too few rows, shapes that do not fit, or values that are not finite.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise EvaluationError(f"Features of shapes {list(real.shape)} and {list(fake.shape)}: give [N, d] and [M, d].")
    if min(len(real), len(fake)) < least:
        raise EvaluationError(f"{len(real)} real and {len(fake)} fake images are too few: give {least} of each.")
    for side, features in (("real", real), ("fake", fake)):
        if not features.isfinite().all():
            raise EvaluationError(f"Features of the {side} images are not all finite: look there for NaN or infinity.")
    return real.double(), fake.to(real.device).double()


def mean_of(name: str, values: Tensor) -> dict[str, float]:
    """Return {NAME: mean, NAME_std_error: its standard error} of independent values [N], N >= 2."""
    values = values.double()
    return {name: float(values.mean()), name + STD_ERROR: float(values.std() / len(values) ** 0.5)}
