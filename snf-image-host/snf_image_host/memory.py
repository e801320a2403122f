"""Bytes for a program that never touch a disk: a memory file that nobody can change any more."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def sealed_memory(content: bytes, *, name: str) -> Iterator[int]:
    """A read-only descriptor of `content` in memory, which nobody can change or grow any more."""
    writable = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(writable), "wb") as file:
            file.write(content)
        fcntl.fcntl(
            writable,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
        )
        # QEMU matches the access mode of a descriptor with that of the disk, so it needs one opened read-only.
        fd = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
    try:
        yield fd
    finally:
        os.close(fd)
