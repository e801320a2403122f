"""A node's own cgroup in every hierarchy.

Without it the systemd of each node would write into the host's root cgroups, and two nodes would share
`system.slice/ssh.service`. Handled: cgroup v1 with and without the hybrid v2 hierarchy, and v2 alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from synnefo_light.errors import EnvironmentFault

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted cgroup hierarchy, and where in it a lab's cgroups go."""

    parent: Path
    cpuset: bool = False  # its cgroups accept no process before cpus and mems are set


def parse_hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The hierarchies in /proc/self/mountinfo (proc(5)).

    A lab goes to the top of each: there the next command finds it again, whatever cgroup that one is called from;
    and in v2 a cgroup that holds processes, as the caller's does, may not hand controllers down.
    """
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        fields = line.split()
        dash = fields.index("-")
        kind, options, point = fields[dash + 1], fields[dash + 3].split(","), Path(fields[4])
        if not point.is_relative_to(ROOT):
            continue
        if kind in ("cgroup", "cgroup2"):
            found.append(Hierarchy(parent=point, cpuset="cpuset" in options))
    return tuple(found)


def read_hierarchies() -> tuple[Hierarchy, ...]:
    return parse_hierarchies(Path("/proc/self/mountinfo").read_text())


def is_v2_only() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def make(hierarchies: Iterable[Hierarchy], name: str) -> list[Path]:
    """Make the cgroup `name` (it may have slashes) everywhere; a second call changes nothing."""
    made = []
    for hierarchy in hierarchies:
        path = hierarchy.parent
        for part in name.split("/"):
            path = path / part
            path.mkdir(exist_ok=True)
            if hierarchy.cpuset:
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (path / file).write_text((path.parent / file).read_text())
        made.append(path)
    return made


def pids(tops: Sequence[Path]) -> set[int]:
    """The processes in these cgroups and all below."""
    found: set[int] = set()
    for top in tops:
        for folder, _, _ in os.walk(top):
            # A cgroup may vanish while we walk; then it has no processes.
            with contextlib.suppress(OSError):
                found |= {int(word) for word in (Path(folder) / "cgroup.procs").read_text().split()}
    return found


def remove(tops: Sequence[Path], *, timeout_s: float = 5.0) -> None:
    """Remove these cgroups and all below; they must be empty of processes. A second call changes nothing."""
    deadline = time.monotonic() + timeout_s
    while left := [top for top in tops if top.exists()]:
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                # Busy until the last killed process has been reaped.
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        if time.monotonic() > deadline:
            raise EnvironmentFault(f"cgroup {left[0]} cannot be removed: it still has processes {sorted(pids(left))}")
        time.sleep(0.02)
