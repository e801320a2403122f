"""For a system whose own files cannot be written here: a seed partition with what cloud-init or nuageinit shall do.

Its system's root is only given more room in the partition table; it grows its file system itself (growfs_enable="YES"
in FreeBSD's rc.conf).
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MakeSeed, Warn
from snf_image_helper.image import Image, ImageError
from snf_image_helper.layout import partition_of
from snf_image_helper.nocloud import PARTITION, displaced, render_seed, seed_partition
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import OsFamily, Phase, TaskInfo

INFO = TaskInfo(
    name="seed",
    phase=Phase.UNMOUNTED,
    summary="Make a seed partition for cloud-init or nuageinit",
    os_families=frozenset({OsFamily.FREEBSD}),
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    number = seed_partition(image.table, manifest).number if image.table is not None else 0
    if image.table is None or partition_of(image.table, number) is None:
        raise ImageError(f"the image has no partition {PARTITION}; the task partition_table makes it")
    lost = displaced(manifest)
    warnings = (
        [Warn(text=f"the user-data is cloud_userdata's own, so {' and '.join(lost)} are left out")] if lost else []
    )
    return [*warnings, MakeSeed(partition=number, files=render_seed(manifest))]
