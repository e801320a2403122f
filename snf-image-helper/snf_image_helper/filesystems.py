"""What is on a partition? Told by superblock magic alone, out of a short list; the kernel never guesses for us.

Sources: ext4 s_magic at 1080, s_feature_* (Documentation/filesystems/ext4/super.rst); XFS sb_magicnum at 0; btrfs magic
at 65600 (fs/btrfs/volumes.c); f2fs magic at 1024 (include/linux/f2fs_fs.h); FAT and NTFS by their boot sector; UFS's
fs_magic at 1372 of its superblock (FreeBSD, sys/ufs/ffs/fs.h); ZFS uberblocks behind 128 KiB (its on-disk format, 1.3);
LVM's LABELONE in the first four sectors; LUKS, BitLocker and md by their magic (md 0.90 and 1.0 stand near the end).
"""

from __future__ import annotations

import struct

from snf_image_helper.image import Content, Filesystem, FilesystemKind, SwapSpace
from snf_image_helper.partitions import SECTOR, Reader

#: Features that make it ext3 (a journal) and ext4 (extents, 64bit, flexible groups, and the newer read-only ones).
_HAS_JOURNAL, _EXT4_INCOMPAT, _EXT4_RO = 0x4, 0x40 | 0x80 | 0x200 | 0x2000, 0x8 | 0x10 | 0x20 | 0x40 | 0x400
_INCOMPAT_64BIT = 0x80
_MD_MAGIC = struct.pack("<I", 0xA92B4EFC)
_PAGE = 4096
_UFS_SUPERBLOCKS = (64 << 10, 8 << 10, 256 << 10)
_UFS_MAGIC = (struct.pack("<I", 0x19540119), struct.pack("<I", 0x011954))
_UBERBLOCK = struct.pack("<Q", 0x00BAB10C)


def look(read: Reader, *, start: int, size: int) -> Filesystem | SwapSpace | Content | None:
    """What begins at byte `start` and has `size` bytes; None if it is nothing that we know.

    A file system that says it is larger than its place is none.
    """
    head = read(start, _PAGE)
    if len(head) < _PAGE:
        return None
    if (foreign := _foreign(head) or _raid(read, start, size)) is not None:
        return foreign
    if head[4086:4096] in (b"SWAPSPACE2", b"SWAP-SPACE"):
        return SwapSpace(uuid=_uuid(head[1036:1052]), label=_label(head[1052:1068]))
    if head[4086:4095] in (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB000"):
        return Content.HIBERNATED
    found = _ext(head[1024:2048]) or _xfs(head) or _fat(head) or _ntfs(head) or _f2fs(head[1024:])
    if found is None and (superblock := read(start + (64 << 10), 0x22B))[64:72] == b"_BHRfS_M":
        if superblock[0x88:0x90] != struct.pack("<Q", 1):
            return Content.SPREAD
        found = _btrfs(superblock)
    found = found or _bsd(read, start, size)
    return found if found is not None and 0 < found.size <= size else None


def _foreign(head: bytes) -> Content | None:
    if any(head[sector * SECTOR : sector * SECTOR + 8] == b"LABELONE" for sector in range(4)):
        return Content.LVM
    if head[:6] == b"LUKS\xba\xbe":
        return Content.LUKS
    return Content.BITLOCKER if head[3:11] == b"-FVE-FS-" else None


def _raid(read: Reader, start: int, size: int) -> Content | None:
    """md's superblock: 1.1 at the start, 1.2 at 4 KiB, 1.0 and 0.90 near the end (drivers/md/md.c)."""
    end = size // SECTOR
    places = (0, _PAGE, ((end - 16) & ~7) * SECTOR, ((size & ~0xFFFF) - 0x10000))
    found = any(at >= 0 and at + _PAGE <= size and read(start + at, 4) == _MD_MAGIC for at in places)
    return Content.MD if found else None


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
    return Filesystem(
        kind=kind, size=blocks * (1024 << log_size), uuid=_uuid(block[104:120]), label=_label(block[120:136])
    )


def _xfs(head: bytes) -> Filesystem | None:
    if head[:4] != b"XFSB":
        return None
    block_size, blocks = struct.unpack_from(">IQ", head, 4)
    if block_size > 65536:
        return None
    return Filesystem(
        kind=FilesystemKind.XFS, size=block_size * blocks, uuid=_uuid(head[32:48]), label=_label(head[108:120])
    )


def _btrfs(block: bytes) -> Filesystem:
    (total,) = struct.unpack_from("<Q", block, 0x70)
    return Filesystem(kind=FilesystemKind.BTRFS, size=total, uuid=_uuid(block[32:48]), label=_label(block[0x12B:0x22B]))


def _f2fs(block: bytes) -> Filesystem | None:
    if block[:4] != b"\x10\x20\xf5\xf2":
        return None
    (log_block,), (blocks,) = struct.unpack_from("<I", block, 16), struct.unpack_from("<Q", block, 36)
    if log_block > 16:
        return None
    label = block[124 : 124 + 1024].decode("utf-16-le", "replace").partition("\0")[0]
    return Filesystem(kind=FilesystemKind.F2FS, size=blocks << log_block, uuid=_uuid(block[108:124]), label=label)


def _fat(head: bytes) -> Filesystem | None:
    large = head[82:87] == b"FAT32"
    if head[510:512] != b"\x55\xaa" or not (head[54:59] in (b"FAT12", b"FAT16") or large):
        return None
    (few,), (many,), (sector,) = (struct.unpack_from(f, head, at) for f, at in (("<H", 19), ("<I", 32), ("<H", 11)))
    at = 67 if large else 39
    (serial,) = struct.unpack_from("<I", head, at)
    return Filesystem(
        kind=FilesystemKind.VFAT,
        size=(few or many) * sector,
        uuid=f"{serial >> 16:04X}-{serial & 0xFFFF:04X}",
        label=_label(head[at + 4 : at + 15]).rstrip(),
    )


def _ntfs(head: bytes) -> Filesystem | None:
    if head[3:11] != b"NTFS    " or head[510:512] != b"\x55\xaa":
        return None
    (sector,), (sectors,), (serial,) = (
        struct.unpack_from(f, head, at) for f, at in (("<H", 11), ("<Q", 40), ("<Q", 72))
    )
    return Filesystem(kind=FilesystemKind.NTFS, size=sectors * sector, uuid=f"{serial:016X}")


def _bsd(read: Reader, start: int, size: int) -> Filesystem | None:
    """UFS and ZFS are only named; how large they are inside is left to the systems that can read them."""
    if any(read(start + at + 1372, 4) in _UFS_MAGIC for at in _UFS_SUPERBLOCKS):
        return Filesystem(kind=FilesystemKind.UFS, size=size)
    uberblocks = read(start + (128 << 10), 128 << 10)
    if any(uberblocks[at : at + 8] == _UBERBLOCK for at in range(0, len(uberblocks), 1024)):
        return Filesystem(kind=FilesystemKind.ZFS, size=size)
    return None


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _label(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
