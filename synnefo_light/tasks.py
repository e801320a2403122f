"""What a task of the helper VM says of itself, and in which order tasks run.

A task is one file of snf_image_helper/tasks/ and declares itself there; nothing else lists it. The builder of the VM's
image writes all declarations, in order, into helper.json, where the host half reads them: which tasks are due, which
may be left out under which name, what `snf-image tasks` shows.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal


class OsFamily(enum.Enum):
    LINUX = "linux"
    WINDOWS = "windows"
    WINDOWS_LEGACY = "windows-legacy"
    FREEBSD = "freebsd"
    NETBSD = "netbsd"
    OPENBSD = "openbsd"


class Phase(enum.Enum):
    """How far the image is open; the phases run in this order."""

    SOURCE = "source"  # disk 0 is not written yet
    DISK = "disk"  # partitions, nothing in use
    UNMOUNTED = "unmounted"  # file systems, not mounted; "mount" is the last of it
    MOUNTED = "mounted"  # files
    FINISH = "finish"  # "umount", and what needs the file systems closed


#: What drops a task besides its own name: EXCLUDE_MOUNTED_TASKS, EXCLUDE_FILESYSTEMRESIZE_TASKS, CLOUD_INIT.
Group = Literal["mounted", "resize", "cloud-init"]

LINUX: Final = frozenset({OsFamily.LINUX})
WINDOWS: Final = frozenset({OsFamily.WINDOWS})
ALL: Final = frozenset(OsFamily)
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """`name` is the file's name, and the task's in messages; `snf_image` is what snf-image called it, if it had it."""

    name: str
    phase: Phase
    summary: str
    snf_image: str | None = None
    os_families: frozenset[OsFamily] = LINUX
    after: frozenset[str] = frozenset()
    groups: frozenset[Group] = frozenset()

    def __post_init__(self) -> None:
        if NAME.fullmatch(self.name) is None:
            raise ValueError(f"{self.name!r} is not a task's name: lower-case letters, digits and _")


class TaskOrderError(Exception):
    """Tasks that wait for each other, or for one that does not exist or comes in a later phase: our mistake."""


def order(tasks: Iterable[TaskInfo]) -> tuple[TaskInfo, ...]:
    """By phase, within a phase after what each names in `after`, and otherwise by name.

    Raises TaskOrderError. The result does not depend on how the tasks are given.
    """
    phases = list(Phase)
    waiting = {task.name: task for task in sorted(tasks, key=lambda t: (phases.index(t.phase), t.name))}
    known = dict(waiting)
    done: list[TaskInfo] = []
    for task in known.values():
        for name in task.after:
            if name not in known:
                raise TaskOrderError(f"{task.name} is to run after {name}, which is not a task")
            if phases.index(known[name].phase) > phases.index(task.phase):
                raise TaskOrderError(f"{task.name} is to run after {name}, which comes in a later phase")
    while waiting:
        phase = next(iter(waiting.values())).phase
        ready = next((t for t in waiting.values() if t.phase is phase and not t.after & waiting.keys()), None)
        if ready is None:
            stuck = ", ".join(t.name for t in waiting.values() if t.phase is phase)
            raise TaskOrderError(f"these tasks wait for each other: {stuck}")
        done.append(ready)
        del waiting[ready.name]
    return tuple(done)
