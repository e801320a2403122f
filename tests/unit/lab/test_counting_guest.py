"""What the disk of the counting guest tells: the checks that the cluster's tests of volumes rest on."""

from __future__ import annotations

import struct

import pytest

from tests.cluster.volumes.counting_guest import FIRST, SECTOR, Row, boot_sector, read_row


def disk(*lives: int, size: int = 8) -> bytes:
    """Sectors written by these lives, one each; 0 is a sector that was not written."""
    sectors = [struct.pack("<II", FIRST + i if life else 0, life).ljust(SECTOR, b"\0") for i, life in enumerate(lives)]
    return bytes(FIRST * SECTOR) + b"".join(sectors).ljust(size * SECTOR, b"\0")


@pytest.mark.parametrize(
    ("lives", "row"), [((), Row(0, 0)), ((7, 7, 7), Row(3, 1)), ((7, 7, 9), Row(3, 2)), ((5,) * 8, Row(8, 1))]
)
def test_an_unbroken_row_is_counted(lives: tuple[int, ...], row: Row) -> None:
    assert read_row(disk(*lives)) == row


def test_a_write_that_was_lost_is_seen() -> None:
    with pytest.raises(AssertionError, match=r"sector 2050 has 2050, not 0: 1 were written"):
        read_row(disk(7, 0, 7))


def test_a_second_writer_is_seen() -> None:
    with pytest.raises(AssertionError, match=r"sector 2050 was written by a guest whose successor"):
        read_row(disk(7, 9, 7))


def test_a_sector_in_the_place_of_another_is_seen() -> None:
    raw = disk(7, 7)
    swapped = raw[: FIRST * SECTOR] + raw[(FIRST + 1) * SECTOR : (FIRST + 2) * SECTOR] + raw[(FIRST + 1) * SECTOR :]
    with pytest.raises(AssertionError, match=r"sector 2048 has 2049"):
        read_row(swapped)


def test_the_boot_sector_is_one() -> None:
    assert len(boot_sector()) == SECTOR and boot_sector()[-2:] == b"\x55\xaa"
