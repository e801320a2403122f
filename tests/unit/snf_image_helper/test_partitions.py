"""The parser of partition tables, and what it does with tables made to hurt."""

from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from snf_image_helper.partitions import (
    GPT_ENTRY,
    GPT_HEADER,
    LINUX_GPT,
    Gpt,
    Mbr,
    Reader,
    Table,
    TableError,
    guid_bytes,
    guid_of,
    guid_text,
    parse_table,
)

from tests.unit.snf_image_helper.fake_image import FakeDisk, mbr_sector

SECTORS = 131072  # 64 MiB


def parse(disk: FakeDisk) -> Table | None:
    read: Reader = disk.read
    return parse_table(read, disk_sectors=disk.sectors)


def gpt_disk(
    partitions: dict[int, tuple[int, int]],
    *,
    sectors: int = SECTORS,
    first: int = 34,
    last: int | None = None,
    count: int = 128,
    entry_size: int = 128,
    break_header: bool = False,
    break_entries: bool = False,
    kinds: dict[int, str] | None = None,
    names: dict[int, str] | None = None,
) -> FakeDisk:
    """A GPT with partitions of number -> (first, last sector): Linux ones, but for what `kinds` says."""
    entries = bytearray(count * entry_size if count * entry_size <= 1 << 20 else 0)
    for number, (start, end) in partitions.items():
        kind, name = (kinds or {}).get(number, LINUX_GPT), (names or {}).get(number, "")
        label = name.encode("utf-16-le").ljust(72, b"\0")
        entry = GPT_ENTRY.pack(guid_bytes(kind), bytes([number] * 16), start, end, 0, label)
        entries[(number - 1) * entry_size : (number - 1) * entry_size + 128] = entry
    fields = [b"EFI PART", b"\0\0\1\0", 92, 0, 0, 1, sectors - 1, first, last or sectors - 34, bytes(16), 2]
    header = bytearray(GPT_HEADER.pack(*fields, count, entry_size, zlib.crc32(bytes(entries))))
    struct.pack_into("<I", header, 16, zlib.crc32(bytes(header)) ^ int(break_header))
    if break_entries:
        entries[0] ^= 1
    return FakeDisk(sectors, {0: mbr_sector((0xEE, 1, sectors - 1)), 1: bytes(header), 2: bytes(entries)})


def test_a_disk_of_zeros_has_no_table() -> None:
    assert parse(FakeDisk(SECTORS, {})) is None


def test_boot_code_without_a_partition_is_no_table() -> None:
    assert parse(FakeDisk(SECTORS, {0: b"\xeb\x58" + mbr_sector()[2:]})) is None
    empty = parse(FakeDisk(SECTORS, {0: mbr_sector((0x05, 2048, 2048))}))
    assert isinstance(empty, Mbr) and empty.extended is not None and not empty.partitions


def test_a_gpt_gives_its_partitions() -> None:
    table = parse(gpt_disk({1: (2048, 100351), 14: (100352, 108543)}))
    assert isinstance(table, Gpt)
    assert [(p.number, p.start, p.sectors) for p in table.partitions] == [(1, 2048, 98304), (14, 100352, 8192)]
    assert (table.backup, table.last_usable) == (SECTORS - 1, SECTORS - 34)


def test_an_mbr_gives_primary_and_logical_partitions() -> None:
    disk = FakeDisk(
        SECTORS,
        {
            0: mbr_sector((0x83, 2048, 20480), (0x05, 24576, 65536)),
            24576: mbr_sector((0x83, 2048, 8192), (0x05, 12288, 10240)),
            36864: mbr_sector((0x82, 2048, 4096)),
        },
    )
    table = parse(disk)
    assert isinstance(table, Mbr)
    assert [(p.number, p.start, p.sectors) for p in table.partitions] == [
        (1, 2048, 20480),
        (5, 26624, 8192),
        (6, 38912, 4096),
    ]
    assert table.extended is not None and table.extended.number == 2


@pytest.mark.parametrize(("signature", "guids"), [(0x0CAFE123, ["0cafe123-01", "0cafe123-05"]), (0, ["", ""])])
def test_partuuids_of_an_mbr_are_made_of_its_signature(signature: int, guids: list[str]) -> None:
    first = bytearray(mbr_sector((0x83, 2048, 20480), (0x05, 24576, 65536)))
    struct.pack_into("<I", first, 440, signature)
    table = parse(FakeDisk(SECTORS, {0: bytes(first), 24576: mbr_sector((0x83, 2048, 8192))}))
    assert table is not None and [p.guid for p in table.partitions] == guids


@pytest.mark.parametrize("name", [b"NTFS    ", b"MSDOS5.0"])
def test_a_boot_sector_of_a_filesystem_is_not_a_table(name: bytes) -> None:
    sector = bytearray(mbr_sector((0x83, 1, 1)))
    sector[0:3], sector[3:11], sector[54:59] = b"\xeb\x3c\x90", name, b"FAT16"
    assert parse(FakeDisk(SECTORS, {0: bytes(sector)})) is None


