"""Loop devices of this node: found again by the file behind them *and* by our node's name in them.

Loop devices belong to a kernel, not to a node: nodes that share one (a lab of containers) see each other's. So each of
ours carries a tag in `lo_file_name`, which loop(4) leaves to whoever sets it up, and one with another tag is not ours
even if the file is the same. A map in /run makes finding quick; it is a hint and each answer is checked.

    ATTACH  LOOP_CTL_GET_FREE ─► claim, shut ─► LOOP_CONFIGURE (commit point: file, tag, direct I/O) ─► hint in /run
    DETACH  LOOP_CLR_FD ─► still bound? somebody holds it: take back the "clear when closed", refuse

A crash after the commit point leaves a device without a hint; the next attach or detach finds it by looking at all.

Whether a device may be written (`let_write`) is kept by its number, not by what is behind it. So a number is shut
before anything is behind it, while we hold the claim (O_EXCL) without which nobody else can bind it; and it is let go
open. A number that losetup(8) took from us stays shut until the next attach or detach of its volume (`forget`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synnefo_light.errors import EnvironmentFault
from synnefo_light.log import logger

_LOOP_CLR_FD = 0x4C01
_LOOP_SET_STATUS64 = 0x4C04
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_ADD = 0x4C80
_LOOP_CTL_GET_FREE = 0x4C82
_BLKROSET = 0x125D
_BLKROGET = 0x125E
_BLKFLSBUF = 0x1261

_INT = struct.Struct("=i")
_INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")
_CONFIG_HEAD = struct.Struct("=II")
_CONFIG_SIZE = _CONFIG_HEAD.size + _INFO.size + 64
_AUTOCLEAR = 4
_DIRECT_IO = 16
_SECTOR = 512

BLOCK = Path("/sys/block")

#: Others take devices too; each round asks the kernel for another free one.
_ROUNDS = 64
#: udev and the like look into a device for a moment whenever something happens to it.
_MOMENT_S = 2.0


@dataclass(frozen=True, slots=True)
class Loop:
    number: int

    @property
    def path(self) -> str:
        return f"/dev/loop{self.number}"


@dataclass(frozen=True, slots=True)
class _Status:
    device: int
    inode: int
    flags: int
    tag: bytes


class Loops:
    """The loop devices of one node. `hints` is a folder that is empty after a boot."""

    def __init__(self, node: str, hints: Path) -> None:
        self._node = node
        self._hints = hints

    def find(self, name: str, file: os.stat_result) -> Loop | None:
        """Our device on this file, if there is one."""
        for loop in self._candidates(name):
            status = _status(loop)
            if status and status.tag == self._tag(name) and _same(status, file):
                return loop
        return None

    def named(self, name: str) -> list[Loop]:
        """Our devices that were made for a volume of this name, whatever file is behind them."""
        tag = self._tag(name)
        return [loop for loop in dict.fromkeys(self._candidates(name)) if (s := _status(loop)) and s.tag == tag]

    def attach(self, name: str, fd: int) -> Loop:
        """A new device on this open file, which refuses writes until `let_write`. Raises EnvironmentFault."""
        for _ in range(_ROUNDS):
            loop = _free()
            if self._configure(name, loop, fd):
                self._remember(name, loop)
                return loop
        raise EnvironmentFault(f"no free loop device could be had for volume {name} in {_ROUNDS} attempts")

    @contextlib.contextmanager
    def gate(self, name: str) -> Iterator[None]:
        """Hold what this node does with the devices of a volume, and whether they may be written. Blocks.

        No other node ever waits for it: it is in /run, and goes with the process.
        """
        path = self._hints / f".gate-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        try:
            self._hints.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise EnvironmentFault(f"{path}, which guards the devices of volume {name}: {e.strerror}") from e
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def forget(self, name: str) -> None:
        """Let go of the number that we remember, if somebody else cleared the device: it would stay shut for them."""
        loop = self._remembered(name)
        with contextlib.suppress(OSError):
            if loop is not None:
                with _opened(loop, os.O_EXCL) as device:
                    if not _is_bound(device):
                        fcntl.ioctl(device, _BLKROSET, _INT.pack(0))
                        os.unlink(self._hints / name)

    def move(self, name: str, loop: Loop, fd: int) -> bool:
        """Put a device of ours on another file; False if somebody holds it: then it is as it was."""
        return self.detach(name, loop) and self._configure(name, loop, fd)

    def _tag(self, name: str) -> bytes:
        """At most 63 bytes, so names go in as hashes; losetup shows the file, which says enough."""
        node, volume = (hashlib.sha256(text.encode()).hexdigest() for text in (self._node, name))
        return f"snf:{node[:16]}:{volume[:32]}".encode()

    def detach(self, name: str, loop: Loop) -> bool:
        """False if somebody holds it: then it is as it was. True if it is gone."""
        deadline = time.monotonic() + _MOMENT_S
        while not self._clear(name, loop):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._hints / name)
        return True

    def _clear(self, name: str, loop: Loop) -> bool:
        tag = self._tag(name)
        try:
            with _opened(loop) as device:
                before = _read_info(device)
                if _parse(before).tag != tag:
                    return True  # gone already, and given to somebody else
                closed = bytearray(4)
                fcntl.ioctl(device, _BLKROGET, closed)
                fcntl.ioctl(device, _BLKROSET, _INT.pack(0))  # or the number's next user inherits it
                fcntl.ioctl(device, _LOOP_CLR_FD)
        except OSError as e:
            if e.errno in (errno.ENXIO, errno.ENODEV, errno.ENOENT):
                return True
            raise EnvironmentFault(f"{loop.path} could not be cleared: {e.strerror}") from e
        after = _status(loop)
        if after is None or after.tag != tag:
            return True
        # Held by others: the kernel would wait until they close, and clear it then. It was asked for too early.
        with contextlib.suppress(OSError), _opened(loop) as device:
            fcntl.ioctl(device, _BLKROSET, bytes(closed))
            fcntl.ioctl(device, _LOOP_SET_STATUS64, before)
        return False

    def _configure(self, name: str, loop: Loop, fd: int) -> bool:
        """False when another process was quicker."""
        _make_node(loop)
        info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _DIRECT_IO, self._tag(name), b"", b"", 0, 0)
        try:
            with _opened(loop, os.O_EXCL) as device:
                if _is_bound(device):
                    return False
                fcntl.ioctl(device, _BLKROSET, _INT.pack(1))
                try:
                    fcntl.ioctl(device, _LOOP_CONFIGURE, (_CONFIG_HEAD.pack(fd, 0) + info).ljust(_CONFIG_SIZE, b"\0"))
                except OSError:
                    fcntl.ioctl(device, _BLKROSET, _INT.pack(0))
                    raise
                status = _parse(_read_info(device))
        except OSError as e:
            if e.errno in (errno.EBUSY, errno.ENXIO):
                return False
            raise EnvironmentFault(f"{loop.path} could not be given to volume {name}: {e.strerror}") from e
        if not status.flags & _DIRECT_IO:
            logger.warning("volume=%s device=%s goes through the page cache: no direct I/O there", name, loop.path)
        return True

    def _candidates(self, name: str) -> list[Loop]:
        """The device that /run names first, then every one that is bound."""
        remembered = self._remembered(name)
        found = [remembered] if remembered is not None else []
        numbers = [int(name[4:]) for name in os.listdir(BLOCK) if name.startswith("loop")]
        found += [Loop(n) for n in sorted(numbers) if _bound(n)]
        return found

    def _remembered(self, name: str) -> Loop | None:
        with contextlib.suppress(OSError, ValueError):
            return Loop(int((self._hints / name).read_text()))
        return None

    def _remember(self, name: str, loop: Loop) -> None:
        """A hint need not be durable, and one that cannot be written costs the next call some milliseconds."""
        try:
            self._hints.mkdir(parents=True, exist_ok=True)
            (self._hints / name).write_text(str(loop.number))
        except OSError as e:
            logger.warning("volume=%s hint %s: %s", name, self._hints / name, e.strerror)


def update_size(loop: Loop, size: int) -> None:
    """Take over the size of the file, which is this; nothing is told to anybody where it is so. Raises OSError."""
    with _opened(loop) as device:
        if os.lseek(device, 0, os.SEEK_END) != size // _SECTOR * _SECTOR:
            fcntl.ioctl(device, _LOOP_SET_CAPACITY)


def forget_pages(loop: Loop) -> None:
    """Drop what this node cached of the device: another node may have written the file. Raises OSError."""
    with _opened(loop) as device:
        fcntl.ioctl(device, _BLKFLSBUF)


def _same(status: _Status, file: os.stat_result) -> bool:
    return (status.device, status.inode) == (file.st_dev, file.st_ino)


def let_write(loop: Loop, allowed: bool) -> None:
    """Writes fail with EPERM while not allowed, also those of a process that has the device open. Raises OSError."""
    with _opened(loop) as device:
        fcntl.ioctl(device, _BLKROSET, _INT.pack(not allowed))


@contextlib.contextmanager
def _opened(loop: Loop, flags: int = 0) -> Iterator[int]:
    fd = os.open(loop.path, os.O_RDWR | os.O_CLOEXEC | flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _read_info(device: int) -> bytes:
    info = bytearray(_INFO.size)
    fcntl.ioctl(device, _LOOP_GET_STATUS64, info)
    return bytes(info)


def _is_bound(device: int) -> bool:
    try:
        _read_info(device)
    except OSError as e:
        if e.errno == errno.ENXIO:
            return False
        raise
    return True


def _parse(info: bytes) -> _Status:
    device, inode, *_, flags, name, _, _, _, _ = _INFO.unpack(info)
    return _Status(device, inode, flags, name.rstrip(b"\0"))


def _status(loop: Loop) -> _Status | None:
    try:
        with _opened(loop) as device:
            return _parse(_read_info(device))
    except OSError:
        return None  # not bound, or no node of that number here: a device of another node's


def _bound(number: int) -> bool:
    return (BLOCK / f"loop{number}" / "loop" / "backing_file").exists()


def _free() -> Loop:
    """A free device that is not number 0, which Ganeti takes for "not attached"."""
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        raise EnvironmentFault(f"/dev/loop-control: {e.strerror}; load the kernel module loop") from e
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        if number == 0:
            number = next(n for n in itertools.count(1) if not _bound(n))
            if not (BLOCK / f"loop{number}").exists():
                fcntl.ioctl(control, _LOOP_CTL_ADD, number)
    except OSError as e:
        raise EnvironmentFault(f"the kernel has no free loop device: {e.strerror}") from e
    finally:
        os.close(control)
    return Loop(number)


def _make_node(loop: Loop) -> None:
    """In a container /dev is its own and has no node for a device that the kernel has just added."""
    if not Path(loop.path).exists():
        with contextlib.suppress(FileExistsError):
            os.mknod(loop.path, 0o660 | 0o060000, os.makedev(7, loop.number))
