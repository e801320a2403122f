"""Which processes of this node have a file or a device open."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Collection, Iterator
from typing import Final

_F_OFD_GETLK: Final = 36
_FLOCK: Final = struct.Struct("hhqqi4x")


def is_locked(fd: int) -> bool:
    """Whether anybody, on whichever node, holds a lock on a part of this open file, as QEMU does with its images."""
    answer = fcntl.fcntl(fd, _F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def processes_with(*found: os.stat_result, without: Collection[int] = ()) -> list[str]:
    """This node's processes, without our own, that have one of these open: "qemu-system-x86 (pid 123)"."""
    return sorted(set(_walk({_identity(one) for one in found}, {os.getpid(), *without})))


def callers() -> frozenset[int]:
    """The processes that wait for us: our parent, its parent, and so on."""
    found: list[int] = [os.getppid()]
    while found[-1] > 1:
        with open(f"/proc/{found[-1]}/stat", encoding="utf-8", errors="replace") as file:
            # The second field is a name, in parentheses, which may have blanks and parentheses in it.
            found.append(int(file.read().rpartition(")")[2].split()[1]))
    return frozenset(found)


def _walk(wanted: set[tuple[int, int]], without: Collection[int]) -> Iterator[str]:
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) in without:
            continue
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if _identity(os.stat(f"/proc/{pid}/fd/{fd}")) in wanted:
                    yield f"{_name(pid)} (pid {pid})"
                    break
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES, errno.ENOTDIR):
                raise


def _identity(found: os.stat_result) -> tuple[int, int]:
    """A device is what its number says, whichever of its nodes was opened."""
    is_device = found.st_rdev != 0
    return (-1, found.st_rdev) if is_device else (found.st_dev, found.st_ino)


def _name(pid: str) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
