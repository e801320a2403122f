"""The folder in which all nodes keep volumes and the store, on a file system that can share extents.

    STATE/run/volumes        plain, where the state directory's own file system can share extents; else a mount point
    STATE/run/volumes.xfs    of this image: sparse, and thin as images are

Nodes see it where snf-extstorage looks for it. Loop devices on it are the kernel's, not a node's: each has its node's
tag, by which it goes when the node's power is cut.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from snf_lab import fabric, mounts, nspawn
from snf_lab.state import State
from synnefo_light.errors import EnvironmentFault, ToolError
from synnefo_light.run import Runner

#: Of the image; less where less is free, for an image that outgrows its disk stops every guest.
SIZE = 64 << 30
LEAST = 4 << 30

_LOOP_GET_STATUS64 = 0x4C05
_STATUS = struct.Struct("=QQQQQIIII64s64s32s2Q")  # loop(4), struct loop_info64
_FILE_NAME = 9


def make_folder(state: State, runner: Runner) -> str:
    """Make it and say on what; "" when it is there. Raises EnvironmentFault where no file system can share extents."""
    folder = state.volumes
    if mounts.is_mounted(folder) or (folder / "FORMAT").exists():
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    if _shares_extents(folder, runner):
        return f"volumes lie in {folder}, whose file system can share extents"
    image = state.run / "volumes.xfs"
    try:
        if not image.exists():
            _make_image(image, runner)
        runner(["mount", "-o", "loop", image, folder], timeout_s=60)
    except ToolError as e:
        raise EnvironmentFault(
            f"volumes need a file system that can share extents, {state.run} is on none, and XFS cannot be had: {e}; "
            f"use ./lab up --storage rados, or set SNF_LAB_STATE to a folder on XFS or Btrfs"
        ) from e
    return f"volumes lie on an XFS image, for the file system of {state.run} cannot share extents"


def bind(state: State) -> nspawn.Bind:
    return nspawn.Bind(source=state.volumes, target=nspawn.VOLUMES, writable=True)


def plan_size(free: int) -> int:
    """Bytes of the image on a disk with so many free. Raises EnvironmentFault."""
    size = min(SIZE, free * 9 // 10 & -(1 << 20))
    if size < LEAST:
        raise EnvironmentFault(f"the lab's volumes need {LEAST >> 30} GiB of disk, but {free >> 20} MiB are free")
    return size


def _make_image(image: Path, runner: Runner) -> None:
    found = os.statvfs(image.parent)
    making = image.with_suffix(".making")
    with open(making, "wb") as file:
        file.truncate(plan_size(found.f_bavail * found.f_frsize))
    runner(["mkfs.xfs", "-q", "-f", "-m", "reflink=1", making], timeout_s=120)
    making.rename(image)


def _shares_extents(folder: Path, runner: Runner) -> bool:
    one, other = folder / ".probe", folder / ".probe.clone"
    try:
        one.write_bytes(bytes(4096))
        return runner(["cp", "--reflink=always", one, other], ok=range(256), timeout_s=20).returncode == 0
    finally:
        one.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def detach_loops(state: State, number: int, runner: Runner) -> None:
    """Take away the loop devices that node `number` of this lab made on volumes: a power cut does."""
    for loop in loops_on(state, mounts.read_loops(runner)):
        if parse_tag(_file_name(loop.device)) == tag(number):
            release(loop.device, runner)


def loops_on(state: State, loops: Iterable[mounts.Loop]) -> list[mounts.Loop]:
    """Those on this lab's volumes. Nodes of two labs have the same tags, so the file behind a device has to say whose.

    In a plain folder it is one of ours, or nobody's any more: a take-over leaves the loser such a file.
    """
    folder = state.volumes
    if not folder.exists():
        return []
    place = _device(folder.stat())
    on_it = [loop for loop in loops if loop.file_device == place]
    if mounts.is_mounted(folder):
        return on_it
    files = {(Path(top) / name).lstat().st_ino for top, _, names in os.walk(folder) for name in names}
    gone = f"{nspawn.VOLUMES}/"
    return [
        loop
        for loop in on_it
        if loop.file_inode in files or (loop.file.startswith(gone) and loop.file.endswith(" (deleted)"))
    ]


def _device(found: os.stat_result) -> tuple[int, int]:
    return os.major(found.st_dev), os.minor(found.st_dev)


def release(device: Path, runner: Runner) -> None:
    """Detach a loop device, and let its number be written to again: that is kept by number."""
    runner(["blockdev", "--setrw", device], timeout_s=20)
    runner(["losetup", "--detach", device], timeout_s=20)


def tag(number: int) -> str:
    """How snf-extstorage calls a node in the file names of its loop devices."""
    return hashlib.sha256(fabric.node_name(number).encode()).hexdigest()[:16]


def parse_tag(name: bytes) -> str:
    """The node's tag in `lo_file_name`, "snf:NODE:VOLUME"; "" when the device is not of snf-extstorage."""
    parts = name.rstrip(b"\0").split(b":")
    return parts[1].decode("ascii", "replace") if len(parts) == 3 and parts[0] == b"snf" else ""


def _file_name(device: Path) -> bytes:
    try:
        with open(device, "rb") as file:
            raw = fcntl.ioctl(file, _LOOP_GET_STATUS64, bytes(_STATUS.size))
    except OSError:  # gone meanwhile, or backed by nothing
        return b""
    name: bytes = _STATUS.unpack(raw)[_FILE_NAME]
    return name
