"""Where a file system keeps what matters: superblock, group or allocation headers, root directory, journal.

Found out of the base image's own headers, with the layouts of the kernel's Documentation/filesystems and the makers'
headers; of images that we have made ourselves, so nothing here needs to be careful.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.disk_images import debugfs

REGIONS = ("superblock", "groups", "directory", "journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Bytes of a file system. `seal` makes its checksum right again after a change, where there is one."""

    offset: int
    length: int
    seal: Callable[[bytearray], None] = lambda block: None


Regions = Mapping[str, Region]


def ext4(path: Path) -> Regions:
    stats = dict(re.findall(r"^(Block size|First block):\s+(\d+)$", debugfs(path, "stats -h", 0).decode(), re.M))
    size, first = int(stats["Block size"]), int(stats["First block"])

    def blocks(inode: int) -> int:
        return int(debugfs(path, f"blocks <{inode}>", 0).split()[0]) * size

    return {
        "superblock": Region(offset=1024, length=1024),
        "groups": Region(offset=(first + 1) * size, length=256),
        "directory": Region(offset=blocks(2), length=size),
        "journal": Region(offset=blocks(8), length=4 * size),
    }


def xfs(path: Path) -> Regions:
    head = _read(path, 0, 4096)
    (block_size,) = struct.unpack_from(">I", head, 4)
    log_start, root = struct.unpack_from(">QQ", head, 48)
    (group_blocks,) = struct.unpack_from(">I", head, 84)
    (sector, inode_size) = struct.unpack_from(">HH", head, 102)
    group_log = head[124]
    log = ((log_start >> group_log) * group_blocks + (log_start & ((1 << group_log) - 1))) * block_size
    return {
        "superblock": Region(offset=0, length=sector, seal=_seal_xfs(224)),
        "groups": Region(offset=sector, length=sector, seal=_seal_xfs(216)),
        "directory": Region(offset=root * inode_size, length=inode_size, seal=_seal_xfs(100)),
        "journal": Region(offset=log, length=4096),
    }


def btrfs(path: Path) -> Regions:
    """Every tree block carries the file system's UUID at 32 and the number of its tree at 88; of copies the first."""
    head = _read(path, 65536, 4096)
    (node,) = struct.unpack_from("<I", head, 0x94)
    blocks: dict[int, int] = {}
    with open(path, "rb") as file:
        for offset in range(1 << 20, path.stat().st_size, node):
            file.seek(offset)
            block = file.read(96)
            if block[32:48] == head[32:48]:
                blocks.setdefault(struct.unpack_from("<Q", block, 88)[0], offset)
    chunk, extent, files = 3, 2, 5
    return {
        "superblock": Region(offset=65536, length=4096, seal=_seal_btrfs),
        "groups": Region(offset=blocks[chunk], length=node, seal=_seal_btrfs),
        "directory": Region(offset=blocks[files], length=node, seal=_seal_btrfs),
        "journal": Region(offset=blocks[extent], length=node, seal=_seal_btrfs),
    }


def f2fs(path: Path) -> Regions:
    head = _read(path, 1024, 1024)
    checkpoint, sit, nat = struct.unpack_from("<III", head, 76)
    packs = (checkpoint * 4096, (checkpoint + 512) * 4096)
    return {
        "superblock": Region(offset=1024, length=512),
        "groups": Region(offset=sit * 4096, length=4096),
        "directory": Region(offset=nat * 4096, length=4096),
        "journal": Region(offset=max(packs, key=_f2fs_version(path)), length=4096, seal=_seal_f2fs),
    }


def _f2fs_version(path: Path) -> Callable[[int], int]:
    """Of a checkpoint: of the two, the kernel takes the newer one."""
    return lambda offset: int.from_bytes(_read(path, offset, 8), "little")


def vfat(path: Path) -> Regions:
    head = _read(path, 0, 512)
    reserved, copies, entries = struct.unpack_from("<HBH", head, 14)
    (small,), (large,) = struct.unpack_from("<H", head, 22), struct.unpack_from("<I", head, 36)
    table = reserved * 512
    directory = table + copies * (small or large) * 512
    return {
        "superblock": Region(offset=0, length=512),
        "groups": Region(offset=table, length=1024),
        "directory": Region(offset=directory, length=max(entries * 32, 512)),
        "journal": Region(offset=directory + entries * 32, length=512),  # FAT has none: the folder below the root
    }


def ntfs(path: Path) -> Regions:
    head = _read(path, 0, 512)
    (first,) = struct.unpack_from("<Q", head, 48)
    records = first * struct.unpack_from("<H", head, 11)[0] * head[13]
    return {
        "superblock": Region(offset=0, length=96),
        "groups": Region(offset=records, length=1024),  # $MFT itself
        "directory": Region(offset=records + 5 * 1024, length=1024),
        "journal": Region(offset=records + 2 * 1024, length=2 * 1024),  # $LogFile and $Volume
    }


FINDERS: Mapping[str, Callable[[Path], Regions]] = {
    "ext4": ext4,
    "xfs": xfs,
    "btrfs": btrfs,
    "f2fs": f2fs,
    "vfat": vfat,
    "ntfs": ntfs,
}


def _read(path: Path, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def _seal_btrfs(block: bytearray) -> None:
    """CRC-32C over all but the first 32 bytes, which hold it."""
    block[:32] = struct.pack("<I", crc32c(bytes(block[32:]))).ljust(32, b"\0")


def _seal_f2fs(block: bytearray) -> None:
    """A checkpoint's CRC-32, begun with the magic and not inverted (f2fs_crc32 in fs/f2fs/f2fs.h), where it says."""
    at = min(int.from_bytes(block[164:168], "little"), len(block) - 4)
    value = zlib.crc32(block[:at], 0xF2F52010 ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    block[at : at + 4] = struct.pack("<I", value)


def _seal_xfs(at: int) -> Callable[[bytearray], None]:
    """CRC-32C over the whole, itself taken as 0 (xfs_cksum.h)."""

    def seal(block: bytearray) -> None:
        block[at : at + 4] = bytes(4)
        block[at : at + 4] = struct.pack("<I", crc32c(bytes(block)))

    return seal


def crc32c(data: bytes) -> int:
    """Castagnoli's, which neither zlib nor binascii has."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _crc_table(polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc_table(0x82F63B78)
