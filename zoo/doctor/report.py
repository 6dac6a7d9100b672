"""What the doctor says about a set, in plain words or as one document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zoo.doctor.advice import Advice
from zoo.doctor.findings import Finding
from zoo.doctor.look import Survey
from zoo.doctor.words import counted


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a set of images, and how to train on it."""

    data: str
    facts: dict[str, Any]           # counts, sizes, formats, colours, classes
    findings: tuple[Finding, ...]   # problems first
    advice: tuple[Advice, ...]      # () where no image can be read
    command: str                    # "" where no image can be read

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What would stop or spoil a training."""
        return tuple(each for each in self.findings if each.problem)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {**asdict(self), "ok": not self.problems}

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def facts(seen: Survey) -> dict[str, Any]:
    """Return counts, and how sizes, formats and colours are spread."""
    looks = seen.looks
    found: dict[str, Any] = {"images": len(seen), "unreadable": len(seen.failed)}
    if not looks:
        return found
    by_area = sorted(looks, key=lambda each: each.width * each.height)
    aspects = np.array([each.aspect for each in looks])
    found["sizes"] = {
        "smallest": _size(by_area[0]),
        "median": _size(by_area[len(looks) // 2]),
        "largest": _size(by_area[-1]),
        "shorter_sides": _histogram([each.side for each in looks]),
        "square": int((aspects == 1).sum()),
        "median_aspect": round(float(np.median(aspects)), 3),
        "largest_aspect": round(float(aspects.max()), 3),
    }
    found["formats"] = dict(Counter(each.format for each in looks).most_common())
    found["colours"] = dict(Counter(each.colours for each in looks).most_common())
    found["animated"] = sum(each.moving for each in looks)
    found["turned"] = sum(each.turned for each in looks)
    found["transparent"] = sum(each.alpha for each in looks)
    found["grey"] = int(seen.grey.sum())
    if seen.labels is not None:
        counts = np.bincount(seen.labels, minlength=len(seen.classes))
        found["classes"] = {name: int(count) for name, count in zip(seen.classes, counts)}
    return found


def _size(each: Any) -> list[int]:
    return [each.width, each.height]


def _histogram(sides: list[int]) -> dict[str, int]:
    """Count sides by powers of two: "64-127" -> how many."""
    counts = Counter(side.bit_length() - 1 for side in sides)
    return {f"{1 << power}-{(2 << power) - 1}" if power else "1": counts[power] for power in sorted(counts)}


def _lines(found: Diagnosis) -> Iterator[str]:
    many = len(found.problems)
    readable = counted(found.facts["images"], "image")
    yield f"{found.data}: {readable}, {counted(many, 'problem') if many else 'no problem'}"
    for each in found.findings:
        yield f"{'PROBLEM' if each.problem else 'note   '}  {each}"
    if found.facts["images"]:
        yield ""
        yield from (f"{name:<8} {text}" for name, text in _facts(found.facts))
        yield ""
        yield "suggested settings"
        width = max(len(f"{each.setting} {each.value}") for each in found.advice)
        for suggestion in found.advice:
            yield f"  {f'{suggestion.setting} {suggestion.value}':<{width}}  {suggestion.reason}"
        yield f"  {found.command}"
    if many:
        kinds = ", ".join(each.kind for each in found.problems)
        yield ""
        yield f"not ready to be trained on: {kinds}"


def _facts(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sizes = told["sizes"]
    ends = ", ".join(f"{name} {'x'.join(map(str, sizes[name]))}" for name in ("smallest", "median", "largest"))
    yield "sizes", f"{ends}; {sizes['square']:,} square, longest {sizes['largest_aspect']:g} to 1"
    yield "sides", ", ".join(f"{name}: {count:,}" for name, count in sizes["shorter_sides"].items())
    yield "formats", _counts(told["formats"])
    yield "colours", _counts(told["colours"])
    if "classes" in told:
        few = sorted(told["classes"].items(), key=lambda each: -each[1])
        shown = few if len(few) <= 12 else [*few[:6], *few[-6:]]
        between = f" (the 6 largest and the 6 smallest of {len(few):,})" if len(few) > 12 else ""
        yield "classes", _counts(dict(shown)) + between


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
