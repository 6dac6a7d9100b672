"""One foreign checkpoint, read as data in a process of its own. Nothing of the file is executed, here or there.

The reading process (`zoo.formats.child`) gets the open file and a file to write to, no path, and limits itself. This
one checks what comes back as strictly as a stranger's file, and makes torch's tensors of it.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

import zoo
from zoo.errors import WeightsError
from zoo.formats.child import FULL, REFUSED
from zoo.formats.contract import Instance, Tree
from zoo.formats.handover import LONGEST_HEADER, TREE, decode
from zoo.formats.headers import header
from zoo.formats.storages import NAMES

LARGEST = 1 << 35                  # bytes of a file
SECONDS = 60                       # that reading may take, and one for every 5 MB

# Finds the same zoo as this process uses, and nothing in the current folder or from PYTHON* variables.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import zoo.formats; del sys.path[0]; "
    "from zoo.formats.child import main; main()"
)


def read_file(path: str | Path) -> Tree:
    """Return what a .pt, .pth, .bin, .ckpt, .pkl or .safetensors file holds; its content says which kind it is.

    Raises:
        WeightsError: it cannot be read, is damaged, or holds anything but data. One line that names file and cause.
    """
    path = Path(path)
    with _open(path) as file:
        try:
            folder = tempfile.TemporaryDirectory(prefix="zoo-")
        except OSError as error:
            raise WeightsError(f"{path}: there is no temporary folder to read it into ({error.strerror}).") from error
        with folder as place:
            handed = Path(place) / "tensors"
            cause = _run(file, handed, Path(place) / "cause")
            if cause:
                raise WeightsError(f"{path}: {cause}")
            try:
                return _take_over(handed)
            except (OSError, ValueError, TypeError, KeyError, RecursionError, RuntimeError, WeightsError) as error:
                raise WeightsError(f"{path}: what was read of it is malformed ({type(error).__name__}).") from error


def _open(path: Path) -> BinaryIO:
    """Return a regular file, opened; a pipe is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        if os.path.isdir(path):
            cause = "it is a folder"
        raise WeightsError(f"{path}: cannot be opened ({cause}).") from error
    about = os.fstat(descriptor)
    cause = ""
    if not stat.S_ISREG(about.st_mode):
        cause = "it is a folder, a pipe or a device: give a file."
    elif about.st_size == 0:
        cause = "it is empty: download it again."
    elif about.st_size > LARGEST:
        cause = f"it is {about.st_size:,} bytes long; at most {LARGEST:,} are read."
    if cause:
        os.close(descriptor)
        raise WeightsError(f"{path}: {cause}")
    return os.fdopen(descriptor, "rb")


def _run(file: BinaryIO, handed: Path, refusal: Path) -> str:
    """Let the reading process read a file and write what it found; return why it did not, or an empty string."""
    place = str(Path(zoo.__file__ or "").parent.parent)
    keep = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    limit = SECONDS + os.fstat(file.fileno()).st_size // 5_000_000
    try:
        with handed.open("wb") as out, refusal.open("w+b") as said:
            code = subprocess.run(
                [sys.executable, "-I", "-S", "-B", "-c", _START, place],
                stdin=file, stdout=out, stderr=said, timeout=limit, check=False, cwd=handed.parent,
                env={**keep, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            ).returncode  # fmt: skip
            said.seek(0)
            cause = said.read(2000).decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        return f"reading it takes more than {limit} seconds."
    except OSError as error:
        return f"the process that reads it cannot be started ({error.strerror})."
    if code < 0:
        return f"it takes more time or memory than a file of its size may (signal {-code})."
    if code == FULL:
        return f"there is no room for its tensors in {handed.parent.parent}: set TMPDIR to a larger place."
    if code not in (0, REFUSED):
        return f"the process that reads it does not start ({cause.strip().rpartition(chr(10))[2][-200:]})."
    return cause if code == REFUSED else ""


def _take_over(handed: Path) -> Tree:
    """Return the tree that the reading process wrote, checked anew."""
    with handed.open("rb") as file:
        beginning = file.read(8)
        beginning += file.read(min(LONGEST_HEADER, int.from_bytes(beginning, "little")))
        records, start = header(memoryview(beginning), handed.stat().st_size, LONGEST_HEADER)
        document = json.loads(records.pop("__metadata__")[TREE])

        def tensor(number: int) -> Tensor:
            record = records.pop(str(number))                      # each once: no two share memory
            made = torch.empty(record["shape"], dtype=getattr(torch, NAMES[record["dtype"]]))
            raw = made.reshape(-1).view(torch.uint8).numpy().data
            file.seek(start + record["data_offsets"][0])
            if file.readinto(raw) != len(raw):
                raise ValueError("the file is cut")
            return made

        tree = decode(document, tensor, Instance)
    if records:
        raise ValueError("tensors without a place")
    return tree
