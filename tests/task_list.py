"""The helper's tasks as the host gets to know them: in the order they run."""

from __future__ import annotations

from snf_image_helper.tasks import TASKS

from synnefo_light.tasks import order

ORDER = order(task.INFO for task in TASKS.values())
NAMES = tuple(task.name for task in ORDER)
