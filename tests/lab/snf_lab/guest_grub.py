"""GRUB for a BIOS put onto a disk image by plain arithmetic: no device, no mount, no grub-install.

grub-install wants a block device that it can probe. What it does at the end is small, and the same on a file:
boot.img goes into sector 0 and is told the sector of core.img; the first sector of core.img is told where the rest of
it lies. Offsets are those of grub-core/boot/i386/pc/{boot,diskboot}.S and include/grub/i386/pc/boot.h (GRUB 2.06).
"""

from __future__ import annotations

import struct

from synnefo_light.errors import EnvironmentFault

SECTOR = 512
BOOT_CODE_END = 0x1B8  # then: disk signature, partition table, 55 AA
KERNEL_SECTOR = 0x5C
BOOT_DRIVE = 0x64
DRIVE_CHECK = 0x66
# Counted from the start of the first sector: u64 first sector, u16 how many, u16 segment to load them to.
FIRST_BLOCKLIST = SECTOR - 12
SIGNATURE = b"\x55\xaa"


def patch_boot_sector(*, boot_image: bytes, present: bytes, core_start: int) -> bytes:
    """Sector 0: GRUB's boot code in front of the partition table that is already there.

    Raises EnvironmentFault when either is not what it should be.
    """
    if len(boot_image) != SECTOR or boot_image[-2:] != SIGNATURE:
        raise EnvironmentFault(f"GRUB's boot.img has {len(boot_image)} bytes or no signature; 512 were expected")
    if len(present) != SECTOR or present[-2:] != SIGNATURE:
        raise EnvironmentFault("the disk has no MBR or protective MBR yet; write the partition table first")
    code = bytearray(boot_image[:BOOT_CODE_END])
    struct.pack_into("<Q", code, KERNEL_SECTOR, core_start)
    code[BOOT_DRIVE] = 0xFF  # boot from the drive that the BIOS names
    # grub-setup does this for hard disks: the jump over a workaround for BIOSes that name a wrong drive becomes NOPs.
    code[DRIVE_CHECK : DRIVE_CHECK + 2] = b"\x90\x90"
    return bytes(code) + present[BOOT_CODE_END:]


def patch_core_image(*, core_image: bytes, core_start: int, room: int) -> bytes:
    """core.img, padded to whole sectors, knowing that it starts at sector `core_start` and lies in one piece.

    Raises EnvironmentFault when it needs more than `room` sectors.
    """
    sectors = -(-len(core_image) // SECTOR)
    if not 2 <= sectors <= room:
        raise EnvironmentFault(
            f"GRUB's core.img needs {sectors} sectors; between 2 and {room} fit in front of the root"
        )
    core = bytearray(core_image.ljust(sectors * SECTOR, b"\0"))
    _, _, segment = struct.unpack_from("<QHH", core, FIRST_BLOCKLIST)
    struct.pack_into("<QHH", core, FIRST_BLOCKLIST, core_start + 1, sectors - 1, segment)
    return bytes(core)
