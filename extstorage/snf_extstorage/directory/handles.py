"""Open files of the folder, and what is said where one is not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from snf_extstorage.volume import NotFound


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[int]:
    """For writing and reading; nobody else's yet. Raises FileExistsError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def reading(path: Path, name: str, *, how: int = os.O_RDONLY) -> Iterator[int]:
    """Raises NotFound, naming what it is the file of. `how`: O_RDWR for writing too."""
    try:
        fd = os.open(path, how | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no {name}: {path} is missing") from None
    try:
        yield fd
    finally:
        os.close(fd)
