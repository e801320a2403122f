"""The tasks: one file each, with `INFO` and a pure `plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from snf_image_helper.actions import Action
from snf_image_helper.image import Image
from snf_image_helper.order import TaskInfo
from snf_image_helper.tasks import (
    filesystem_check_grow,
    hostname,
    machine_id,
    mount,
    network,
    partition_table,
    password,
    personality,
    ssh_host_keys,
    swap,
    umount,
)
from synnefo_light.manifest import Manifest


class Task(Protocol):
    """What a module here is. `plan` is pure; nothing to do is an empty plan; Skipped says that it does not apply."""

    INFO: TaskInfo

    def plan(self, image: Image, manifest: Manifest) -> Sequence[Action]: ...


_ALL: tuple[Task, ...] = (
    *(partition_table, filesystem_check_grow, mount, hostname, machine_id, ssh_host_keys, password, network, swap),
    *(personality, umount),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.INFO.name: task for task in _ALL})