@pytest.mark.parametrize(
    ("sector", "says"),
    [
        (mbr_sector((0xEE, 1, SECTORS - 1), (0x83, 2048, 4096)), "hybrid"),
        (mbr_sector((0xEE, 1, SECTORS - 1)), "no GPT header"),
        (mbr_sector((0x83, 2048, 4096), (0x83, 4096, 4096)), "partitions 1 and 2 overlap"),
        (mbr_sector((0x83, 2048, 0xFFFFFFFF)), "beyond the disk"),
        (mbr_sector((0x83, 0, 4096)), "beyond the disk"),
        (mbr_sector((0x05, 2048, 4096), (0x0F, 8192, 4096)), "two extended"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(sector: bytes, says: str) -> None:
    with pytest.raises(TableError, match=says):
        parse(FakeDisk(SECTORS, {0: sector}))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (mbr_sector((0x83, 2048, 4096), (0x05, 0, 8192)), "out of the extended partition|circle"),
        (mbr_sector((0x83, 2048, 4096), (0x05, 0xFFFF0000, 8192)), "out of the extended partition"),
        (mbr_sector((0x83, 2048, 0x7FFFFFFF)), "outside of the extended"),
        (mbr_sector((0x83, 0, 16)), "outside of the extended"),
        (mbr_sector((0x83, 2048, 16), (0x05, 4096, 8192)), "holds no record"),
    ],
)
def test_a_record_of_a_logical_partition_that_leads_elsewhere_is_refused(record: bytes, says: str) -> None:
    with pytest.raises(TableError, match=says):
        parse(FakeDisk(SECTORS, {0: mbr_sector((0x05, 2048, 65536)), 2048: record}))


def test_a_circle_of_logical_partitions_ends() -> None:
    disk = FakeDisk(
        SECTORS,
        {
            0: mbr_sector((0x05, 2048, 65536)),
            2048: mbr_sector(None, (0x05, 4096, 64)),
            6144: mbr_sector(None, (0x05, 8192, 64)),
            10240: mbr_sector(None, (0x05, 4096, 64)),
        },
    )
    with pytest.raises(TableError, match="circle"):
        parse(disk)
    assert disk.reads < 10


def test_a_chain_of_thousands_is_not_followed() -> None:
    records = {2048 + n: mbr_sector(None, (0x05, n + 1, 1)) for n in range(5000)}
    disk = FakeDisk(SECTORS, {0: mbr_sector((0x05, 2048, 65536)), **records})
    with pytest.raises(TableError, match="over 60"):
        parse(disk)
    assert disk.reads < 70


@pytest.mark.parametrize(
    ("disk", "says"),
    [
        (gpt_disk({}, break_header=True), "checksum does not agree"),
        (gpt_disk({1: (2048, 4095)}, break_entries=True), "checksum does not agree"),
        (gpt_disk({}, count=0xFFFFFFFF), "claims 4294967295 entries"),
        (gpt_disk({}, count=0), "claims 0 entries"),
        (gpt_disk({}, entry_size=1), "of 1 bytes"),
        (gpt_disk({}, entry_size=4096, count=128), "claims 128 entries of 4096"),
        (gpt_disk({1: (2048, 4095), 2: (4000, 5000)}), "partitions 1 and 2 overlap"),
        (gpt_disk({1: (2048, 0xFFFFFFFFFF)}), "outside of its usable"),
        (gpt_disk({1: (5000, 4000)}), "outside of its usable"),
        (gpt_disk({}, last=1 << 50), "does not fit"),
        (gpt_disk({}, first=1), "does not fit"),
    ],
)
def test_a_damaged_gpt_is_refused(disk: FakeDisk, says: str) -> None:
    with pytest.raises(TableError, match=says):
        parse(disk)
    assert disk.reads < 10


def test_a_gpt_of_4096_byte_sectors_is_told_apart_from_a_missing_one() -> None:
    disk = FakeDisk(SECTORS, {0: mbr_sector((0xEE, 1, 1000)), 8: b"EFI PART"})
    with pytest.raises(TableError, match="sectors of 4096"):
        parse(disk)


@pytest.mark.parametrize("length", [0, 100, 511, 512, 600, 1023, 1024, 1100])
def test_a_disk_cut_short_is_refused_and_nothing_else(length: int) -> None:
    whole = gpt_disk({1: (2048, 4095)})
    with pytest.raises(TableError):
        parse_table(lambda offset, n: bytes(whole.data[:length][offset : offset + n]), disk_sectors=whole.sectors)


def test_every_single_flipped_byte_gives_a_table_or_a_sentence() -> None:
    """No other exception, and never more than a bounded number of reads."""
    disk = gpt_disk({1: (2048, 4095)}, sectors=8192)
    for offset in [*range(440, 512), *range(512, 604), *range(1024, 1152)]:
        disk.data[offset] ^= 0xFF
        disk.reads = 0
        try:
            parse(disk)
        except TableError as e:
            assert str(e)
        assert disk.reads < 70
        disk.data[offset] ^= 0xFF


def test_guids_are_those_of_the_standard_module() -> None:
    standard = uuid.UUID(guid_of("seed"))
    assert (standard.version, standard.variant) == (4, uuid.RFC_4122)
    assert guid_text(standard.bytes_le) == str(standard)
    assert guid_bytes(str(standard)) == standard.bytes_le
    assert guid_of("seed") == guid_of("seed") != guid_of("other")
