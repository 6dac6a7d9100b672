"""The state of the installation: versions, devices, speed of bfloat16, disk, plugins, optional packages."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from zoo.home import zoo_home
from zoo.memory import installed
from zoo.versions import versions

if TYPE_CHECKING:
    import torch

FREE = 2 << 30  # bytes: less disk than this is soon full of checkpoints
SIDE = 768      # of the matrices whose product is timed
FAST = 1.3      # times as fast as float32, from where bfloat16 is worth its rounding
MORE = ("huggingface_hub", "safetensors", "pillow", "pydantic", "typer")
EXTRA = re.compile(r"([\w.-]+)[^;]*;\s*extra\s*==\s*['\"](\w+)['\"]")


@dataclass(frozen=True)
class Device:
    """A place to train on."""

    name: str       # as torch calls it: "cpu", "cuda:0", "mps"
    what: str       # the model of the card, or the number of cores
    memory: int     # bytes
    bf16: float     # speed of a bfloat16 matrix product over that of a float32 one


@dataclass(frozen=True)
class Installation:
    """What `zoo` runs on."""

    versions: dict[str, str]
    devices: tuple[Device, ...]
    home: str                               # where weights and features are kept
    free: int                               # bytes left there
    plugins: tuple[dict[str, Any], ...]     # name, distribution, status, reason
    missing: dict[str, tuple[str, ...]]     # extra -> its packages that are not installed
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {**asdict(self), "ok": not self.problems}

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def examine() -> Installation:
    """Look at the installation; takes about a second, most of it for importing torch."""
    from zoo.registry import plugins

    records = tuple(
        {"name": each.name, "distribution": each.source, "status": each.status, "reason": each.reason}
        for each in plugins()
    )
    home = zoo_home()
    free = shutil.disk_usage(_standing(home)).free
    problems = [f"plugin {each['name']} ({each['distribution']}) failed: {each['reason']}"
                for each in records if each["status"] == "failed"]  # fmt: skip
    if free < FREE:
        problems.append(f"{free / 1e9:.1f} GB are left at {home}: free some, or set ZOO_HOME to another disk")
    if not os.access(_standing(home), os.W_OK):
        problems.append(f"{home} cannot be written to: set ZOO_HOME to a folder of yours")
    return Installation(
        versions={**versions(), **{name: _version(name) for name in MORE}},
        devices=tuple(_devices()),
        home=str(home),
        free=free,
        plugins=records,
        missing=_missing(),
        problems=tuple(problems),
    )


def has_gpu() -> bool:
    """Return whether torch can use an accelerator here."""
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _devices() -> Iterator[Device]:
    import torch

    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Device(f"cuda:{index}", card.name, card.total_memory, _bf16(torch.device("cuda", index)))
    if torch.backends.mps.is_available():
        yield Device("mps", "Apple GPU", installed(), _bf16(torch.device("mps")))
    yield Device("cpu", f"{_cores()} cores, {torch.get_num_threads()} threads", installed(), _bf16(torch.device("cpu")))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bf16(device: torch.device) -> float:
    """Return how many times as fast as a float32 matrix product a bfloat16 one is; 0 where there is none."""
    import torch

    try:
        seconds = {kind: _seconds(device, kind) for kind in (torch.float32, torch.bfloat16)}
    except RuntimeError:  # a card that is full, or too old
        return 0.0
    return round(seconds[torch.float32] / seconds[torch.bfloat16], 2)


def _seconds(device: torch.device, kind: torch.dtype) -> float:
    import torch

    matrix = torch.ones(SIDE, SIDE, device=device, dtype=kind)
    times = []
    for _ in range(4):  # the first one warms up
        begun = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # reading a number waits for the card
        times.append(time.perf_counter() - begun)
    return median(times[1:])


def _missing() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for line in requires("genzoo") or ():
        match = EXTRA.match(line)
        if match and _version(match[1]) == "missing":
            found.setdefault(match[2], []).append(match[1])
    return {extra: tuple(names) for extra, names in found.items()}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "missing"


def _standing(path: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _lines(found: Installation) -> Iterator[str]:
    many = len(found.problems)
    yield f"zoo {found.versions['zoo']}: {many or 'no'} problem{'' if many == 1 else 's'}"
    yield from (f"PROBLEM  {each}." for each in found.problems)
    yield ""
    yield f"python   {found.versions['python']} ({sys.executable})"
    yield "versions " + ", ".join(f"{name} {number}" for name, number in found.versions.items() if name != "python")
    for each in found.devices:
        speed = f"bf16 {each.bf16:g} times as fast as float32" if each.bf16 else "no bf16"
        worth = "worth --precision bf16" if each.bf16 >= FAST else "stay with float32"
        yield f"device   {each.name}: {each.what}, {each.memory / 1e9:.1f} GB, {speed}: {worth}"
    yield f"home     {found.home}: {found.free / 1e9:.1f} GB free"
    usable = [each["name"] for each in found.plugins if each["status"] == "ok"]
    yield f"plugins  {', '.join(usable) or 'none'}" + _blocked(found)
    for extra, names in found.missing.items():
        yield f"optional {', '.join(names)}: pip install 'genzoo[{extra}]'"
    yield "next     zoo doctor DATA looks at your images"


def _blocked(found: Installation) -> str:
    names = [each["name"] for each in found.plugins if each["status"] == "blocked"]
    return f"; switched off: {', '.join(names)}" if names else ""
