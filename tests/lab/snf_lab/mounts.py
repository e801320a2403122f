"""What the kernel says is mounted and looped, as far as a lab has to clean it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from synnefo_light.run import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    point: Path
    kind: str
    device: tuple[int, int]  # major, minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop device that is in use, and the file behind it, by name and by identity."""

    device: Path
    file: str
    file_device: tuple[int, int]
    file_inode: int


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """/proc/self/mountinfo (proc(5)), in mount order; blanks in paths are octal escapes there."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        major, minor = fields[2].split(":")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        found.append(Mount(point=Path(point), kind=fields[fields.index("-") + 1], device=(int(major), int(minor))))
    return tuple(found)


def read_mounts() -> tuple[Mount, ...]:
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text())


def is_mounted(point: Path) -> bool:
    return any(mount.point == point for mount in read_mounts())


def plan_unmounts(mounts: Iterable[Mount], below: Path) -> tuple[Path, ...]:
    """The mount points at or below a folder, last mounted first, so that each is free when its turn comes."""
    return tuple(mount.point for mount in reversed(tuple(mounts)) if mount.point.is_relative_to(below))


def parse_loops(text: str) -> tuple[Loop, ...]:
    """`losetup --json --list --output NAME,BACK-FILE,BACK-MAJ:MIN,BACK-INO`; it prints nothing when there are none."""
    if not text.strip():
        return ()
    found = []
    for entry in json.loads(text)["loopdevices"]:
        if entry["back-maj:min"] is None:
            continue
        major, minor = entry["back-maj:min"].split(":")
        found.append(
            Loop(
                device=Path(entry["name"]),
                file=entry["back-file"] or "",
                file_device=(int(major), int(minor)),
                file_inode=int(entry["back-ino"]),
            )
        )
    return tuple(found)


def read_loops(runner: Runner) -> tuple[Loop, ...]:
    columns = "NAME,BACK-FILE,BACK-MAJ:MIN,BACK-INO"
    return parse_loops(runner(["losetup", "--json", "--list", "--output", columns], timeout_s=20).text)


def plan_loops(
    loops: Iterable[Loop],
    *,
    below: Path,
    devices: Collection[tuple[int, int]],
    inodes: Collection[tuple[tuple[int, int], int]] = (),
) -> tuple[Path, ...]:
    """The loop devices that are a lab's: their file lies below a folder, or on one of these file systems (the nodes'
    overlays, whose paths the host cannot see), or is one of these files (the shared directory under its other name).
    """
    return tuple(
        loop.device
        for loop in loops
        if Path(loop.file).is_relative_to(below)
        or loop.file_device in devices
        or (loop.file_device, loop.file_inode) in inodes
    )
