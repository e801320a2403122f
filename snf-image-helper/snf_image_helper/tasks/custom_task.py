"""CUSTOM_TASK: a program that the administrator allowed, run in the image after all other tasks that write files.

The image is its root. SNF_IMAGE_TARGET says so with "/", so that scripts which name files by it, as snf-image's do,
work as they are.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from snf_image_helper.actions import Action, RunScript
from snf_image_helper.image import Image, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="custom_task",
    snf_image="RunCustomTask",
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Run a program of the administrator's in the image",
    after=frozenset({"cloud_init", "personality", "selinux"}),
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if manifest.custom_task is None:
        raise Skipped("there is no custom task")
    environment = {
        "SNF_IMAGE_TARGET": "/",
        "SNF_IMAGE_HOSTNAME": manifest.hostname,
        "SNF_IMAGE_PROPERTY_OSFAMILY": image.family.value,
        "SNF_IMAGE_PROPERTY_ROOT_PARTITION": str(image.root.number or ""),
        "SNF_IMAGE_PROPERTY_USERS": " ".join(manifest.users),
    }
    return [RunScript(script=base64.b64decode(manifest.custom_task), environment=tuple(environment.items()))]
