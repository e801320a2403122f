"""A partition table of our own making, for an image that is one file system: extdump and ntfsdump.

    0        1          2048 sectors (1 MiB)                      n
    MBR      (zeros)    the image, which is the only partition    zeros, into which the helper VM lets it grow

Sources: the layout of the classical MBR (440 bytes of boot code, a 4-byte signature, four entries of 16 bytes, 55 AA);
snf-image puts such images at sector 2048 too, and NTFS has that number in its boot sector.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synnefo_light.errors import UserError
from synnefo_light.files import read_bounded
from synnefo_light.log import logger
from synnefo_light.manifest import ImageFormat
from synnefo_light.units import MIB, SECTOR

START: Final = 2048  # sectors; 1 MiB
LEAD: Final = START * SECTOR
LIMIT: Final = 0xFFFFFFFF  # sectors that an entry can count
TYPES: Final = {ImageFormat.EXTDUMP: 0x83, ImageFormat.NTFSDUMP: 0x07}
#: Loads the first sector of the bootable partition and jumps there; of Debian's package syslinux-common.
BOOT_CODE: Final = Path("/usr/lib/syslinux/mbr/mbr.bin")
CODE_LIMIT: Final = 440
_HEADS, _PER_TRACK = 255, 63  # the geometry that everybody pretends


@dataclass(frozen=True, slots=True, kw_only=True)
class Mbr:
    """The one partition: bootable, from sector START."""

    type: int
    sectors: int
    signature: int  # of the disk; any number, but Windows tells disks apart by it

    @property
    def size(self) -> int:
        """Bytes from the disk's begin to the partition's end."""
        return (START + self.sectors) * SECTOR


def plan_mbr(image_format: ImageFormat, *, image: int, disk: int, signature: int) -> Mbr:
    """For an image of `image` bytes on a disk of `disk` bytes, on which it fits. Raises UserError over 2 TiB.

    The partition ends on a whole MiB where the disk has room for that.
    """
    sectors = -(-image // SECTOR)
    whole = -(-image // MIB) * MIB // SECTOR
    if START + whole <= min(disk // SECTOR, LIMIT):
        sectors = whole
    if START + sectors > LIMIT:
        raise UserError(
            f"an {image_format.value} gets an MBR, which ends at 2 TiB, but the image has {image} bytes; "
            f"make a diskdump with a GPT of it"
        )
    return Mbr(type=TYPES[image_format], sectors=sectors, signature=signature & 0xFFFFFFFF)


def render_mbr(mbr: Mbr, *, code: bytes = b"") -> bytes:
    """The disk up to the partition: the MBR and zeros. `code` has at most 440 bytes."""
    assert len(code) <= CODE_LIMIT
    first, last = START, START + mbr.sectors - 1
    entry = struct.pack("<B3sB3sII", 0x80, _chs(first), mbr.type, _chs(last), first, mbr.sectors)
    table = entry.ljust(64, b"\0")
    sector = code.ljust(CODE_LIMIT, b"\0") + struct.pack("<IH", mbr.signature, 0) + table + b"\x55\xaa"
    return sector.ljust(LEAD, b"\0")


def read_boot_code(path: Path = BOOT_CODE) -> bytes:
    """The boot code that the node has; empty, with a warning that says what follows, where it has none."""
    try:
        code = read_bounded(path, limit=CODE_LIMIT)
    except FileNotFoundError:
        logger.warning(
            "boot-code=%s absent: the disk's MBR is without boot code, so no firmware can start the instance off it "
            "(only a kernel given to the hypervisor can); install syslinux-common",
            path,
        )
        return b""
    return code


def _chs(sector: int) -> bytes:
    """Cylinder, head, sector, as an entry has it; what lies beyond 1023 cylinders is 1023/254/63."""
    cylinder, rest = divmod(sector, _HEADS * _PER_TRACK)
    head, below = divmod(rest, _PER_TRACK)
    if cylinder > 1023:
        cylinder, head, below = 1023, _HEADS - 1, _PER_TRACK - 1
    return bytes((head, (below + 1) | (cylinder >> 8 << 6), cylinder & 0xFF))
