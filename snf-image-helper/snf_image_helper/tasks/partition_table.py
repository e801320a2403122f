"""Give the root partition the space behind it, and make room for swap, or for a seed, if that is wanted.

Swap right behind the root is in the way of most images that an installer made. It goes to the disk's end and is made
anew there, with the UUID and the label it had, so that what names it still finds it.
"""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MakeSwap, Warn, WriteTable
from snf_image_helper.image import Block, Image, Skipped, SwapSpace
from snf_image_helper.layout import ALIGN, NewPartition, movable, plan_table
from snf_image_helper.nocloud import seed_partition
from snf_image_helper.partitions import SECTOR, Gpt, Partition, Table
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import ALL, OsFamily, Phase, TaskInfo

INFO = TaskInfo(
    name="partition_table",
    snf_image="FixPartitionTable",
    groups=frozenset({"cloud-init"}),
    phase=Phase.DISK,
    os_families=ALL,
    summary="Grow the root partition to the end of the disk",
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    table, sectors = image.table, image.disk_size // SECTOR
    if table is None:
        raise Skipped("the image has no partition table, its file system is on the whole disk")
    new, behind = _new_partition(image, table, manifest), _swap_behind(image, table)
    moved = behind if new is None else None
    number = moved.place.partition if moved is not None else None
    writes = plan_table(table, root=image.growing, disk_sectors=sectors, swap=new, moved=number)
    actions: list[Action] = [WriteTable(writes=writes)] if writes else []
    if moved is not None and isinstance(moved.content, SwapSpace):
        actions.append(MakeSwap(disk=0, partition=number, uuid=moved.content.uuid, label=moved.content.label))
    last = max((*table.partitions, *_empty(table)), key=lambda p: p.end)
    if last.number not in (image.growing, number) and new is None and sectors - last.end > 2 * ALIGN:
        text = f"partition {image.growing} (root) was not grown, because partition {last.number} is behind it"
        actions.append(Warn(text=text))
    return actions


def _new_partition(image: Image, table: Table, manifest: Manifest) -> NewPartition | None:
    if image.family is OsFamily.FREEBSD:
        return seed_partition(table, manifest) if "seed" not in manifest.skip else None
    swap = manifest.swap
    if swap is None or swap.partition is None or swap.size_mib is None:
        return None
    return NewPartition(number=swap.partition, sectors=swap.size_mib * ALIGN, seed=f"{manifest.nonce}:swap-partition")


def _empty(table: Table) -> Sequence[Partition]:
    """The extended partition, if nothing is in it."""
    if isinstance(table, Gpt) or table.extended is None or any(p.number >= 5 for p in table.partitions):
        return ()
    return (table.extended,)


def _swap_behind(image: Image, table: Table) -> Block | None:
    """Swap space behind the root that can make room for it: nothing in it outlives the machine it was copied from."""
    partition = movable(table, root=image.growing, disk_sectors=image.disk_size // SECTOR)
    found = next((b for b in image.blocks if partition is not None and b.partition == partition), None)
    return found if found is not None and isinstance(found.content, SwapSpace) else None
