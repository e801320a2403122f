"""Grow the root file system to the size of its place, if it is one that grows while mounted: XFS and btrfs."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, GrowMounted, Warn
from snf_image_helper.image import FilesystemKind, Image, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="filesystem_grow_mounted",
    snf_image="FilesystemResizeMounted",
    phase=Phase.UNMOUNTED,
    summary="Grow the mounted root file system (XFS, btrfs)",
    after=frozenset({"mount"}),
    groups=frozenset({"mounted", "resize", "cloud-init"}),
)
#: Linux refuses to resize to less (btrfs_ioctl_resize in fs/btrfs/ioctl.c).
BTRFS_LEAST = 256 << 20


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    filesystem = image.root.filesystem
    if filesystem.kind not in (FilesystemKind.XFS, FilesystemKind.BTRFS):
        raise Skipped(f"{filesystem.kind.value} is not grown while it is mounted")
    if not image.is_mounted:
        raise Skipped("the image is not mounted")
    if not image.root.can_grow:
        return []
    if filesystem.kind is FilesystemKind.BTRFS and image.root.size < BTRFS_LEAST:
        return [Warn(text="the root file system was not grown: btrfs of less than 256 MiB cannot be resized")]
    return [GrowMounted(kind=filesystem.kind)]
