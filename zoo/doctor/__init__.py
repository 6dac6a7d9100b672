"""The doctor: looks at a set of images before a training does, and at the machine that would run it."""

from __future__ import annotations

from pathlib import Path

from zoo.doctor import advice, findings
from zoo.doctor import repeats as same_pictures
from zoo.doctor.advice import Advice
from zoo.doctor.findings import Finding
from zoo.doctor.look import Progress, Survey, survey
from zoo.doctor.report import Diagnosis, facts
from zoo.errors import ConfigError

__all__ = ["Advice", "Diagnosis", "Finding", "diagnose"]

PARENT = "stylegan"     # what is suggested to start from
WORKERS = 256           # threads, at most


def diagnose(
    data: str | Path,
    *,
    against: str | Path | None = None,
    arch: str = PARENT,
    resolution: int | None = None,
    workers: int = 2,
    sheet: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Look at every image of a set and return what would spoil a training, and how to train.

    Args:
        data: image folder, zip of one, ``emoji`` or ``hf:OWNER/DATASET``, as for `zoo.train`.
        against: another set, such as the one to measure with: images that stand in both are found.
        arch: ARCH or ARCH.TAG that the suggestions are for.
        resolution: what you mean to train at; None: the suggested one.
        workers: threads that decode images.
        sheet: a picture file to draw a contact sheet into.
        seed: of the sheet's choice of images.
        progress: called with ("examined", images done, images in all).

    Raises:
        DataError: there is no such set, or nothing in it looks like an image.
        UnknownName: no such architecture or weights.
        ConfigError: an impossible setting.
    """
    from zoo.data import open_source
    from zoo.data.sources import printable
    from zoo.doctor.installation import has_gpu
    from zoo.images import check_place

    _check(resolution, workers, seed)
    parent = advice.Parent.named(arch)
    place = None if sheet is None else check_place(sheet)
    source = open_source(data)
    other = None if against is None else survey(open_source(against), workers=workers, progress=progress)
    seen = survey(source, workers=workers, progress=progress)
    suggested = advice.resolution(seen, parent, has_gpu()) if len(seen) and resolution is None else None
    size = suggested or advice.Advice("resolution", str(resolution), "asked for")
    found, same = _findings(seen, other, int(size.value) if len(seen) else 1)
    settings = advice.settings(seen, parent, size) if len(seen) else []
    if place is not None and len(seen):
        from zoo.doctor.sheet import draw

        draw(source, seen, same, settings, place, seed=seed)
    command = advice.command(printable(str(data)), parent, settings) if settings else ""
    return Diagnosis(source.name, facts(seen), tuple(found), tuple(settings), command)


def _check(resolution: int | None, workers: int, seed: int) -> None:
    for name, value, least, most in (
        ("resolution", 4 if resolution is None else resolution, 4, 4096),
        ("workers", workers, 1, WORKERS),
        ("seed", seed, -(1 << 63), 1 << 63),
    ):
        if not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"{name}={str(value)[:60]} is not possible: give an integer from {least} to {most}.")


def _findings(seen: Survey, other: Survey | None, size: int) -> tuple[list[Finding], same_pictures.Repeats]:
    """Return all findings, problems first, and which images of the set are the same."""
    found = list(findings.of_images(seen, size))
    both = same_pictures.repeats(seen) if other is None else same_pictures.repeats(seen, other)
    same = both.first(len(seen))
    if len(seen):
        found += same_pictures.within(seen, same)
        if folders := same_pictures.splits(seen):
            found += same_pictures.between(seen, same, folders)
        else:                # what are no classes need not be fit for classes
            found += [*findings.of_classes(seen), *same_pictures.of_classes(seen, same)]
        if other is not None:
            found += same_pictures.against(seen, other, both)
    return sorted(found, key=lambda each: not each.problem), same
