"""Check the root file system and grow it to the size of its partition. ext2, ext3 and ext4, unmounted."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, CheckFilesystem, GrowFilesystem
from snf_image_helper.image import Image, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="filesystem_check_grow",
    snf_image="FilesystemResizeUnmounted",
    groups=frozenset({"resize", "cloud-init"}),
    phase=Phase.UNMOUNTED,
    summary="Check the root file system and grow it (ext2/3/4)",
)
#: A partition's odd end smaller than this is not worth a resize; resize2fs itself leaves a bit.
WORTH = 1 << 20


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    filesystem = image.root.filesystem
    if not filesystem.kind.is_ext:
        raise Skipped(f"the root file system is {filesystem.kind.value}; only ext2, ext3 and ext4 are grown yet")
    check: list[Action] = [CheckFilesystem(partition=image.root.number)]
    if image.root.size - filesystem.size >= WORTH:
        check.append(GrowFilesystem(partition=image.root.number))
    return check
