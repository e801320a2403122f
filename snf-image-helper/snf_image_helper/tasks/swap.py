"""Swap space on the partition that partition_table made, on a disk of its own, or in a file; its line in /etc/fstab."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, MakeSwap, MakeSwapFile, WriteFile
from snf_image_helper.distribution import encoded, text
from snf_image_helper.image import FilesystemKind, Image, ImageError, RootPath, SwapSpace
from snf_image_helper.layout import partition_of
from snf_image_helper.partitions import SWAP_GPT, SWAP_MBR, guid_of
from synnefo_light.manifest import Manifest, Swap
from synnefo_light.tasks import Phase, TaskInfo

INFO = TaskInfo(
    name="swap",
    snf_image="AddSwap",
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Make swap space and enable it",
)


#: Where swapon(8) takes a file that was allocated and not written.
TAKE_FILES = frozenset({*(kind for kind in FilesystemKind if kind.is_ext), FilesystemKind.XFS, FilesystemKind.BTRFS})
FILE = RootPath("swapfile")
#: Of swap on a disk of its own, which is made anew each time: a line of fstab that an earlier run wrote stays true.
#: With nofail, since an instance of an image that was made of this one may have no such disk: a boot would wait 90 s.
LABEL = "snf-image-swap"


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if manifest.swap is None:
        return []
    # Made of the nonce, so that planning is pure and still no two instances share a UUID. Swap that an earlier run made
    # keeps its own, which is what the image's fstab has by then.
    identity = _uuid_of(image, manifest.swap.partition) or guid_of(f"{manifest.nonce}:swap")
    if manifest.swap.file_mib is not None:
        make: Action = _file(image, manifest.swap.file_mib, identity)
        line = f"{FILE} none swap sw 0 0"
    else:
        make = _space(image, manifest, manifest.swap, identity)
        line = f"LABEL={LABEL} none swap sw,nofail 0 0" if make.label else f"UUID={identity} none swap sw 0 0"
    fstab = text(image.files, "etc/fstab") or ""
    if line in fstab.split("\n"):
        return [make]
    start = fstab if not fstab or fstab.endswith("\n") else f"{fstab}\n"
    return [make, WriteFile(path=RootPath("etc/fstab"), content=encoded(f"{start}{line}\n"))]


def _uuid_of(image: Image, partition: int | None) -> str | None:
    found = (b.content for b in image.blocks if partition is not None and b.place.partition == partition)
    return next((content.uuid for content in found if isinstance(content, SwapSpace)), None)


def _file(image: Image, size_mib: int, identity: str) -> MakeSwapFile:
    kind = image.root.filesystem.kind
    if kind not in TAKE_FILES:
        raise ImageError(f"a swap file was asked for, but the kernel cannot swap to one on {kind.value}; use a disk")
    return MakeSwapFile(path=FILE, size=size_mib << 20, uuid=identity, in_place=kind is FilesystemKind.BTRFS)


def _space(image: Image, manifest: Manifest, swap: Swap, identity: str) -> MakeSwap:
    disk, number = swap.disk or 0, swap.partition
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
    return MakeSwap(disk=disk, partition=number, uuid=identity, label=LABEL if number is None else "")
