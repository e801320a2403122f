"""Grow NTFS here, after it is unmounted: OFFLINE_NTFSRESIZE."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, GrowNtfs
from snf_image_helper.image import FilesystemKind, Image, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="ntfs_grow",
    snf_image="FilesystemResizeAfterUmount",
    os_families=WINDOWS,
    groups=frozenset({"resize"}),
    phase=Phase.FINISH,
    summary="Grow an NTFS file system that is not mounted",
    after=frozenset({"umount"}),
)
WORTH = 1 << 20


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if manifest.ntfs_resize == "boot":
        raise Skipped("Windows grows its file system at its first boot")
    if image.root.filesystem.kind is not FilesystemKind.NTFS:
        raise Skipped(f"the file system is {image.root.filesystem.kind.value}")
    if image.root.size - image.root.filesystem.size < WORTH:
        return []
    return [GrowNtfs(place=image.root.place, check=manifest.ntfs_resize == "offline")]
