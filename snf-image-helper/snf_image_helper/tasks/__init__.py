"""The tasks: one file each, with `INFO` and a pure `plan`. They are found by their files; nothing lists them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, cast

from snf_image_helper.actions import Action
from snf_image_helper.image import Image
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import TaskInfo


class Task(Protocol):
    """What a module here is. `plan` is pure; nothing to do is an empty plan; Skipped says that it does not apply."""

    INFO: TaskInfo

    def plan(self, image: Image, manifest: Manifest) -> Sequence[Action]: ...


def _found() -> dict[str, Task]:
    names = sorted(name[:-3] for name in os.listdir(__path__[0]) if name.endswith(".py") and name != "__init__.py")
    modules = (importlib.import_module(f"{__name__}.{name}") for name in names)
    return {task.INFO.name: task for task in (cast(Task, module) for module in modules)}


TASKS: Mapping[str, Task] = MappingProxyType(_found())
