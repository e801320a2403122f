from __future__ import annotations

import pytest
from snf_image_helper.order import Phase, TaskInfo, TaskOrderError, order
from snf_image_helper.tasks import TASKS

from synnefo_light import manifest


def info(name: str, *after: str, phase: Phase = Phase.MOUNTED) -> TaskInfo:
    return TaskInfo(name=name, phase=phase, summary="", after=frozenset(after))


def test_there_is_one_file_for_each_task_of_the_contract() -> None:
    assert set(TASKS) == set(manifest.TASKS)
    assert all(module.__name__ == f"snf_image_helper.tasks.{name}" for name, module in TASKS.items())  # type: ignore[attr-defined]


def test_the_order_is_by_phase_and_what_is_injected_comes_last() -> None:
    names = order(task.INFO for task in TASKS.values())
    assert names[:3] == ("partition_table", "filesystem_check_grow", "mount")
    assert names[-2:] == ("personality", "umount")


def test_after_wins_over_the_name() -> None:
    assert order([info("a", "c"), info("b"), info("c")]) == ("b", "c", "a")


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
