"""Unmount the image and let everything reach the disk."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, UmountRoot
from snf_image_helper.image import Image
from snf_image_helper.order import Phase, TaskInfo
from synnefo_light.manifest import Manifest

INFO = TaskInfo(name="umount", phase=Phase.FINISH, summary="Unmount the image")


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    return [UmountRoot()]
