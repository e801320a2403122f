"""Partition tables that contradict themselves, go in circles, or count to the sky. The file system behind is good.

Checksums of a GPT are right wherever the attack is not the checksum itself.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.attack.attempt import Attack
from tests.disk_images import MIB, make_disk

SECTOR = 512
DISK_MIB = 51  # of an image: 1 before, 48 of file system, 2 behind
SECTORS = DISK_MIB * MIB // SECTOR
LINUX = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
Record = tuple[int, int, int]  # type, first sector, sectors
Change = Callable[[bytearray], None]


def corpus() -> tuple[Attack, ...]:
    return tuple(
        Attack(
            name=f"table-{name}",
            make=functools.partial(_make, change=change),
            must="fail" if cause else "either",
            cause=cause,
        )
        for name, (change, cause) in TABLES.items()
    )


def _make(path: Path, *, change: Change) -> None:
    """The first 34 sectors and all records of the disk are what `change` makes of them."""
    make_disk(path)
    with open(path, "r+b") as disk:
        head = bytearray(disk.read(DISK_MIB * MIB))
        change(head)
        disk.seek(0)
        for at in range(0, len(head), MIB):  # stay sparse
            block = head[at : at + MIB]
            if any(block):
                disk.seek(at)
                disk.write(block)


# --- MBR


def mbr(*records: Record) -> Change:
    def change(disk: bytearray) -> None:
        disk[SECTOR : 34 * SECTOR] = bytes(33 * SECTOR)  # no GPT
        disk[-33 * SECTOR :] = bytes(33 * SECTOR)
        put_records(disk, 0, *records)

    return change


def put_records(disk: bytearray, sector: int, *records: Record) -> None:
    block = bytearray(SECTOR)
    for index, record in enumerate(records):
        struct.pack_into("<4xB3xII", block, 446 + 16 * index, *record)
    block[510:] = b"\x55\xaa"
    disk[sector * SECTOR : (sector + 1) * SECTOR] = block


def chain(*links: tuple[int, tuple[Record, ...]]) -> Change:
    """An extended partition over the first MiB and more, with records where `links` say."""

    def change(disk: bytearray) -> None:
        mbr((0x05, 64, 1900), (0x83, 2048, 96 * 1024))(disk)
        for sector, records in links:
            put_records(disk, sector, *records)

    return change


def _long_chain(disk: bytearray) -> None:
    mbr((0x05, 64, 1900), (0x83, 2048, 96 * 1024))(disk)
    for n in range(200):
        put_records(disk, 64 + 4 * n, (0x83, 1, 2), (0x05, 4 * (n + 1), 4))


# --- GPT


def gpt(*, entries: Callable[[bytearray], None] = lambda entries: None, reseal: bool = True, **fields: int) -> Change:
    """The good table with fields of its header, or its entries, changed; checksums follow unless told not to."""

    def change(disk: bytearray) -> None:
        table = disk[2 * SECTOR : 34 * SECTOR]
        entries(table)
        disk[2 * SECTOR : 34 * SECTOR] = table
        header = bytearray(disk[SECTOR : 2 * SECTOR])
        for name, value in fields.items():
            layout, offset = HEADER[name]
            struct.pack_into(layout, header, offset, value)
        if reseal:
            struct.pack_into("<I", header, 88, zlib.crc32(table))
            header[16:20] = bytes(4)
            struct.pack_into("<I", header, 16, zlib.crc32(bytes(header[:92])))
        disk[SECTOR : 2 * SECTOR] = header

    return change


HEADER: Mapping[str, tuple[str, int]] = {
    **{"size": ("<I", 12), "here": ("<Q", 24), "backup": ("<Q", 32), "first": ("<Q", 40), "last": ("<Q", 48)},
    **{"entries_at": ("<Q", 72), "count": ("<I", 80), "entry_size": ("<I", 84)},
}


def entry(index: int, first: int, last: int, *, name: bytes = b"x") -> Change:
    def change(entries: bytearray) -> None:
        made = struct.pack("<16s16sQQQ72s", LINUX, bytes([index + 1]) * 16, first, last, 0, name[:72])
        entries[index * 128 : (index + 1) * 128] = made

    return change


def _many(entries: bytearray) -> None:
    for index in range(1, 128):
        entry(index, 2048 + 96 * 1024 + index, 2048 + 96 * 1024 + index)(entries)


def _hybrid(disk: bytearray) -> None:
    put_records(disk, 0, (0xEE, 1, 2047), (0x83, 2048, 96 * 1024))


def _no_header(disk: bytearray) -> None:
    disk[SECTOR : 2 * SECTOR] = bytes(SECTOR)


def _big_sectors(disk: bytearray) -> None:
    disk[4096 : 4096 + SECTOR] = disk[SECTOR : 2 * SECTOR]
    disk[SECTOR : 2 * SECTOR] = bytes(SECTOR)


def _all_ones(disk: bytearray) -> None:
    disk[446:510] = b"\xff" * 64


#: What is done to the table, and what the sentence must say; without one it may be deployed as well.
TABLES: Mapping[str, tuple[Change, str]] = {
    "ebr-circle": (chain((64, ((0x83, 1, 2), (0x05, 0, 4)))), "logical|circle|chain"),
    "ebr-circle-of-two": (
        chain((64, ((0x83, 1, 2), (0x05, 8, 4))), (72, ((0x83, 1, 2), (0x05, 8, 4)))),
        "runs in a circle",
    ),
    "ebr-over-60": (_long_chain, "over 60 logical partitions"),
    "ebr-leads-out": (chain((64, ((0x83, 1, 2), (0x05, 0x7FFFFFFF, 4)))), "leads out of the extended partition"),
    "ebr-leads-to-nothing": (chain((64, ((0x83, 1, 2), (0x05, 100, 4)))), "holds no record"),
    "ebr-logical-outside": (chain((64, ((0x83, 1, 0x7FFFFFFF),))), "lies outside of the extended partition"),
    "ebr-logical-overlap": (
        chain((64, ((0x83, 1, 100), (0x05, 8, 4))), (72, ((0x83, 1, 50),))),
        "partitions 5 and 6 overlap",
    ),
    "mbr-overlap": (mbr((0x83, 2048, 96 * 1024), (0x83, 4096, 1024)), "partitions 1 and 2 overlap"),
    "mbr-beyond-the-disk": (mbr((0x83, 2048, 0xFFFFFFFF)), "lies beyond the disk"),
    "mbr-from-sector-0": (mbr((0x83, 0, 98304)), "partition 1"),
    "mbr-two-extended": (
        mbr((0x05, 64, 100), (0x05, 200, 100), (0x83, 2048, 96 * 1024)),
        "two extended partitions",
    ),
    "mbr-all-ones": (_all_ones, "partition"),
    "mbr-empty": (mbr(), "no partition"),
    "gpt-wrong-checksum": (gpt(reseal=False, first=35), "checksum does not agree"),
    "gpt-wrong-entries": (gpt(reseal=False, entries=entry(3, 99, 100)), "entries are damaged"),
    "gpt-4-billion-entries": (gpt(count=0xFFFFFFFF), "claims 4294967295 entries"),
    "gpt-entries-of-0-bytes": (gpt(entry_size=0), "entries of 0 bytes"),
    "gpt-entries-of-2-gib": (gpt(entry_size=1 << 31), "entries of 2147483648 bytes"),
    "gpt-entries-beyond-the-disk": (gpt(entries_at=1 << 62), "entries are damaged"),
    "gpt-elsewhere": (gpt(here=7), "primary header is damaged"),
    "gpt-header-of-4-gib": (gpt(size=0xFFFFFFFF), "primary header is damaged"),
    "gpt-backup-beyond-the-disk": (gpt(backup=(1 << 64) - 1), "does not fit a disk"),
    "gpt-usable-over-its-entries": (gpt(first=2), "usable, which does not fit"),
    "gpt-overlap": (gpt(entries=entry(1, 4096, 8192)), "partitions 1 and 2 overlap"),
    "gpt-backwards": (gpt(entries=entry(1, 100400, 100390)), "partition 2 of the GPT is outside"),
    "gpt-beyond-its-usable": (gpt(entries=entry(1, 99000, (1 << 63) - 1)), "partition 2 of the GPT is outside"),
    "gpt-128-partitions": (gpt(entries=_many), ""),
    "gpt-name-of-halves": (gpt(entries=entry(1, 100400, 100410, name=b"\x00\xd8" * 36)), ""),
    "gpt-hybrid": (_hybrid, "hybrid"),
    "gpt-without-header": (_no_header, "no GPT header"),
    "gpt-of-4096": (_big_sectors, "sectors of 4096"),
}
