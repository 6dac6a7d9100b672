"""Two evaluations side by side, if their values are of one measure: the same images, features and numbers of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import EvaluationError
from zoo.evaluation import Evaluation, differing
from zoo.uncertainty import STD_ERROR, with_errors

if TYPE_CHECKING:
    from zoo.training.run import Run

# What must be equal, because values depend on it: in words, and where a receipt says it.
ALIKE = (
    ("data fingerprint", "data.fingerprint"),
    ("resolution", "data.resolution"),
    ("channels", "data.channels"),
    ("real images", "real_images"),
    ("reference digest", "reference_digest"),
    ("fake images", "fake_images"),
    ("psi", "psi"),
    ("labels", "labels"),
    ("features", "features.name"),
    ("features digest", "features.digest"),
    ("resize", "features.resize"),
    ("networks", "networks"),
)
SURE = 2.0                     # standard errors of a difference that chance seldom exceeds: about once in twenty
HEADER = ("value", "A", "B", "B - A", "beyond 2 std errors")


@dataclass(frozen=True)
class Row:
    """One value of both evaluations."""

    name: str
    a: float
    b: float
    std_error: float | None      # of the difference; None where the metric states none

    @property
    def difference(self) -> float:
        """B less A."""
        return self.b - self.a

    @property
    def beyond(self) -> bool | None:
        """Whether the difference exceeds twice its standard error; None where that is not known."""
        return None if self.std_error is None else abs(self.difference) > SURE * self.std_error


@dataclass(frozen=True)
class Comparison:
    """The values that two evaluations of one measure share, and what else differs between their receipts."""

    a: Evaluation
    b: Evaluation
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return {"a", "b": receipts, "values": by name, "notes"} of plain types."""
        values = {
            row.name: {"a": row.a, "b": row.b, "difference": row.difference, "std_error": row.std_error,
                       "beyond": row.beyond}
            for row in self.rows
        }  # fmt: skip
        return {"a": self.a.receipt, "b": self.b.receipt, "values": values, "notes": list(self.notes)}

    def __str__(self) -> str:
        sure = {None: "", True: "yes", False: "no"}
        told = [(row.name, f"{row.a:.6g}", f"{row.b:.6g}", f"{row.difference:+.3g}", sure[row.beyond])
                for row in self.rows]  # fmt: skip
        cells = [HEADER, *told] if any(row[-1] for row in told) else [row[:-1] for row in (HEADER, *told)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
        return "\n".join([f"A  {_model(self.a)}", f"B  {_model(self.b)}", *table, *self.notes])


def compare(a: Evaluation | Run | str | Path, b: Evaluation | Run | str | Path) -> Comparison:
    """Return the values of two evaluations side by side.

    Model, seed, device and versions may differ; seed, device and versions are then noted.

    Args:
        a, b: each an evaluation, an evaluation.json, or a run or run directory that holds one.

    Raises:
        EvaluationError: other images, features, numbers of images, truncation or labels, so that the values are not of
            one measure; all of these are named. Or a receipt that cannot be read.
    """
    first, second = _opened(a), _opened(b)
    if apart := unlike(first, second):
        raise EvaluationError(f"A and B are not of one measure: {'; '.join(apart)}. Evaluate both alike.")
    rows = _rows(first.values, second.values)
    if not rows:
        of = [", ".join(each.values) or "nothing" for each in (first, second)]
        raise EvaluationError(f"A and B have no value in common: {of[0]} and {of[1]}. Evaluate both with one metric.")
    return Comparison(first, second, rows, tuple(_notes(first, second)))


def unlike(a: Evaluation, b: Evaluation) -> list[str]:
    """Return what keeps two evaluations from being of one measure, such as "fake images 500 and 1000"."""
    pairs = [(words, _entry(a.receipt, place), _entry(b.receipt, place)) for words, place in ALIKE]
    return [f"{words} {_short(x)} and {_short(y)}" for words, x, y in pairs if x != y]


def _opened(given: Evaluation | Run | str | Path) -> Evaluation:
    from zoo.training.run import Run

    if isinstance(given, Evaluation):
        return given
    return Evaluation.open(given.directory if isinstance(given, Run) else given)


def _entry(receipt: Any, place: str) -> Any:
    for name in place.split("."):
        receipt = None if receipt is None else receipt.get(name)
    return receipt


def _short(value: object) -> str:
    return str(value)[:16]


def _rows(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[Row, ...]:
    both = [name for name, _, _ in with_errors(a) if name in b]
    return tuple(Row(name, a[name], b[name], _std_error(a, b, name)) for name in both)


def _std_error(a: Mapping[str, float], b: Mapping[str, float], name: str) -> float | None:
    # That of independent values; the real images are the same, which makes the true one a little smaller.
    ours, theirs = a.get(name + STD_ERROR), b.get(name + STD_ERROR)
    return None if ours is None or theirs is None else hypot(ours, theirs)


def _notes(a: Evaluation, b: Evaluation) -> list[str]:
    notes = [f"seed: {a.receipt['seed']} and {b.receipt['seed']}"] if a.receipt["seed"] != b.receipt["seed"] else []
    for side, one, other in (("A", a, b), ("B", b, a)):
        if alone := [name for name in one.values if name not in other.values]:
            notes.append(f"{side} alone: {', '.join(alone)}")
    return [*notes, *differing(a, b)]


def _model(evaluation: Evaluation) -> str:
    model = evaluation.receipt["model"]
    name = evaluation.receipt["given"]["model"] or model["architecture"]
    return f"{name}, weights {model['digest'][:12]}, seed {evaluation.receipt['seed']}"
