"""One foreign checkpoint, read as data in a process of its own. Nothing of the file is executed, here or there.

The reading process (`zoo.formats.child`) gets the open file and a file to write to, no path, and limits itself. This
one checks what comes back as strictly as a stranger's file, and makes torch's tensors of it.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.child import REFUSED
from zoo.formats.contract import Instance, Tree
from zoo.formats.handover import LONGEST_HEADER, TREE, decode
from zoo.formats.headers import header

LARGEST = 1 << 35                  # bytes of a file
SECONDS = 60                       # that reading may take, and one for every 5 MB

# Finds the same zoo and numpy as this process uses, and nothing in the current folder or from PYTHON* variables.
_START = (
    "import sys; zoo, numpy = sys.argv[1:]; sys.path.insert(0, zoo); import zoo.formats; "
    "sys.path[:1] = []; sys.path.append(numpy); from zoo.formats.child import main; main()"
)


def read_file(path: str | Path) -> Tree:
    """Return what a .pt, .pth, .bin, .ckpt, .pkl or .safetensors file holds; its content says which kind it is.

    Raises:
        WeightsError: it cannot be read, is damaged, or holds anything but data. One line that names file and cause.
    """
    path = Path(path)
    with _open(path) as file, tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        handed = Path(folder) / "tensors"
        with handed.open("wb") as out, (Path(folder) / "refusal").open("w+b") as refusal:
            code = _run(path, file, out, refusal)
            refusal.seek(0)
            cause = refusal.read(2000).decode("utf-8", "replace")
        if code == REFUSED:
            raise WeightsError(f"{path}: {cause}")
        if code != 0:
            raise WeightsError(f"{path}: reading it broke off (exit code {code}): damaged or too large.")
        try:
            return _take_over(handed)
        except (OSError, ValueError, KeyError, RecursionError, RuntimeError, SafetensorError, WeightsError) as error:
            raise WeightsError(f"{path}: what was read of it is malformed ({type(error).__name__}).") from error


def _open(path: Path) -> BinaryIO:
    """Return a regular file, opened; a pipe is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        if path.is_dir():
            cause = "it is a folder"
        raise WeightsError(f"{path}: cannot be opened ({cause}).") from error
    file = os.fdopen(descriptor, "rb")
    about = os.fstat(descriptor)
    cause = ""
    if not stat.S_ISREG(about.st_mode):
        cause = "it is a folder, a pipe or a device: give a file."
    elif about.st_size == 0:
        cause = "it is empty: download it again."
    elif about.st_size > LARGEST:
        cause = f"it is {about.st_size:,} bytes long; at most {LARGEST:,} are read."
    if cause:
        file.close()
        raise WeightsError(f"{path}: {cause}")
    return file


def _run(path: Path, file: BinaryIO, out: BinaryIO, refusal: BinaryIO) -> int:
    """Let the reading process read a file, and return its exit code."""
    import zoo

    places = [str(Path(module.__file__ or "").parent.parent) for module in (zoo, np)]
    keep = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    limit = SECONDS + os.fstat(file.fileno()).st_size // 5_000_000
    try:
        return subprocess.run(
            [sys.executable, "-I", "-B", "-c", _START, *places],
            stdin=file, stdout=out, stderr=refusal, env={**keep, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            timeout=limit, check=False, cwd=os.path.dirname(out.name),
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"{path}: reading it takes more than {limit} seconds.") from error
    except OSError as error:
        raise WeightsError(f"{path}: the process that reads it cannot be started ({error.strerror}).") from error


def _take_over(handed: Path) -> Tree:
    """Return the tree that the reading process wrote, checked anew."""
    with (
        handed.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as data,
    ):
        records, body = header(data, LONGEST_HEADER)
        body.release()
    document = json.loads(records.pop("__metadata__")[TREE])
    left = set(records)
    with safe_open(handed, framework="pt") as tensors:

        def tensor(number: int) -> Tensor:
            left.remove(str(number))                          # each once
            found: Tensor = tensors.get_tensor(str(number))
            return found.clone()                              # its own memory, not the file's

        tree = decode(document, tensor, Instance)
    if left:
        raise ValueError("tensors without a place")
    return tree
