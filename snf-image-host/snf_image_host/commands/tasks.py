"""`snf-image tasks`: what the helper VM does, in the order it does it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from snf_image_host.commands import Out
from snf_image_host.create import installed_helper
from snf_image_host.exclusions import excluded_by
from snf_image_host.settings import Settings
from synnefo_light.records import dump_json, plain
from synnefo_light.tasks import ALL, TaskInfo

NAME: Final = "tasks"
SUMMARY: Final = "list the tasks of the helper VM in the order they run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON array, for programs")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    tasks = installed_helper(settings).tasks
    if arguments.json:
        listed = [{**_fields(task), "excluded_by": excluded_by(task, tasks)} for task in tasks]
        out(dump_json(listed).decode())
        return 0
    for line in render(tasks):
        out(line)
    return 0


def render(tasks: Sequence[TaskInfo]) -> Iterator[str]:
    """A table for a person: order, phase, names, families, and below each what it does and what leaves it out."""
    yield f"{'':>3} {'PHASE':<10} {'TASK':<24} {'SNF-IMAGE':<32} FAMILIES"
    for n, task in enumerate(tasks, 1):
        families = "all" if task.os_families == ALL else " ".join(sorted(f.value for f in task.os_families))
        yield f"{n:>3} {task.phase.value:<10} {task.name:<24} {task.snf_image or '-':<32} {families}"
        yield f"{'':>15}{task.summary}"
        yield f"{'':>15}left out by {', '.join(excluded_by(task, tasks)) or 'nothing'}"


def _fields(task: TaskInfo) -> dict[str, object]:
    fields = plain(task)
    assert isinstance(fields, dict)
    return fields
