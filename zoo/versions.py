"""The versions that a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = {"zoo": "genzoo", "torch": "torch", "accelerate": "accelerate", "timm": "timm", "numpy": "numpy"}


def versions() -> dict[str, str]:
    """Return package -> version, with Python's own."""
    found = {"python": platform.python_version()}
    for name, distribution in PACKAGES.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
