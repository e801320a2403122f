"""The one way in which a file of ours comes to be: a temporary name in the same folder, fsync, rename, fsync.

Imports what the interpreter has loaded anyway and nothing else: hooks pay for every import (hooks/README.md). Others
use `files`.
"""

from __future__ import annotations

import os

TEMPORARY = ".tmp-"


def replace_file(
    path: str, content: bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None, durable: bool = True
) -> None:
    """Put `content` at `path`, durable when this returns. Raises OSError; then `path` is as it was.

    Without `durable` nothing waits for the disk: a power cut may undo it, or leave the file empty.
    """
    folder, name = os.path.split(path)
    # 60 characters are 240 bytes at most: a name that may be, with what is put around it, may be too (255, NAME_MAX).
    temporary = os.path.join(folder, f"{TEMPORARY}{name[:60]}-{os.urandom(4).hex()}")  # noqa: PTH118
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        try:  # noqa: SIM105 (contextlib would be an import)
            os.unlink(temporary)
        except OSError:
            pass
        raise
    if durable:
        sync_folder(folder or ".")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames and removals in `folder` durable (fsync(2): the file's own fsync does not cover its name)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
