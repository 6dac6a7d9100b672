"""What every benchmark's result says besides its numbers: see README.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo.versions import versions


def machine() -> dict[str, Any]:
    """Return what is measured on, and how busy it is: to be asked before the measurements."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "cpu": next((line.split(":", 1)[1].strip() for line in told if line.startswith("model name")), ""),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
    }


def document(
    before: dict[str, Any], runs: Sequence[Any], summary: object, peers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return a result as one document of plain types.

    Args:
        before: what `machine` returned.
        runs: every single measurement.
        summary: what they come to.
        peers: package -> version of what was measured against.
    """
    here = Path(__file__).parent      # wherever the script is called from
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True).stdout.strip()
    known = {**versions(), **(peers or {})}
    return {"command": " ".join(["python", *sys.argv]), "commit": commit, "machine": before,
            "versions": known, "runs": runs, "summary": summary}  # fmt: skip


def print_result(
    before: dict[str, Any], runs: Sequence[Any], summary: object, peers: dict[str, str] | None = None
) -> None:
    """Print a result as one JSON document; the arguments are those of `document`."""
    print(json.dumps(document(before, runs, summary, peers), indent=1))
