"""The system calls that Python's os module has not: openat2, mount, umount2, reboot; and crypt(3).

Numbers and structures are those of Linux on x86-64, the only machine the helper VM is.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache

SYS_OPENAT2, SYS_FINIT_MODULE = 437, 313
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x01, 0x02, 0x10  # <linux/openat2.h>
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, MS_MOVE = 1, 2, 4, 8, 1024, 8192
MS_REMOUNT, MS_BIND = 32, 4096
MNT_DETACH = 2
SYS_PIVOT_ROOT = 155
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
RB_POWER_OFF = 0x4321FEDC
BLKRRPART, BLKFLSBUF = 0x125F, 0x1261


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL("libc.so.6", use_errno=True)


def openat2(folder: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """openat2(2). Raises OSError with `path` as its file name."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    # The path goes as bytes that fsencode makes, so that names which are not UTF-8 work too.
    fd: int = _libc().syscall(SYS_OPENAT2, folder, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    return _checked(fd, path)


def mount(source: str, target: str, kind: str, *, flags: int, options: str = "") -> None:
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _checked(_libc().mount(*arguments), source)


def umount(target: str) -> None:
    _checked(_libc().umount2(os.fsencode(target), 0), target)


def load_module(path: str) -> None:
    """finit_module(2). One that is loaded already is no error."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc().syscall(SYS_FINIT_MODULE, fd, b"", 0), path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)


def pivot_root(new_root: str, put_old: str) -> None:
    _checked(_libc().syscall(SYS_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old)), new_root)


def detach(target: str) -> None:
    """Take a mount and all below it away, though it is in use."""
    _checked(_libc().umount2(os.fsencode(target), MNT_DETACH), target)


def drop_capability(number: int) -> None:
    """Out of the bounding set: no program started from here can have it. A number the kernel does not know is none."""
    try:
        _checked(_libc().prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0), f"capability {number}")
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise


def no_new_privileges() -> None:
    _checked(_libc().prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "no_new_privs")


def power_off() -> None:
    """Does not return on success. The caller has written what must be written: this does not sync."""
    _checked(_libc().reboot(RB_POWER_OFF), "reboot")


def crypt(password: str, *, prefix: str, rounds: int, random: bytes) -> str:
    """crypt(3) of libxcrypt with a salt that it makes from `random`. Raises OSError when the method is not known."""
    library = ctypes.CDLL("libcrypt.so.1", use_errno=True)
    library.crypt_gensalt.restype = library.crypt.restype = ctypes.c_char_p
    salt = library.crypt_gensalt(prefix.encode(), ctypes.c_ulong(rounds), random, len(random))
    hashed: bytes | None = library.crypt(password.encode(), salt) if salt else None
    if not hashed or hashed.startswith(b"*"):
        raise OSError(ctypes.get_errno(), "libcrypt does not know this method", prefix)
    return hashed.decode("ascii")


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result
