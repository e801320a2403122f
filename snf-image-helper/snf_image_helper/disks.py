"""The VM's disks, found by their virtio serial, never by a letter; and the kernel told of new partitions.

There is no udevd in the VM: names are those of /sys, and pyudev listens to the kernel's own uevents. It is imported
only where a table was rewritten, because that takes a quarter of a second where there is no KVM.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from snf_image_helper.syscalls import BLKFLSBUF, BLKRRPART
from synnefo_light.errors import EnvironmentFault

SETTLE_S = 10.0
SYS = Path("/sys/block")
DEV = Path("/dev")


class Disks:
    """The block devices that the host handed over."""

    def __init__(self) -> None:
        self._by_serial: dict[str, Path] = {}
        for folder in sorted(SYS.iterdir()):
            with contextlib.suppress(OSError):  # a disk of a kind that has no serial
                serial = (folder / "serial").read_text("ascii", "replace").strip()
                if serial:
                    self._by_serial[serial] = folder

    def node(self, serial: str) -> str:
        """The device node of a whole disk: /dev/vda. Raises EnvironmentFault when the host gave no such disk."""
        if serial not in self._by_serial:
            given = ", ".join(sorted(self._by_serial)) or "none"
            raise EnvironmentFault(f"the host handed over no disk {serial}; the VM sees {given}")
        return str(DEV / self._by_serial[serial].name)

    def partition_node(self, serial: str, number: int | None) -> str:
        """The device node of a partition, or of the whole disk. Raises EnvironmentFault if the kernel sees none."""
        if number is None:
            return self.node(serial)
        self.node(serial)  # for its sentence about a disk that is not there
        found = {n: str(DEV / folder.name) for n, folder in self._partitions(serial).items()}
        if number not in found:
            raise EnvironmentFault(f"the kernel sees no partition {number} on {serial}, only {sorted(found) or 'none'}")
        return found[number]

    def reread(self, serial: str, *, expected: dict[int, int]) -> None:
        """Let the kernel read the partition table again, and wait until it shows `expected`: number -> sectors."""
        import pyudev  # type: ignore[import-untyped]

        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        monitor.filter_by("block", "partition")
        monitor.start()
        with open(self.node(serial), "rb") as disk:
            fcntl.ioctl(disk, BLKRRPART)
        deadline = time.monotonic() + SETTLE_S
        while (seen := self._sizes(serial, expected)) != expected:
            left = deadline - time.monotonic()
            if left <= 0:
                raise EnvironmentFault(f"the kernel sees the partitions {seen} on {serial}, {expected} were written")
            monitor.poll(timeout=left)

    def rescan(self, serial: str) -> None:
        """Let the kernel look for partitions on a disk that was just written; it may find none."""
        with open(self.node(serial), "rb") as disk:
            fcntl.ioctl(disk, BLKRRPART)

    def size(self, serial: str) -> int:
        """Bytes of a whole disk."""
        return size_of_node(self.node(serial))

    def flush(self, serial: str) -> None:
        """All that was written to this disk is on it, and nothing of it is cached, when this returns."""
        node = self.node(serial)
        with explained(node, "written"):
            fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(fd)
                fcntl.ioctl(fd, BLKFLSBUF)
            finally:
                os.close(fd)

    def _partitions(self, serial: str) -> dict[int, Path]:
        """The folders in /sys of the partitions that the kernel sees now, by number."""
        return {
            int((child / "partition").read_text()): child
            for child in self._by_serial[serial].iterdir()
            if (child / "partition").exists()
        }

    def _sizes(self, serial: str, numbers: Iterable[int]) -> dict[int, int]:
        """Sectors of these partitions."""
        found = self._partitions(serial)
        return {number: int((found[number] / "size").read_text()) for number in numbers if number in found}


@contextlib.contextmanager
def explained(node: str, act: str) -> Iterator[None]:
    """What the kernel says of a disk that fails, as a sentence: EnvironmentFault for OSError."""
    try:
        yield
    except OSError as e:
        raise EnvironmentFault(
            f"a disk that the node gave to the helper VM ({node} there) cannot be {act}: {e.strerror}; "
            "look into the node's kernel log and at the storage of the disk and of the image"
        ) from e


@contextlib.contextmanager
def reading(node: str) -> Iterator[Callable[[int, int], bytes]]:
    """Bytes of a device, by offset and length; fewer at its end. Raises EnvironmentFault."""
    with explained(node, "read"):
        fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)

    def read(offset: int, length: int) -> bytes:
        with explained(node, "read"):
            return os.pread(fd, length, offset)

    try:
        yield read
    finally:
        os.close(fd)


def size_of_node(node: str) -> int:
    """Bytes of a device."""
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def read_node(node: str, offset: int, length: int) -> bytes:
    """As `reading`, once."""
    with reading(node) as read:
        return read(offset, length)


def write_node(node: str, offset: int, data: bytes) -> None:
    """Write and make durable. Raises EnvironmentFault, also when what is read back differs."""
    with explained(node, "written"):
        fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        try:
            written = os.pwrite(fd, data, offset)
            os.fsync(fd)
            fcntl.ioctl(fd, BLKFLSBUF)
            back = os.pread(fd, len(data), offset)
        finally:
            os.close(fd)
    if written != len(data) or back != data:
        raise EnvironmentFault(f"{len(data)} bytes written at {offset} of the disk do not read back the same")
