"""Partition tables of an untrusted disk, read by our own parser: MBR with logical partitions, and GPT.

Reading is bounded: a GPT has at most 128 KiB of entries, a chain of logical partitions at most 60 links that never
return to a sector. What contradicts itself is refused with a sentence, because changing such a table could lose data:
partitions that overlap, that lie beyond the disk, checksums that do not agree.

Sectors have 512 bytes here: the host offers the disk to the VM so.

Sources: UEFI 2.10, 5.2.3 and 5.3; for logical partitions the kernel's block/partitions/msdos.c.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

from synnefo_light.errors import PeerError

SECTOR: Final = 512
GPT_HEADER: Final = struct.Struct("<8s4sIIIQQQQ16sQIII")
GPT_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
ENTRIES_LIMIT: Final = 128 << 10
LOGICAL_LIMIT: Final = 60
EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
LINUX_GPT: Final = "0fc63daf-8483-4772-8e79-3d69d8477de4"
LINUX_ROOT_GPT: Final = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
EFI_GPT: Final = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BOOT_GPT: Final = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
DATA_GPT: Final = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
FREEBSD_GPT: Final = "516e7cb6-6ecf-11d6-8ff8-00022d09712b"
FREEBSD_ZFS_GPT: Final = "516e7cba-6ecf-11d6-8ff8-00022d09712b"
SWAP_GPT: Final = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
LINUX_MBR: Final = 0x83
SWAP_MBR: Final = 0x82

#: Bytes of the disk: offset and length in bytes; short at the disk's end.
Reader = Callable[[int, int], bytes]


class TableError(PeerError):
    """The disk's partition table is damaged, or of a kind that must not be changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition. `start` and `sectors` count 512-byte sectors; `kind` is a GPT's GUID or an MBR's type byte."""

    number: int
    start: int
    sectors: int
    kind: str | int
    where: int  # GPT: index of the entry; MBR: the sector of the record that describes it
    name: str = ""  # of a GPT: PARTLABEL
    guid: str = ""  # PARTUUID, which an MBR makes of its disk's signature and the partition's number

    @property
    def end(self) -> int:
        """The first sector behind it."""
        return self.start + self.sectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpt:
    """What a GPT's primary header says; the disk may have grown since."""

    label: Literal["gpt"] = "gpt"
    partitions: tuple[Partition, ...]
    header: bytes  # one sector
    entries: bytes
    protective: bytes  # one sector
    first_usable: int
    last_usable: int
    backup: int  # sector of the backup header
    entry_size: int

    @property
    def entry_sectors(self) -> int:
        return -(-len(self.entries) // SECTOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mbr:
    """A DOS label. `extended` is the primary partition that holds the logical ones."""

    label: Literal["mbr"] = "mbr"
    partitions: tuple[Partition, ...]  # without the extended one
    extended: Partition | None
    records: tuple[tuple[int, bytes], ...]  # each sector with a record, and its bytes: sector 0 first


Table = Gpt | Mbr


def parse_table(read: Reader, *, disk_sectors: int) -> Table | None:
    """The disk's partition table, None if it has none. Raises TableError when it must not be trusted."""
    first = _sector(read, 0)
    if first[510:512] != b"\x55\xaa":
        return None
    kinds = [first[446 + 16 * n + 4] for n in range(4)]
    if 0xEE in kinds:
        if any(kind not in (0, 0xEE) for kind in kinds):
            raise TableError("the disk has a hybrid of GPT and MBR, which cannot be changed safely; use a plain GPT")
        return _parse_gpt(read, first, disk_sectors)
    if _is_boot_sector_of_a_filesystem(first):
        return None
    table = _parse_mbr(read, first, disk_sectors)
    # Without a partition it is boot code in front of a file system on the whole disk (extlinux), or nothing.
    return table if table.partitions or table.extended is not None else None


def _parse_gpt(read: Reader, protective: bytes, disk_sectors: int) -> Gpt:
    header = _sector(read, 1)
    if header[:8] != b"EFI PART":
        if read(4096, 8) == b"EFI PART":
            raise TableError("the GPT is made for sectors of 4096 bytes; the disk has sectors of 512")
        raise TableError("the disk has a protective MBR but no GPT header in sector 1")
    (_, _, size, checksum, _, here, backup, first, last, _, entries_at, count, entry_size, entries_crc) = (
        GPT_HEADER.unpack_from(header)
    )
    if not 92 <= size <= SECTOR or zlib.crc32(header[:16] + bytes(4) + header[20:size]) != checksum or here != 1:
        raise TableError("the GPT's primary header is damaged: its checksum does not agree")
    if entry_size < 128 or entry_size % 128 or entry_size > 4096 or not 0 < count * entry_size <= ENTRIES_LIMIT:
        raise TableError(f"the GPT claims {count} entries of {entry_size} bytes, which is not a table we can trust")
    length = count * entry_size
    entries = read(entries_at * SECTOR, length) if entries_at < disk_sectors else b""
    if len(entries) != length or zlib.crc32(entries) != entries_crc:
        raise TableError("the GPT's entries are damaged: their checksum does not agree")
    if not (entries_at + -(-length // SECTOR) <= first <= last < disk_sectors and backup < disk_sectors):
        raise TableError(
            f"the GPT says that sectors {first} to {last} are usable, which does not fit a disk of {disk_sectors}"
        )
    partitions = []
    for index in range(count):
        kind, unique, start, end, _, name = GPT_ENTRY.unpack_from(entries, index * entry_size)
        if kind != bytes(16):
            if not first <= start <= end <= last:
                raise TableError(f"partition {index + 1} of the GPT is outside of its usable sectors")
            partition = Partition(
                number=index + 1,
                start=start,
                sectors=end - start + 1,
                kind=guid_text(kind),
                where=index,
                name=name.decode("utf-16-le", "replace").partition("\0")[0],
                guid=guid_text(unique),
            )
            partitions.append(partition)
    _must_not_overlap(partitions)
    return Gpt(
        partitions=tuple(partitions),
        header=header,
        entries=entries,
        protective=protective,
        first_usable=first,
        last_usable=last,
        backup=backup,
        entry_size=entry_size,
    )


def _parse_mbr(read: Reader, first: bytes, disk_sectors: int) -> Mbr:
    primary: list[Partition] = []
    extended: list[Partition] = []
    for number in range(1, 5):
        kind, start, sectors = _record(first, number - 1)
        if kind and sectors:
            place = extended if kind in EXTENDED else primary
            place.append(Partition(number=number, start=start, sectors=sectors, kind=kind, where=0))
    for partition in primary + extended:
        if partition.start == 0 or partition.end > disk_sectors:
            raise TableError(f"partition {partition.number} lies beyond the disk, which has {disk_sectors} sectors")
    _must_not_overlap(primary + extended)
    if len(extended) > 1:
        raise TableError("the MBR has two extended partitions; one at most is meant to be")
    logical: list[Partition] = []
    records = [(0, first)]
    if extended:
        logical, chain = _parse_chain(read, extended[0])
        records += chain
    return Mbr(
        partitions=tuple(replace(p, guid=_partuuid(first, p.number)) for p in primary + logical),
        extended=extended[0] if extended else None,
        records=tuple(records),
    )


def _partuuid(first: bytes, number: int) -> str:
    """As Linux and libblkid write it; none where the disk has no signature."""
    (signature,) = struct.unpack_from("<I", first, 440)
    return f"{signature:08x}-{number:02x}" if signature else ""


def _parse_chain(read: Reader, extended: Partition) -> tuple[list[Partition], list[tuple[int, bytes]]]:
    """The logical partitions: a chain of records, each with one partition and a pointer to the next."""
    logical: list[Partition] = []
    records: list[tuple[int, bytes]] = []
    at = extended.start
    while True:
        if any(at == seen for seen, _ in records):
            raise TableError("the chain of logical partitions runs in a circle")
        if len(records) == LOGICAL_LIMIT:
            raise TableError(f"the disk has over {LOGICAL_LIMIT} logical partitions")
        sector = _sector(read, at)
        if sector[510:512] != b"\x55\xaa":
            if not records:
                return [], []
            raise TableError(f"the chain of logical partitions leads to sector {at}, which holds no record")
        records.append((at, sector))
        following = None
        for index in range(4):
            kind, start, sectors = _record(sector, index)
            if not kind or not sectors:
                continue
            if kind in EXTENDED:
                following = extended.start + start if following is None else following
            else:
                found = Partition(number=5 + len(logical), start=at + start, sectors=sectors, kind=kind, where=at)
                if start == 0 or found.end > extended.end:
                    raise TableError(f"logical partition {found.number} lies outside of the extended partition")
                logical.append(found)
        if following is None:
            break
        if not extended.start < following < extended.end:
            raise TableError("the chain of logical partitions leads out of the extended partition")
        at = following
    _must_not_overlap(logical)
    return logical, records


def guid_text(raw: bytes) -> str:
    """A GUID as people write it. GPT keeps its first three parts with the low byte first (UEFI 2.10, appendix A).

    Not by the module uuid, which takes longer to import in an emulated VM than all the rest of this one.
    """
    whole = (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex()
    return "-".join((whole[:8], whole[8:12], whole[12:16], whole[16:20], whole[20:]))


def guid_bytes(text: str) -> bytes:
    raw = bytes.fromhex(text.replace("-", ""))
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def guid_of(seed: str) -> str:
    """A GUID that is as good as random, and the same for the same seed, so that planning stays pure."""
    raw = bytearray(hashlib.sha256(seed.encode()).digest()[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80  # RFC 9562: version 4, variant 2
    return guid_text(guid_bytes(raw.hex()))


def _record(sector: bytes, index: int) -> tuple[int, int, int]:
    """Type, start and length of one of the four records of an MBR or EBR."""
    kind: int
    kind, start, sectors = struct.unpack_from("<4xB3xII", sector, 446 + 16 * index)
    return kind, start, sectors


def _must_not_overlap(partitions: Iterable[Partition]) -> None:
    ordered = sorted(partitions, key=lambda p: p.start)
    for one, other in pairwise(ordered):
        if one.end > other.start:
            raise TableError(f"partitions {one.number} and {other.number} overlap")


def _is_boot_sector_of_a_filesystem(sector: bytes) -> bool:
    """FAT and NTFS put their own boot code and the same 55 AA in sector 0 (a whole-disk file system)."""
    jump = sector[0] in (0xEB, 0xE9)
    named = sector[3:11] == b"NTFS    " or sector[54:59] in (b"FAT12", b"FAT16") or sector[82:87] == b"FAT32"
    return jump and named


def _sector(read: Reader, number: int) -> bytes:
    data = read(number * SECTOR, SECTOR)
    if len(data) != SECTOR:
        raise TableError(f"sector {number} is beyond the disk's end")
    return data
