"""Metrics over kimg: the measured checkpoints of a run in panels, with a series for each measure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from zoo.comparison import unlike
from zoo.evaluation import Evaluation
from zoo.learning_curve import Point
from zoo.reporting.curves import POINTS, TOGETHER, Panel, Series, thinned
from zoo.reporting.facts import short
from zoo.uncertainty import with_errors

MOST = 40          # panels of a page


def evaluated_panels(points: Sequence[Point]) -> list[Panel]:
    """Return a panel for each value, in the order they were first measured; of a checkpoint the last value counts."""
    measures: list[Evaluation] = []
    found: dict[str, dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for point in points:
        like = [place for place, each in enumerate(measures) if not unlike(each, point.evaluation)]
        if not like:
            measures.append(point.evaluation)
        for name, value, _ in with_errors(point.evaluation.values):
            found[name][like[0] if like else len(measures) - 1][point.kimg] = value
    named = [short(_measure(each), 60) for each in measures]
    return [
        Panel(short(name, 60), tuple(_series(named[place], by[place]) for place in list(by)[:TOGETHER]), False)
        for name, by in list(found.items())[:MOST]
    ]


def _series(name: str, values: dict[float, float]) -> Series:
    return Series(name, tuple(thinned(sorted(values.items()), POINTS)), 0)


def _measure(evaluation: Evaluation) -> str:
    """Return what an evaluation compared, in a few words."""
    receipt = evaluation.receipt
    features = "" if receipt["features"] is None else f", {receipt['features']['name']}"
    psi = "" if receipt["psi"] == 1 else f", psi {receipt['psi']:g}"
    return f"{receipt['fake_images']:,} samples, {receipt['real_images']:,} of {receipt['data']['name']}{features}{psi}"
