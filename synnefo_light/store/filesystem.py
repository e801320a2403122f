"""The system calls with which a store in a directory is changed, one method each, so that a test can make one fail.

Nothing else in this package writes to a disk. OSErrors come out as they are; `directory.py` says what they mean.
"""

from __future__ import annotations

import os
from pathlib import Path

from synnefo_light.files import sync_folder
from synnefo_light.reflink import clone_range


class FileSystem:
    def create(self, path: Path) -> int:
        """A new file, open for writing and reading."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def share(self, source: int, offset: int, length: int, fd: int) -> None:
        """Let the beginning of `fd` be the range of `source`, without a copy."""
        clone_range(source, offset, length, fd, 0)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def sync_folder(self, folder: Path) -> None:
        sync_folder(folder)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        path.mkdir(0o700)

    def touch(self, path: Path) -> None:
        """The file's time of change is now, by the clock of whoever keeps the file system."""
        os.utime(path, follow_symlinks=False)
