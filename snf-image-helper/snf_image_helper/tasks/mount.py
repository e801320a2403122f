"""Mount the root file system, by the type we saw ourselves."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MountRoot
from snf_image_helper.image import Image
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import LINUX, WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="mount",
    snf_image="MountImage",
    os_families=LINUX | WINDOWS,
    groups=frozenset({"mounted"}),
    phase=Phase.UNMOUNTED,
    summary="Mount the image",
    after=frozenset({"filesystem_check_grow"}),
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    root = image.root
    return [MountRoot(place=root.place, kind=root.filesystem.kind, subvolume=root.subvolume)]
