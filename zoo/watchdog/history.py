"""What was seen at the last looks, and what it is called once it has lasted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import dist, isfinite
from typing import Any

from zoo.watchdog.readings import EVERY, SAMPLES, Reading, Seen
from zoo.watchdog.signs import SIGNS

KEPT = 16          # looks that are remembered
OVER = 2           # looks in a row without a sign, after which what it told of is over
WATCHED = ("sign_real", "kl", "active")      # of a turn's watched values


@dataclass
class Finding:
    """Something that lasts: what it is called, since when it is seen, what the numbers are."""

    name: str
    since: int           # step of the first look that saw it
    kimg: float          # thousand images shown by then
    good: int            # step of the last look before that
    evidence: str        # of the latest look that saw it
    curable: bool        # whether other chance and a lower learning rate may mend it

    def __str__(self) -> str:
        return f"{self.name} since {self.kimg:g} kimg: {self.evidence}"

    def report(self) -> dict[str, Any]:
        """Return what a log line says of it."""
        return {"name": self.name, "since": self.since, "kimg": self.kimg, "evidence": self.evidence}


class History:
    """The last looks at a training, and for each sign since when it has been there without a break."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._looks: list[Reading] = []
        self._middles: list[tuple[float, ...]] = []        # of the last two looks
        self._streaks: dict[str, dict[str, Any]] = {}      # sign -> {"count", "since", "kimg", "good"}
        self._clean: dict[str, int] = {}                   # sign of a finding -> looks in a row that did not see it
        self.good = 0                                      # step of the last look that saw nothing

    def due(self, images: int) -> bool:
        """Return whether enough images were shown since the last look."""
        every = EVERY * SAMPLES
        return images // every > (self._looks[-1]["images"] // every if self._looks else 0)

    def add(
        self, step: int, batch: int, whole: float, terms: Mapping[str, float | None], seen: Seen, skipped: int
    ) -> list[Finding]:  # fmt: skip
        """Take in a look; return what has lasted long enough just now to be called something.

        Args:
            batch: images a step.
            whole: images of the whole training.
            skipped: turns left out since the last look.
        """
        before = int(self._looks[-1]["step"]) if self._looks else 0
        reading: Reading = {
            "step": step, "images": step * batch, "skipped": skipped,
            **chosen(terms), **seen.numbers, **self._moved(seen.middle),
        }  # fmt: skip
        self._looks = [*self._looks[1 - KEPT :], reading]
        fresh = []
        for sign in SIGNS:
            evidence = sign.seen(self._looks, whole)
            if not evidence:
                self._streaks.pop(sign.name, None)
                self._rest(sign.name)
                continue
            streak = self._streaks.setdefault(
                sign.name, {"count": 0, "since": step, "kimg": step * batch / 1000, "good": before}
            )
            streak["count"] += 1
            known = next((each for each in self.findings if each.name == sign.name), None)
            if known is not None:
                known.evidence, self._clean[sign.name] = evidence, 0
            elif streak["count"] >= sign.lasting:
                places = {name: streak[name] for name in ("since", "kimg", "good")}
                fresh.append(Finding(sign.name, evidence=evidence, curable=sign.curable, **places))
        self.findings += fresh
        self._clean |= {finding.name: 0 for finding in fresh}
        if not self._streaks:
            self.good = step
        return fresh

    def _moved(self, middle: tuple[float, ...]) -> Reading:
        """Return how far the samples' mean has moved since the last look, and since the one before that."""
        last = [each for each in self._middles if len(each) == len(middle)] if middle else []
        self._middles = [*self._middles, middle][-2:] if middle else self._middles
        found = {"drift": dist(middle, last[-1])} if last else {}
        return found | ({"strayed": dist(middle, last[-2])} if len(last) > 1 else {})

    def _rest(self, name: str) -> None:
        if name in self._clean:
            self._clean[name] += 1
            if self._clean[name] >= OVER:
                del self._clean[name]
                self.findings = [each for each in self.findings if each.name != name]

    @property
    def latest(self) -> Reading:
        """The last look."""
        return self._looks[-1] if self._looks else {}

    def state(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {
            "looks": self._looks,
            "middles": self._middles,
            "streaks": self._streaks,
            "clean": self._clean,
            "good": self.good,
            "findings": [asdict(each) for each in self.findings],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned.

        Raises:
            LookupError, TypeError, ValueError: it is not what `state` returns.
        """
        self._looks = [{str(name): float(value) for name, value in look.items()} for look in state.get("looks", ())]
        self._middles = [tuple(map(float, each)) for each in state.get("middles", ())]
        self._streaks = {str(name): dict(streak) for name, streak in state.get("streaks", {}).items()}
        self._clean = {str(name): int(count) for name, count in state.get("clean", {}).items()}
        self.good = int(state.get("good", 0))
        self.findings = [Finding(**each) for each in state.get("findings", ())]


def chosen(terms: Mapping[str, float | None]) -> Reading:
    """Return the watched values of a log line that signs go by: ``sign_real``, ``kl``, ``active``, and the norms.

    Gradient norms are ``norm.PHASE``. A value that is not finite is left out, and counted as ``lost``.
    """
    found: Reading = {"lost": float(sum(value is None for value in terms.values()))}
    for name, value in terms.items():
        phase, _, term = name.rpartition(".")
        if not isinstance(value, int | float) or not isfinite(value):      # a log may be anybody's
            continue
        if term in WATCHED:
            found[term] = value
        elif term == "gradient_norm":
            found[f"norm.{phase}"] = value
    return found
