"""Give the root partition the space behind it, and make room for swap if it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, Warn, WriteTable
from snf_image_helper.image import Image, Skipped
from snf_image_helper.layout import ALIGN, SwapPartition, plan_table
from snf_image_helper.partitions import SECTOR
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="partition_table",
    snf_image="FixPartitionTable",
    groups=frozenset({"cloud-init"}),
    phase=Phase.DISK,
    summary="Grow the root partition to the end of the disk",
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if image.table is None:
        raise Skipped("the image has no partition table, its file system is on the whole disk")
    swap = None
    if manifest.swap is not None and manifest.swap.partition is not None and manifest.swap.size_mib is not None:
        swap = SwapPartition(
            number=manifest.swap.partition,
            sectors=manifest.swap.size_mib * ALIGN,
            seed=f"{manifest.nonce}:swap-partition",
        )
    sectors = image.disk_size // SECTOR
    writes = plan_table(image.table, root=image.root.number, disk_sectors=sectors, swap=swap)
    actions: list[Action] = [WriteTable(writes=writes)] if writes else []
    last = max(image.table.partitions, key=lambda p: p.end)
    if last.number != image.root.number and swap is None and sectors - last.end > 2 * ALIGN:
        actions.append(
            Warn(
                text=f"partition {image.root.number} (root) was not grown, because partition {last.number} is behind it"
            )
        )
    return actions
