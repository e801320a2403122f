"""`snf-image run`: deploy onto files or block devices of this node, with the same code as `create`, without Ganeti."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from snf_image_host import instance
from snf_image_host.commands import Out
from snf_image_host.commands.plan import plan, show
from snf_image_host.create import create
from snf_image_host.settings import Settings
from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.log import escape
from synnefo_light.units import MIB, human

NAME: Final = "run"
SUMMARY: Final = "deploy an image onto a file or a block device of this node, without Ganeti"
REMEDY: Final = "mend that and run this again"
LOOPS: Final = Path("/sys/block")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--disk", action="append", required=True, metavar="FILE", help="disk 0, then disk 1, ...: a file or a device"
    )
    instance.add_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, as plan does")
    parser.add_argument("--json", action="store_true", help="with --dry-run: one JSON object")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    disks = free_disks(arguments.disk)
    env = instance.environment(arguments, disks)
    if arguments.dry_run:
        show(plan(env, settings, tuple(disk.size for disk in disks)), out, json=arguments.json)
        return 0
    if os.geteuid() != 0:
        raise EnvironmentFault(
            "a deployment starts the helper VM as another user, which only root may; run this as root, "
            "or see what would be done with --dry-run"
        )
    finished = create(env, settings, remedy=REMEDY)
    out(
        f"{env.instance}: deployed in {finished.total_ms / 1000:.1f} s: {human(finished.copied)} written in "
        f"{finished.copy_ms / 1000:.1f} s, helper VM {finished.helper_ms / 1000:.1f} s ({finished.accel})"
    )
    return 0


def free_disks(words: Sequence[str]) -> list[instance.Disk]:
    """Each disk, as `free_disk`. Raises UserError for one that stands twice, whatever its names."""
    disks: list[instance.Disk] = []
    for word in words:
        try:
            disk = free_disk(Path(word).resolve())
        except RuntimeError:  # of Python before 3.13, for a link that leads to itself
            raise UserError(f"--disk {escape(word)} is a symbolic link that leads to itself") from None
        if any(disk.path.samefile(other.path) for other in disks):
            raise UserError(f"--disk {disk.path} is given twice; give each disk a file of its own")
        disks.append(disk)
    return disks


def free_disk(path: Path) -> instance.Disk:
    """The disk at `path` and its size. Raises UserError when it is none, EnvironmentFault when somebody uses it.

    No byte of it is read; a block device is opened exclusively, which the kernel refuses while it is in use.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise UserError(f"--disk {path} is neither a file nor a block device")
        block = stat.S_ISBLK(mode)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_EXCL if block else 0))
    except FileNotFoundError:
        raise UserError(f"--disk {path} is not there; make it with: truncate -s 10G {path}") from None
    except OSError as e:
        if e.errno == errno.EBUSY:
            raise EnvironmentFault(
                f"--disk {path} is in use: mounted, part of another device, or open exclusively"
            ) from e
        raise UserError(f"--disk {path} cannot be opened to be written: {e.strerror}") from e
    try:
        _check_locks(fd, path)
        if not block:
            _check_loops(path)
        size = os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)
    if size < MIB:
        raise UserError(f"--disk {path} has {size} bytes; a disk has at least {MIB}")
    return instance.Disk(path=path, size=size)


def _check_locks(fd: int, path: Path) -> None:
    """Raises EnvironmentFault for a disk that QEMU has locked; it opens block devices without keeping others out."""
    # struct flock of <fcntl.h>: type, whence, start, length (0: to the end), process.
    asked = struct.pack("hhxxxxqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    if struct.unpack("hhxxxxqqixxxx", found)[0] != fcntl.F_UNLCK:
        raise EnvironmentFault(f"--disk {path} is in use: another process, probably QEMU, holds a lock on it")


def _check_loops(path: Path) -> None:
    """Raises EnvironmentFault for a file that a loop device shows."""
    for name in LOOPS.glob("loop*/loop/backing_file"):
        try:
            backing = name.read_text().rstrip("\n")
            same = Path(backing).samefile(path)
        except OSError:
            continue
        if same:
            raise EnvironmentFault(f"--disk {path} is in use: the loop device {name.parts[3]} shows it")
