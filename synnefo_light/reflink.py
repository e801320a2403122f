"""Files that share extents: ioctl_ficlone(2) and ioctl_ficlonerange(2).

A clone shares every extent with its source until one of them is written, and the file system keeps count.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from typing import Final

FICLONE: Final = 0x40049409
FICLONERANGE: Final = 0x4020940D

#: struct file_clone_range: the source, where in it, how long, where in the target.
_RANGE = struct.Struct("=qQQQ")

#: What the kernel says where two files, or this range of them, cannot share.
CANNOT_SHARE: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EISDIR, errno.EPERM}
)


def clone_file(source: int, target: int) -> None:
    """Make the whole of `target` share the extents of `source`; both are open files. Raises OSError."""
    fcntl.ioctl(target, FICLONE, source)


def clone_range(source: int, start: int, length: int, target: int, at: int) -> None:
    """The same for a range; aligned to the file system's blocks, unless it ends where `source` ends. Raises OSError."""
    fcntl.ioctl(target, FICLONERANGE, _RANGE.pack(source, start, length, at))
