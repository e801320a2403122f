"""Swap space on the partition that partition_table made, or on a disk of its own, and its line in /etc/fstab."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MakeSwap, WriteFile
from snf_image_helper.distribution import encoded, text
from snf_image_helper.image import Image, ImageError, RootPath
from snf_image_helper.layout import partition_of
from snf_image_helper.partitions import SWAP_GPT, SWAP_MBR, guid_of
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="swap",
    snf_image="AddSwap",
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Make swap space and enable it",
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if manifest.swap is None:
        return []
    disk, number = manifest.swap.disk or 0, manifest.swap.partition
    if number is None:
        if disk == 0 or disk >= len(manifest.disks):
            raise ImageError(
                f"swap was asked for on disk {disk}; the instance has the disks 0 to {len(manifest.disks) - 1}"
                ", and disk 0 is the image"
            )
    else:
        partition = partition_of(image.table, number) if image.table is not None else None
        if partition is None or partition.kind not in (SWAP_GPT, SWAP_MBR):
            raise ImageError(f"partition {number} is not a swap partition; the task partition_table makes it")
    # Made of the nonce, so that planning is pure and still no two instances share a UUID.
    identity = guid_of(f"{manifest.nonce}:swap")
    fstab = text(image.files, "etc/fstab") or ""
    line = f"UUID={identity} none swap sw 0 0"
    actions: list[Action] = [MakeSwap(disk=disk, partition=number, uuid=identity)]
    if line not in fstab.splitlines():
        start = fstab if not fstab or fstab.endswith("\n") else f"{fstab}\n"
        actions.append(WriteFile(path=RootPath("etc/fstab"), content=encoded(f"{start}{line}\n")))
    return actions
