"""Files of ours that must be whole or absent, whatever dies when.

Replacing a file is: write a temporary name in the same folder, fsync, rename, fsync of the folder. The rename is the
commit point: before it the old content stands (and a stray temporary file, which `sweep_temporary` removes), after it
the new. Reading is bounded.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from synnefo_light.atomic import TEMPORARY, replace_file, sync_folder
from synnefo_light.errors import EnvironmentFault

__all__ = [
    "TEMPORARY",
    "is_same_file",
    "locked",
    "read_bounded",
    "sweep_temporary",
    "sync_file",
    "sync_folder",
    "write_atomic",
]


def write_atomic(
    path: Path, content: bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None, durable: bool = True
) -> None:
    """Put `content` at `path`, durable when this returns. Raises OSError; then `path` is as it was.

    Without `durable` nothing waits for the disk: a power cut may undo it, or leave the file empty.
    """
    replace_file(os.fspath(path), content, mode=mode, owner=owner, durable=durable)


def sync_file(path: Path) -> None:
    """Make what a file holds durable, whoever wrote it."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_bounded(path: Path, *, limit: int) -> bytes:
    """The whole file, if it has at most `limit` bytes; raises EnvironmentFault naming the file otherwise."""
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise EnvironmentFault(f"{path} is larger than the {limit} bytes that it may have")
    return content


def is_same_file(fd: int, path: Path) -> bool:
    """Whether an open file has this name yet; who waited for its lock may find that it was removed meanwhile."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def sweep_temporary(folder: Path, *, older_than_s: float = 3600.0) -> None:
    """Remove what writers that died left behind; younger files may belong to a living writer."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if (
                entry.name.startswith(TEMPORARY)
                and time.time() - entry.stat(follow_symlinks=False).st_mtime > older_than_s
            ):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive flock(2) on `path` (made if absent); the kernel drops it when we die.

    Raises EnvironmentFault when somebody else still holds it after `wait_s`.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise EnvironmentFault(f"{path} is locked by another process; wait for it to end") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)
