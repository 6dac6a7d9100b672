"""What went wrong in a training, and what to try next: read from a run directory, whatever state it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.remedies import Made, tried
from zoo.training.run import Run
from zoo.watchdog.history import Finding, History
from zoo.watchdog.readings import Seen
from zoo.watchdog.signs import DIVERGENCE


@dataclass(frozen=True)
class Diagnosed:
    """One thing that went wrong in a run, and what to try against it."""

    name: str
    since: float                         # kimg
    until: float | None                  # kimg by which it was over; None: it lasts to the end of the log
    evidence: str
    next: tuple[Mapping[str, str], ...]  # {"option", "why"}, in the order to try them


@dataclass(frozen=True)
class Explanation:
    """What a run's log tells."""

    run: str
    state: str                           # "finished", "running" or "broken off"
    kimg: float                          # thousand images shown
    of: float | None                     # asked for
    found: tuple[Diagnosed, ...]
    notes: tuple[str, ...]               # what else is worth knowing

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        whole = f" of {self.of:g}" if self.of is not None else ""
        lines = [f"{self.run}: {self.kimg:g}{whole} kimg, {self.state}."]
        for each in self.found:
            until = f" to {each.until:g}" if each.until is not None else ""
            lines += ["", f"{each.name}, from {each.since:g}{until} kimg: {each.evidence}."]
            lines += ["Try, in this order, one at a time:"] if each.next else []
            width = max((len(step["option"]) for step in each.next), default=0)
            lines += [f"  {i}. {step['option'].ljust(width)}  {step['why']}" for i, step in enumerate(each.next, 1)]
        if not self.found:
            lines += ["", "Nothing that the watchdog knows went wrong."]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])


def explain(run: str | Path | Run) -> Explanation:
    """Return what the log of a run tells: what went wrong, since when, and what to try, each as an exact option.

    The run may be finished, going on, broken off, or of a version without a watchdog.

    Raises:
        RunError: the directory holds no run, or its run.json cannot be read.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    made, lines = Made(opened.settings), opened.log
    found = _found(lines, made)
    return Explanation(
        str(opened.directory),
        _state(opened.directory),
        kimg=max((float(line["kimg"]) for line in lines), default=0.0),
        of=made.number(made.settings, "kimg", 0) or None,
        found=tuple(found),
        notes=tuple(_notes(lines, made)),
    )


def _found(lines: Sequence[Mapping[str, Any]], made: Made) -> list[Diagnosed]:
    """Return what is seen when all lines of a log are looked at again, and what a training went back for."""
    history = History()
    seen: dict[tuple[str, int], Finding] = {}
    over: dict[tuple[str, int], float] = {}
    batch = int(made.set("batch", 32))
    watched = any(_numbers(line) for line in lines)
    for line in lines:
        if not (_numbers(line) if watched else history.due(int(line["step"]) * batch)):
            continue
        seen_now, skipped = Seen(_numbers(line)), int(line.get("skipped", 0))
        history.add(int(line["step"]), batch, 1000 * made.set("kimg", 0), line["terms"], seen_now, skipped)
        now = {(each.name, each.since): each for each in history.findings}
        over |= {place: float(line["kimg"]) for place in seen if place not in now and place not in over}
        seen |= now
    lasting = [_diagnosed(each, over.get(place), made) for place, each in seen.items()]
    return [*_gone_back(lines, made), *lasting]


def _gone_back(lines: Sequence[Mapping[str, Any]], made: Made) -> list[Diagnosed]:
    batch = made.set("batch", 32)
    records = [each for line in lines for each in line.get("faults", []) if each.get("action") == "rolled back"]
    found = []
    for record in records:
        step, to, rate = (Made.number(record, name, 0) for name in ("step", "to", "rate"))
        name = str(record.get("watchdog") or DIVERGENCE)
        told = f"{record.get('why', '')}; went back to {to * batch / 1000:g} kimg, with {rate:g} of the learning rate"
        found.append(Diagnosed(name, to * batch / 1000, step * batch / 1000, told, tuple(tried(name, made))))
    return found


def _diagnosed(finding: Finding, over: float | None, made: Made) -> Diagnosed:
    return Diagnosed(finding.name, finding.kimg, over, finding.evidence, tuple(tried(finding.name, made)))


def _notes(lines: Sequence[Mapping[str, Any]], made: Made) -> list[str]:
    notes = []
    looks = sum(bool(_numbers(line)) for line in lines)
    if not lines:
        notes.append("The log has no line yet.")
    elif not looks:
        notes.append("The watchdog did not look at this run: only what the losses watch can be judged.")
    elif looks < 3:
        notes.append(f"The watchdog has looked {'once' if looks == 1 else 'twice'}: most things need three looks.")
    if looks and made.critic and not made.held:
        notes.append("No images are held out, so nobody knows whether the critic overfits: --hold-out 32 would tell.")
    skipped = sum(line.get("skipped", 0) for line in lines)
    if skipped:
        many = "1 turn was" if skipped == 1 else f"{skipped} turns were"
        notes.append(f"{many} left out because a value was not finite.")
    return notes


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Return what the watchdog saw in a line of a log, which may be anybody's."""
    seen = line.get("watchdog")
    pairs = seen.items() if isinstance(seen, Mapping) else ()
    return {str(name): float(value) for name, value in pairs if isinstance(value, int | float)}


def _state(directory: Path) -> str:
    if _locked(directory / ".lock"):
        return "running"
    return "finished" if (directory / "model").is_dir() else "broken off"


def _locked(path: Path) -> bool:
    """Return whether a process holds the lock of a run; False where that cannot be told."""
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
