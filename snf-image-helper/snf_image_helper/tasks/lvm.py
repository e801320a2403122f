"""Give the root's logical volume the space that its partition won. It was found, and is used, in this VM alone.

All that is free in the volume group goes to the root, also what was free before: an image says by its disk's size how
large it wants to be, and an instance has its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, GrowVolume
from snf_image_helper.image import Image, Skipped
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="lvm",
    phase=Phase.DISK,
    summary="Grow the physical volume of LVM and the root's logical volume",
    after=frozenset({"partition_table"}),
    groups=frozenset({"resize", "cloud-init"}),
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if image.root.volume is None or image.group is None:
        raise Skipped("the root is not on a logical volume")
    return [GrowVolume(volume=image.root.volume, partitions=image.group.partitions)]
