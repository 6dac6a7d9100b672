"""An evaluation.json read back: values and receipt, refused in one line where something is missing or means another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from zoo.errors import EvaluationError, WeightsError

SCHEMA = 1                     # of a receipt; another one is refused
FILE = "evaluation.json"       # its name in a run directory


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)      # what is not named below is told, but nothing depends on it


class _Given(_Part):
    model: str | None
    data: str | None
    features: str
    batch: int
    force: bool


class _Model(_Part):
    architecture: str
    digest: str


class _Data(_Part):
    name: str
    fingerprint: str
    resolution: int
    channels: int


class _Features(_Part):
    name: str
    digest: str
    resize: str


class _Receipt(_Part):
    schema_version: int
    metrics: list[str]
    fake_images: int
    real_images: int
    reference: int | None
    seed: int
    psi: FiniteFloat
    labels: str
    given: _Given
    model: _Model
    data: _Data
    features: _Features | None
    networks: dict[str, str] = {}
    errors: int = 0
    reference_digest: str
    device: str
    versions: dict[str, str]


class _Document(_Part):
    values: dict[str, FiniteFloat]
    receipt: _Receipt


def read(path: str | Path) -> dict[str, Any]:
    """Return {"values": ..., "receipt": ...} of an evaluation.json, or of the one in a run directory.

    Raises:
        EvaluationError: there is none, it is damaged, lacks an entry, or is of another schema.
    """
    from zoo.storage import read_json

    try:
        place = Path(path, FILE) if Path(path).is_dir() else Path(path)
        if not place.is_file():
            raise EvaluationError(f"{place} is no file: `zoo evaluate RUN DATA` writes RUN/{FILE}.")
        found = read_json(place)
    except (OSError, TypeError, ValueError, WeightsError) as error:
        raise EvaluationError(f"No receipt can be read at {str(path)[:200]!r}: {error}") from error
    return checked(found, place)


def checked(found: Any, place: str | Path) -> dict[str, Any]:
    """Return {"values": ..., "receipt": ...} of a document that was read at a place.

    Raises:
        EvaluationError: it lacks an entry, or is of another schema.
    """
    written = _version(found)
    if written not in (SCHEMA, None):
        raise EvaluationError(
            f"{place} has schema version {str(written)[:60]}, this zoo reads {SCHEMA}: evaluate again or update."
        )
    try:
        _Document.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(str(part) for part in first["loc"]) or "whole"
        raise EvaluationError(f"{place} is no whole receipt: {entry}: {first['msg']}. Evaluate again.") from error
    return {"values": found["values"], "receipt": found["receipt"]}


def _version(found: Any) -> Any:
    receipt = found.get("receipt") if isinstance(found, dict) else None
    return receipt.get("schema_version") if isinstance(receipt, dict) else None
