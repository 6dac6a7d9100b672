"""Every error a caller can cause: one line that says what was given, what is possible and what to do next."""


LONGEST = 1500      # characters of a message: what it quotes may be a stranger's


class ZooError(Exception):
    """Base of all errors that zoo raises on purpose; the command line prints its message and exits with 2."""

    def __init__(self, message: str = ""):
        super().__init__(_one_line(message))


def _one_line(message: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


class UnknownName(ZooError):
    """No architecture, weights, metric, feature extractor or method has the given name."""


class PluginError(ZooError):
    """A plugin cannot be used: it does not import, breaks the contract or claims a name that is taken."""


class ConfigError(ZooError):
    """A setting is missing, unknown, of the wrong type or out of range."""


class WeightsError(ZooError):
    """A weights file is unreadable, incomplete, altered or does not fit its configuration."""


class DataError(ZooError):
    """The given data cannot be read as images, or there are too few of them."""


class HubError(ZooError):
    """The Hub refused, could not be reached, or does not hold what was asked for."""


class Unsupported(ZooError):
    """The architecture cannot do what was asked, such as encoding with a GAN that has no encoder."""


class RunError(ZooError):
    """A run directory cannot be used as asked: taken, incomplete, or made with other settings."""


class Diverged(RunError):
    """A training reached values that are not finite: a failure of the work, so the command line exits with 1."""


class Collapsed(RunError):
    """The watchdog stopped a training, which saved itself first: a failure of the work, the command exits with 1."""


class Interrupted(RunError):
    """A signal ended a training, which saved itself first; the command line exits with 128 + the signal's number."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.code = 128 + number


class Lost(RunError):
    """Another process of the same training has died or hangs; a failure of the work: the command line exits with 1."""


class EvaluationError(ZooError):
    """A metric cannot be computed from what was given: too few samples, or no weights for its features."""


def suggest(given: str, possible: list[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest of the possible names, or an empty string."""
    from difflib import get_close_matches

    near = get_close_matches(given, possible, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
