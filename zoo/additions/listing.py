"""What `zoo recipes` shows: every adversarial loss and every addition, with the failure that it addresses."""

from __future__ import annotations

from typing import Any

from zoo.additions.names import addition, addition_names
from zoo.additions.texts import options, shown
from zoo.errors import PluginError, UnknownName, suggest
from zoo.losses import ADVERSARIAL

# name -> what it does, the failure it addresses, paper; in the order of `zoo.losses.ADVERSARIAL`.
LOSSES: dict[str, tuple[str, str, str]] = {
    "nonsaturating": (
        "the generator maximises the log probability that its fakes are real",
        "a generator that stops learning where the critic is sure",
        "Goodfellow et al., 2014, arXiv:1406.2661",
    ),
    "minimax": (
        "the first GAN's game: the generator minimises what the critic maximises",
        "",
        "Goodfellow et al., 2014, arXiv:1406.2661",
    ),
    "hinge": (
        "the critic learns only from what lies within its margin",
        "a critic that grows ever surer",
        "Lim and Ye, 2017, arXiv:1705.02894",
    ),
    "least_squares": (
        "the critic fits 1 and 0, the generator 1",
        "gradients that vanish far from the border",
        "Mao et al., 2017, arXiv:1611.04076",
    ),
    "wasserstein": (
        "the distance of mean logits; needs gradient_penalty, spectral_norm or weight_clipping",
        "a loss that says nothing of quality",
        "Arjovsky et al., 2017, arXiv:1701.07875",
    ),
    "relativistic": (
        "each fake is judged against a real; add r1 and r2",
        "mode dropping",
        "Jolicoeur-Martineau, 2018, arXiv:1807.00734",
    ),
    "relativistic_average": (
        "each image is judged against the mean of the other kind",
        "a critic that forgets that half of what it sees is real",
        "Jolicoeur-Martineau, 2018, arXiv:1807.00734",
    ),
}


def listed(name: str | None = None) -> list[dict[str, Any]]:
    """Return one row for each addition and loss, or those of a name.

    A plugin's addition that does not import has a row that says so in place of what it does.

    Raises:
        UnknownName: nothing has that name.
    """
    rows = [*map(_addition, sorted(addition_names())), *map(_loss, ADVERSARIAL)]
    mine = [row for row in rows if name in (None, row["name"])]
    if not mine:
        names = [row["name"] for row in rows]
        raise UnknownName(f"Nothing is named {name!r}.{suggest(str(name), names)} Possible: {', '.join(names)}.")
    return mine


def _addition(name: str) -> dict[str, Any]:
    try:
        found = addition(name)
    except PluginError as error:
        return _row("addition", name, (str(error), "", ""), f"--add {name}", {})
    taken = options(found.apply)
    return _row("addition", name, (found.summary, found.failure, found.paper), f"--add {shown(name, taken)}", taken)


def _loss(name: str) -> dict[str, Any]:
    return _row("loss", name, LOSSES[name], f"--set loss={name}", {})


def _row(kind: str, name: str, about: tuple[str, str, str], use: str, taken: dict[str, object]) -> dict[str, Any]:
    summary, failure, paper = about
    return {
        "name": name, "kind": kind, "summary": summary, "failure": failure, "paper": paper, "use": use, "options": taken
    }  # fmt: skip
