"""Recipe files: the settings and additions of a training, to be kept and shared.

::

    [set]                 # as --set
    loss = "hinge"
    lr = 0.0002

    [add.r1]              # as --add r1:gamma=1
    gamma = 1

    [add.pacgan]          # as --add pacgan
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.additions.texts import shown
from zoo.errors import ConfigError, suggest
from zoo.values import written

TABLES = ("set", "add")


def read(path: Path) -> tuple[list[str], list[str]]:
    """Return what a recipe file sets and adds, as ``KEY=VALUE`` and ``NAME:option=value`` texts.

    Raises:
        ConfigError: it cannot be read, is no TOML, or holds something else.
    """
    try:
        whole = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"The recipe file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:      # no TOML, or no text
        raise ConfigError(f"The recipe file {path} is no TOML: {' '.join(str(error).split())[:200]}.") from error
    for name, table in whole.items():
        if name not in TABLES or not isinstance(table, dict):
            near = suggest(name, list(TABLES))
            raise ConfigError(f"{path}: {name!r} is not understood.{near} Write [set] and [add.NAME].")
    settings = [f"{key}={_plain(path, key, value)}" for key, value in whole.get("set", {}).items()]
    additions = []
    for name, given in whole.get("add", {}).items():
        if not isinstance(given, dict):
            raise ConfigError(f"{path}: write [add.{name}] with its options below it, not {name} = {str(given)[:40]}.")
        additions.append(shown(name, {key: value for key, value in given.items() if _plain(path, key, value)}))
    return settings, additions


def merged(file: list[str], given: list[str], mark: str) -> list[str]:
    """Return the texts of a file and those given beside it, which count where both name the same.

    Args:
        mark: what ends the name in a text.
    """
    names = {text.partition(mark)[0].strip() for text in given}
    return [*(text for text in file if text.partition(mark)[0] not in names), *given]


def _plain(path: Path, key: str, value: Any) -> str:
    if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(each, list | dict) for each in value)):
        raise ConfigError(f"{path}: {key} must be a number, a word, true, false or a list of these.")
    return written(value)
