"""Which file system is it? Told by superblock magic alone, out of a short list; the kernel never guesses for us.

Sources: ext4 s_magic at 1080, s_feature_* (Documentation/filesystems/ext4/super.rst); XFS sb_magicnum at 0; btrfs magic
at 65600 (fs/btrfs/volumes.c); FAT by the strings of its boot sector.
"""

from __future__ import annotations

import struct

from snf_image_helper.image import Filesystem, FilesystemKind
from snf_image_helper.partitions import (
    LINUX_GPT,
    LINUX_MBR,
    LINUX_ROOT_GPT,
    SECTOR,
    Partition,
    Reader,
    Table,
    TableError,
)

#: Features that make it ext3 (a journal) and ext4 (extents, 64bit, flexible groups, and the newer read-only ones).
_HAS_JOURNAL, _EXT4_INCOMPAT, _EXT4_RO = 0x4, 0x40 | 0x80 | 0x200 | 0x2000, 0x8 | 0x10 | 0x20 | 0x40 | 0x400
_INCOMPAT_64BIT = 0x80


def detect(read: Reader, *, start: int, size: int) -> Filesystem | None:
    """The file system that begins at byte `start`; None if it is none of those we know, or says it is larger than
    the `size` bytes there are."""
    head = read(start, 4096)
    if len(head) == 4096:
        found = _ext(head[1024:2048]) or _xfs(head) or _fat(head)
        if found is None and read(start + 65536 + 64, 8) == b"_BHRfS_M":
            (total,) = struct.unpack("<Q", read(start + 65536 + 0x70, 8))
            found = Filesystem(kind=FilesystemKind.BTRFS, size=total)
        if found is not None and 0 < found.size <= size:
            return found
    return None


def _ext(block: bytes) -> Filesystem | None:
    if block[56:58] != b"\x53\xef":
        return None
    (low,) = struct.unpack_from("<I", block, 4)
    (log_size,) = struct.unpack_from("<I", block, 24)
    compat, incompat, ro = struct.unpack_from("<III", block, 92)
    (high,) = struct.unpack_from("<I", block, 0x150)
    if log_size > 6:  # 64 KiB, the largest block there is
        return None
    blocks = low | (high << 32 if incompat & _INCOMPAT_64BIT else 0)
    if incompat & _EXT4_INCOMPAT or ro & _EXT4_RO:
        kind = FilesystemKind.EXT4
    else:
        kind = FilesystemKind.EXT3 if compat & _HAS_JOURNAL else FilesystemKind.EXT2
    return Filesystem(kind=kind, size=blocks * (1024 << log_size))


def _xfs(head: bytes) -> Filesystem | None:
    if head[:4] != b"XFSB":
        return None
    block_size, blocks = struct.unpack_from(">IQ", head, 4)
    return Filesystem(kind=FilesystemKind.XFS, size=block_size * blocks) if block_size <= 65536 else None


def _fat(head: bytes) -> Filesystem | None:
    if head[510:512] != b"\x55\xaa" or not (head[54:59] in (b"FAT12", b"FAT16") or head[82:87] == b"FAT32"):
        return None
    (small,), (large,), (sector,) = (struct.unpack_from(f, head, at) for f, at in (("<H", 19), ("<I", 32), ("<H", 11)))
    return Filesystem(kind=FilesystemKind.VFAT, size=(small or large) * sector)


def root_candidates(read: Reader, table: Table) -> tuple[tuple[Partition, Filesystem], ...]:
    """Partitions that may hold a Linux root, the likeliest first: GPT's own root type, then Linux types by number."""
    found = []
    for partition in table.partitions:
        if partition.kind in (LINUX_GPT, LINUX_ROOT_GPT, LINUX_MBR):
            filesystem = detect(read, start=partition.start * SECTOR, size=partition.sectors * SECTOR)
            if filesystem is not None and filesystem.kind is not FilesystemKind.VFAT:
                found.append((partition, filesystem))
    return tuple(sorted(found, key=lambda pair: (pair[0].kind != LINUX_ROOT_GPT, pair[0].number)))


def named_root(read: Reader, table: Table, number: int) -> tuple[Partition, Filesystem]:
    """The partition that the admin named as root. Raises TableError when it cannot be one."""
    partition = next((p for p in table.partitions if p.number == number), None)
    if partition is None:
        numbers = ", ".join(str(p.number) for p in table.partitions) or "none at all"
        raise TableError(f"ROOT_PARTITION is {number}, but the image has the partitions {numbers}")
    filesystem = detect(read, start=partition.start * SECTOR, size=partition.sectors * SECTOR)
    if filesystem is None:
        raise TableError(f"partition {number} holds no file system that we know (ext2, ext3, ext4, XFS, btrfs, FAT)")
    return partition, filesystem
