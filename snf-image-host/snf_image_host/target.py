"""The instance's disk, as bytes to be overwritten: a regular file or a block device. It is never read or probed.

Zeros are made without writing them where that is possible, and written where not, so that nothing of what was there
before stays inside a range that is zeroed:

    file            fallocate(PUNCH_HOLE)                                    else zeros are written
    block device    fallocate(PUNCH_HOLE), which the kernel allows only      else BLKZEROOUT, else zeros are written
                    where discarded blocks read as zeros (since Linux 4.9)
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from synnefo_light.errors import EnvironmentFault
from synnefo_light.units import MIB, human

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02  # <linux/falloc.h>
_BLKZEROOUT = 0x127F  # <linux/fs.h>: _IO(0x12, 127), argument uint64_t[2]
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EPERM)
_ZEROS: Final = bytes(MIB)
STEP: Final = 1 << 30  # of one request to zero: a signal is heard between two
END: Final = MIB  # what is wiped at either end: partition tables, boot code, the backup of a GPT

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class DiskTarget(Protocol):
    """A disk that is being written, whatever is behind it. `path` is what messages call it."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    def write(self, data: memoryview, offset: int) -> None: ...

    def zero(self, start: int, end: int) -> None: ...

    def clear(self) -> bool: ...

    def erase(self) -> None: ...

    def wipe_ends(self) -> None: ...

    def sync(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A file or a block device of this node."""

    fd: int
    path: Path
    size: int  # bytes
    block: bool

    def write(self, data: memoryview, offset: int) -> None:
        """All of `data` at `offset`. Raises EnvironmentFault, for one when the node's disk is full."""
        while data:
            try:
                count = os.pwrite(self.fd, data, offset)
            except OSError as e:
                raise EnvironmentFault(f"writing {self.path} at byte {offset}: {e.strerror}") from e
            data, offset = data[count:], offset + count

    def zero(self, start: int, end: int) -> None:
        """Make the bytes from `start` to `end` zeros."""
        if start >= end or self._punched(start, end):
            return
        while start < end:
            count = min(end - start, len(_ZEROS))
            self.write(memoryview(_ZEROS)[:count], start)
            start += count

    def clear(self) -> bool:
        """Make a whole file one hole, if its file system can; False: nothing was done (always on block devices)."""
        return not self.block and self._punched(0, self.size)

    def erase(self) -> None:
        """Make all of it zeros, so that nothing of what was there is left for whoever writes only data onto it."""
        for start in range(0, 0 if self.clear() else self.size, STEP):
            self.zero(start, min(start + STEP, self.size))

    def wipe_ends(self) -> None:
        """Zero the first and the last MiB, durably: what is left cannot be booted."""
        self.zero(0, min(END, self.size))
        self.zero(max(0, self.size - END), self.size)
        self.sync()

    def sync(self) -> None:
        try:
            os.fsync(self.fd)
        except OSError as e:
            raise EnvironmentFault(f"{self.path} could not be made durable: {e.strerror}") from e

    def _punched(self, start: int, end: int) -> bool:
        if _libc.fallocate(self.fd, _PUNCH_HOLE | _KEEP_SIZE, start, end - start) == 0:
            return True
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise EnvironmentFault(f"zeroing {self.path} from byte {start}: {os.strerror(code)}")
        if not self.block:
            return False
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, _BLKZEROOUT, start.to_bytes(8, "little") + (end - start).to_bytes(8, "little"))
            return True
        return False


@contextlib.contextmanager
def open_target(path: Path, *, size: int | None, readonly: bool = False) -> Iterator[Target]:
    """The disk at `path`, of at least `size` bytes if Ganeti said so. Raises EnvironmentFault.

    A block device is opened exclusively (refused while it is mounted or in use) and locked, so that udev, which takes
    the same lock before it probes, leaves it alone as long as it is open.
    """
    flags = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # stat first: opening a device of another kind may already do something.
        mode = path.stat().st_mode
        if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
            raise EnvironmentFault(f"the disk {path} is neither a file nor a block device")
        fd = os.open(path, flags | (os.O_EXCL if stat.S_ISBLK(mode) and not readonly else 0))
    except OSError as e:
        why = "it is mounted or in use" if e.errno == errno.EBUSY else e.strerror
        raise EnvironmentFault(f"the disk {path} cannot be opened: {why}") from e
    try:
        found = os.fstat(fd)
        block = stat.S_ISBLK(found.st_mode)
        if not block and not stat.S_ISREG(found.st_mode):
            raise EnvironmentFault(f"the disk {path} is neither a file nor a block device")
        if block and not readonly:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        real = os.lseek(fd, 0, os.SEEK_END) if block else found.st_size
        if size is not None and real < size:
            raise EnvironmentFault(
                f"the disk {path} has {real} bytes, though Ganeti says {human(size)}; is the storage damaged?"
            )
        yield Target(fd=fd, path=path, size=real, block=block)
    finally:
        os.close(fd)
