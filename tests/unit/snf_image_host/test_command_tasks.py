"""`snf-image tasks`: the helper's tasks for people and programs."""

from __future__ import annotations

from snf_image_host.commands.tasks import render
from snf_image_host.exclusions import excluded_by

from synnefo_light.tasks import TaskInfo
from tests.task_list import ORDER


def named(name: str) -> TaskInfo:
    return next(task for task in ORDER if task.name == name)


def test_each_task_stands_once_in_the_order_it_runs() -> None:
    numbered = [line.split() for line in render(ORDER) if line[:3].strip().isdigit()]
    assert [words[2] for words in numbered] == [task.name for task in ORDER]
    assert [words[0] for words in numbered] == [str(n) for n in range(1, len(ORDER) + 1)]


def test_a_task_is_left_out_by_either_of_its_names_by_its_groups_and_with_all() -> None:
    found = excluded_by(named("hostname"), ORDER)
    assert found[:2] == ["EXCLUDE_TASK_ASSIGNHOSTNAME", "EXCLUDE_TASK_HOSTNAME"]
    assert "EXCLUDE_MOUNTED_TASKS" in found and found[-1] == "EXCLUDE_ALL_TASKS"
    assert "EXCLUDE_FILESYSTEMRESIZE_TASKS" in excluded_by(named("filesystem_check_grow"), ORDER)


def test_mounting_alone_is_never_left_out() -> None:
    assert not [name for name in excluded_by(named("mount"), ORDER) if name.startswith("EXCLUDE_TASK_")]
