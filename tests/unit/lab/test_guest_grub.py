"""GRUB's two files, patched as its own installer would."""

from __future__ import annotations

import struct

import pytest
from snf_lab.guest_grub import SECTOR, patch_boot_sector, patch_core_image

from synnefo_light.errors import EnvironmentFault

BOOT = bytes(range(256)) * 2
BOOT_IMAGE = BOOT[:510] + b"\x55\xaa"
TABLE = b"\0" * 0x1B8 + b"SIGN\0\0" + b"T" * 64 + b"\x55\xaa"


def test_the_boot_sector_has_grubs_code_and_the_disks_table() -> None:
    sector = patch_boot_sector(boot_image=BOOT_IMAGE, present=TABLE, core_start=2048)
    assert len(sector) == SECTOR
    assert sector[0x1B8:] == TABLE[0x1B8:]
    assert sector[:0x5C] == BOOT_IMAGE[:0x5C]
    assert struct.unpack_from("<Q", sector, 0x5C) == (2048,)
    assert sector[0x64] == 0xFF and sector[0x66:0x68] == b"\x90\x90"


@pytest.mark.parametrize(
    ("boot", "present", "words"),
    [
        (BOOT_IMAGE[:-1], TABLE, "boot.img"),
        (BOOT, TABLE, "boot.img"),
        (BOOT_IMAGE, b"\0" * 512, "partition table"),
    ],
)
def test_what_is_no_boot_sector_is_refused(boot: bytes, present: bytes, words: str) -> None:
    with pytest.raises(EnvironmentFault, match=words):
        patch_boot_sector(boot_image=boot, present=present, core_start=1)


def test_core_knows_where_its_rest_lies_and_keeps_the_segment_it_is_loaded_to() -> None:
    first = bytearray(SECTOR)
    struct.pack_into("<QHH", first, SECTOR - 12, 1, 99, 0x820)
    core = patch_core_image(core_image=bytes(first) + b"x" * 1000, core_start=2048, room=6144)
    assert len(core) == 3 * SECTOR
    assert struct.unpack_from("<QHH", core, SECTOR - 12) == (2049, 2, 0x820)
    assert core[SECTOR : SECTOR + 1000] == b"x" * 1000 and core[SECTOR + 1000 :] == b"\0" * 24


@pytest.mark.parametrize("size", [0, 512, 4 * 512 + 1])
def test_a_core_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(EnvironmentFault, match=r"core\.img"):
        patch_core_image(core_image=b"\0" * size, core_start=1, room=4)
