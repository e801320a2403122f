"""Unmount the image and let everything reach the disk."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, UmountRoot
from snf_image_helper.image import Image
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import ALL, Phase, TaskInfo

INFO = TaskInfo(
    name="umount",
    snf_image="UmountImage",
    groups=frozenset({"mounted"}),
    phase=Phase.FINISH,
    os_families=ALL,
    summary="Unmount the image",
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    return [UmountRoot()]
