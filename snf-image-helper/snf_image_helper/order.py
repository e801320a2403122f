"""In which order tasks run: by phase, within a phase after what each names, and otherwise by name."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from synnefo_light.manifest import OsFamily


class Phase(enum.IntEnum):
    """How far the image is open."""

    DISK = 1  # partitions, nothing in use
    UNMOUNTED = 2  # file systems, not mounted
    MOUNTED = 3  # files; "mount" is the first of it
    FINISH = 4  # closing


LINUX = frozenset({OsFamily.LINUX})
ALL = frozenset(OsFamily)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """What a task says of itself. `name` is its file's name, its skip name, and its name in messages."""

    name: str
    phase: Phase
    summary: str
    os_families: frozenset[OsFamily] = LINUX
    after: frozenset[str] = frozenset()


class TaskOrderError(Exception):
    """Tasks that wait for each other, or for one that does not exist or comes in a later phase: our mistake."""


def order(tasks: Iterable[TaskInfo]) -> tuple[str, ...]:
    """The names, each after all that it names in `after`. Raises TaskOrderError; the result is always the same."""
    waiting = {task.name: task for task in sorted(tasks, key=lambda t: (t.phase, t.name))}
    known = dict(waiting)
    done: list[str] = []
    for task in known.values():
        for name in task.after:
            if name not in known:
                raise TaskOrderError(f"{task.name} is to run after {name}, which is not a task")
            if known[name].phase > task.phase:
                raise TaskOrderError(f"{task.name} is to run after {name}, which comes in a later phase")
    while waiting:
        phase = next(iter(waiting.values())).phase
        ready = next((t for t in waiting.values() if t.phase == phase and not t.after & waiting.keys()), None)
        if ready is None:
            stuck = ", ".join(t.name for t in waiting.values() if t.phase == phase)
            raise TaskOrderError(f"these tasks wait for each other: {stuck}")
        done.append(ready.name)
        del waiting[ready.name]
    return tuple(done)
