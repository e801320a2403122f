"""Check the root file system and grow it to the size of its place, while it is not mounted: ext2, ext3, ext4, f2fs."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, CheckFilesystem, GrowFilesystem
from snf_image_helper.image import FilesystemKind, Image, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="filesystem_check_grow",
    snf_image="FilesystemResizeUnmounted",
    groups=frozenset({"resize", "cloud-init"}),
    phase=Phase.UNMOUNTED,
    summary="Check the root file system and grow it (ext2/3/4, f2fs)",
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    place, kind = image.root.place, image.root.filesystem.kind
    if not kind.is_ext and kind is not FilesystemKind.F2FS:
        raise Skipped(f"the root file system is {kind.value}, which is not grown before it is mounted")
    check: list[Action] = [CheckFilesystem(place=place, kind=kind)]
    return [*check, GrowFilesystem(place=place, kind=kind)] if image.root.can_grow else check
