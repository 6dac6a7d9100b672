"""The evaluation of a run as rows of a page, or the line that says why it cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.documents import mapping
from zoo.errors import EvaluationError
from zoo.evaluation import Evaluation
from zoo.receipts import FILE
from zoo.reporting.facts import short, table
from zoo.training.run import Run
from zoo.uncertainty import rounded, with_errors


@dataclass(frozen=True)
class Evaluated:
    """What evaluation.json says."""

    rows: tuple[tuple[str, str, str], ...] = ()        # (name, for people, exactly)
    told: str = ""
    forced: tuple[str, ...] = ()                       # metrics that had too few images
    left_out: tuple[tuple[str, str], ...] = ()         # (metric, why it was not computed)
    receipt: tuple[tuple[str, str], ...] = ()
    note: str = ""                                     # why there is nothing


def evaluated(run: Run) -> Evaluated:
    """Return the values and the receipt of a run's evaluation."""
    if not (run.directory / FILE).exists():
        return Evaluated(note="This run has not been evaluated: zoo evaluate RUN DATA does it.")
    try:
        found = Evaluation.open(run.directory)
    except EvaluationError as error:
        return Evaluated(note=str(error))
    rows = [
        (short(name), rounded(value, error), f"{value:.17g}") for name, value, error in with_errors(found.values)
    ]
    forced = found.receipt.get("forced")
    doubtful = tuple(short(name) for name in forced) if isinstance(forced, list) else ()
    left_out = tuple((short(name), short(why)) for name, why in mapping(found.receipt.get("left_out")).items())
    return Evaluated(tuple(rows), _told(found), doubtful, left_out, tuple(table(found.receipt)))


def _told(found: Evaluation) -> str:
    receipt = found.receipt
    features, data = mapping(receipt["features"]), mapping(receipt["data"])
    seen = f", by features of {short(features['name'])}" if features.get("name") else ""
    against = f"{receipt['real_images']:,} images of {short(data['name'])}"
    return f"{receipt['fake_images']:,} samples against {against}{seen}."
