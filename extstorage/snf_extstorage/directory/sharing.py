"""Files that share extents (reflink.py): FIEMAP, and the hints of XFS.

XFS logs all of this in order, so an fsync of the clone makes it durable.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synnefo_light.errors import EnvironmentFault
from synnefo_light.reflink import CANNOT_SHARE, clone_file

_FS_IOC_FIEMAP = 0xC020660B
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820

_FIEMAP = struct.Struct("=QQLLLL")
_FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")
_FSXATTR = struct.Struct("=IIIII8s")

_FIEMAP_FLAG_SYNC = 1
_LAST = 0x1
#: Where the physical place is not known, or says nothing of the content: never the same as anything.
_NO_PLACE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400  # unknown, delalloc, encoded, encrypted, unaligned, inline
_UNWRITTEN = 0x800

_XFLAG_COWEXTSIZE = 0x10000

#: What it says where it has no FIEMAP, or none for this file.
_CANNOT_TELL = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL)

#: Extents in one FIEMAP call.
_BATCH = 2048


@dataclass(frozen=True, slots=True)
class Mapped:
    """A run of a file's bytes and where they are: `place` in bytes of the device, None when that says nothing."""

    start: int
    length: int
    place: int | None
    written: bool = True  # False: allocated, reads as zeros


def extents(fd: int) -> Iterator[Mapped]:
    """Where a file's data is, in order; holes are left out. Dirty pages are written first. Raises OSError."""
    at = 0
    while True:
        request = bytearray(_FIEMAP.size + _BATCH * _FIEMAP_EXTENT.size)
        _FIEMAP.pack_into(request, 0, at, (1 << 64) - 1 - at, _FIEMAP_FLAG_SYNC, 0, _BATCH, 0)
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, request)
        count = _FIEMAP.unpack_from(request)[3]
        if count == 0:
            return
        for n in range(count):
            start, place, length, _, _, flags, *_ = _FIEMAP_EXTENT.unpack_from(
                request, _FIEMAP.size + n * _FIEMAP_EXTENT.size
            )
            known = not flags & _NO_PLACE
            yield Mapped(start, length, place if known else None, not flags & _UNWRITTEN)
            at = start + length
            if flags & _LAST:
                return


def write_out(fd: int) -> bool:
    """Have what is dirty of a file written, and wait until the disk has it, perhaps in its cache. Raises OSError.

    False where nobody does that.
    """
    request = bytearray(_FIEMAP.size)
    _FIEMAP.pack_into(request, 0, 0, 1, _FIEMAP_FLAG_SYNC, 0, 0, 0)
    return _fiemap(fd, request)


def count_extents(fd: int) -> int | None:
    """How many extents a file has; a clone of it takes that many steps. None where nobody tells, as over NFS.

    Raises OSError.
    """
    request = bytearray(_FIEMAP.size)
    _FIEMAP.pack_into(request, 0, 0, (1 << 64) - 1, 0, 0, 0, 0)
    count: int | None = _FIEMAP.unpack_from(request)[3] if _fiemap(fd, request) else None
    return count


def _fiemap(fd: int, request: bytearray) -> bool:
    """False where nobody tells."""
    try:
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, request)
    except OSError as e:
        if e.errno in _CANNOT_TELL:
            return False
        raise
    return True


def hint_cow_extents(fd: int, size: int) -> bool:
    """Ask for `size` bytes at a time when shared extents are written. False where there is no such hint."""
    try:
        request = bytearray(_FSXATTR.size)
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, request)
        flags, extent, extents_now, project, _, rest = _FSXATTR.unpack(request)
        wanted = _FSXATTR.pack(flags | _XFLAG_COWEXTSIZE, extent, extents_now, project, size, rest)
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, wanted)
    except OSError as e:
        if e.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


def require_sharing(folder: Path) -> None:
    """Try it once with a file of one block. Raises EnvironmentFault saying what would do."""
    names = [folder / f".tmp-sharing-{secrets.token_hex(4)}" for _ in range(2)]
    try:
        fds = [os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600) for name in names]
        try:
            os.write(fds[0], b"\1" * 65536)
            clone_file(fds[0], fds[1])
        finally:
            for fd in fds:
                os.close(fd)
    except OSError as e:
        if e.errno in CANNOT_SHARE:
            raise EnvironmentFault(
                f"the file system at {folder} cannot share extents between files; use XFS (reflink=1, its default) "
                "or NFS 4.2 over it, or let `snf-store init` make an XFS image"
            ) from e
        raise EnvironmentFault(f"{folder} cannot be used for volumes: {e.strerror}") from e
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(name)
