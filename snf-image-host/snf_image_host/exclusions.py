"""Which tasks an image's properties leave out: EXCLUDE_ALL_TASKS, groups of tasks, and EXCLUDE_TASK_<NAME>.

A task of the phase SOURCE, which writes disk 0 in the first place, is never left out: without it there is no image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from snf_image_host.likeness import nearest
from synnefo_light.log import escape
from synnefo_light.tasks import Group, Phase, TaskInfo

TASK_PREFIX: Final = "EXCLUDE_TASK_"
#: These two frame all the others; alone they are never left out.
FRAME: Final = frozenset({"mount", "umount"})
_GROUPS: Final[Mapping[str, Group]] = {
    "EXCLUDE_MOUNTED_TASKS": "mounted",
    "EXCLUDE_FILESYSTEMRESIZE_TASKS": "resize",
}


def exclusions(tasks: Iterable[TaskInfo]) -> dict[str, frozenset[str]]:
    """What each EXCLUDE_TASK_ property leaves out: by our name of a task or snf-image's, which several may share."""
    found: dict[str, frozenset[str]] = {}
    for task in tasks:
        if task.name in FRAME or task.phase is Phase.SOURCE:
            continue
        for name in {task.name.upper(), (task.snf_image or task.name).upper()}:
            found[f"{TASK_PREFIX}{name}"] = found.get(f"{TASK_PREFIX}{name}", frozenset()) | {task.name}
    return found


def excluded_by(task: TaskInfo, tasks: Iterable[TaskInfo]) -> list[str]:
    """The properties that leave the task out, CLOUD_INIT among them."""
    if task.phase is Phase.SOURCE:
        return []
    named = [name for name, names in sorted(exclusions(tasks).items()) if task.name in names]
    groups = [name for name, group in _GROUPS.items() if group in task.groups]
    cloud = ["CLOUD_INIT"] if "cloud-init" in task.groups else []
    return [*named, *groups, *cloud, "EXCLUDE_ALL_TASKS"]


def excluded(
    found: Mapping[str, str],
    tasks: Sequence[TaskInfo],
    said: Callable[[str], bool],
    object_to: Callable[[str], None],
) -> frozenset[str]:
    """Our names of the tasks that the properties `found` leave out; `said` tells whether a property says yes.

    `object_to` is called with a sentence about a task that is not known, or that cannot be left out.
    """
    by_name = exclusions(tasks)
    skip: frozenset[str] = frozenset()
    for name in found:
        if name.startswith(TASK_PREFIX):
            if name not in by_name:
                object_to(_objection(name, tasks, by_name))
            skip |= by_name.get(name, frozenset()) if said(name) else frozenset()
        elif name == "EXCLUDE_ALL_TASKS" and said(name):
            skip |= {task.name for task in tasks if task.phase is not Phase.SOURCE}
        elif name in _GROUPS and said(name):
            skip |= {task.name for task in tasks if _GROUPS[name] in task.groups}
    return skip


def _objection(name: str, tasks: Sequence[TaskInfo], by_name: Mapping[str, object]) -> str:
    word = name.removeprefix(TASK_PREFIX)
    task = next((t for t in tasks if word in (t.name.upper(), (t.snf_image or "").upper())), None)
    if task is None:
        return f"the task '{escape(word, limit=80)}' is not known{nearest(name, by_name, prefix=TASK_PREFIX)}"
    if task.phase is Phase.SOURCE:
        return f"{name} is not possible: without this task the image does not come onto the disk"
    return f"{name} alone is not possible; EXCLUDE_MOUNTED_TASKS leaves out all that need the mount"
