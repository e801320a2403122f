from __future__ import annotations

from pathlib import Path

import pytest
from snf_image_helper.tasks import TASKS

from synnefo_light.tasks import Phase, TaskInfo, TaskOrderError, order

TREE = Path(__file__).resolve().parents[3]


def info(name: str, *after: str, phase: Phase = Phase.MOUNTED) -> TaskInfo:
    return TaskInfo(name=name, phase=phase, summary="", after=frozenset(after))


def test_each_file_is_found_as_the_task_of_its_name() -> None:
    files = {p.stem for p in (TREE / "snf-image-helper/snf_image_helper/tasks").glob("[a-z]*.py")}
    assert set(TASKS) == files
    assert all(module.__name__ == f"snf_image_helper.tasks.{name}" for name, module in TASKS.items())  # type: ignore[attr-defined]


def test_the_order_is_by_phase_and_what_is_injected_comes_last() -> None:
    names = [task.name for task in order(task.INFO for task in TASKS.values())]
    assert names.index("partition_table") < names.index("filesystem_check_grow") < names.index("mount")
    assert names.index("mount") < names.index("hostname") < names.index("personality") < names.index("umount")


def test_after_wins_over_the_name() -> None:
    assert [t.name for t in order([info("a", "c"), info("b"), info("c")])] == ["b", "c", "a"]


def test_the_order_does_not_depend_on_how_they_are_given() -> None:
    infos = [task.INFO for task in TASKS.values()]
    assert order(infos) == order(reversed(infos))


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ([info("a", "b"), info("b", "a")], "wait for each other: a, b"),
        ([info("a", "a")], "wait for each other: a"),
        ([info("a", "nothing")], "after nothing"),
        ([info("a", "b", phase=Phase.DISK), info("b")], "later phase"),
    ],
)
def test_an_order_that_cannot_be_is_our_mistake(tasks: list[TaskInfo], says: str) -> None:
    with pytest.raises(TaskOrderError, match=says):
        order(tasks)
