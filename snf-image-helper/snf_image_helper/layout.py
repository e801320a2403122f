"""How a partition table changes: the root partition takes the space behind it, perhaps less a swap partition.

All of it is pure: a table and the disk's size give the sectors to write. Nothing to change gives nothing, so a second
call on the same disk does nothing. What we do not understand of a record (boot code, flags, CHS of others, names) keeps
its bytes.

    | MBR/GPT | ... | root ->|<- grows ->| swap | (GPT: backup) |
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

from snf_image_helper.partitions import (
    EXTENDED,
    GPT_ENTRY,
    GPT_HEADER,
    SECTOR,
    SWAP_GPT,
    SWAP_MBR,
    Gpt,
    Mbr,
    Partition,
    Table,
    TableError,
    guid_bytes,
    guid_of,
)

ALIGN = 2048  # sectors: 1 MiB, as every tool of today aligns
MBR_SECTORS_LIMIT = 1 << 32
LBA_ONLY = b"\xfe\xff\xff"  # a CHS address that says: beyond CHS, use the LBA


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPartition:
    """A partition wanted at the end of the disk: swap, if nothing else is said."""

    number: int
    sectors: int
    seed: str  # makes the GPT's unique GUID, so that planning stays pure
    kind: str = SWAP_GPT  # of a GPT; an MBR's is always swap
    name: str = "swap"


@dataclass(frozen=True, slots=True, kw_only=True)
class SectorWrite:
    """Bytes of whole sectors, to be written at `sector`."""

    sector: int
    data: bytes


def plan_table(
    table: Table, *, root: int | None, disk_sectors: int, swap: NewPartition | None = None, moved: int | None = None
) -> tuple[SectorWrite, ...]:
    """What to write so that the root partition (if it is the last) and the swap use the disk to its end.

    `moved` is the number of a partition behind the root that goes to the disk's end without its content (see
    `movable`). Raises TableError when the swap partition's number is taken or has no place.
    """
    if isinstance(table, Gpt):
        return _plan_gpt(table, root, disk_sectors, swap, moved)
    return _plan_mbr(table, root, min(disk_sectors, MBR_SECTORS_LIMIT), swap, moved)


def movable(table: Table, *, root: int | None, disk_sectors: int) -> Partition | None:
    """The last partition, if it stands directly behind the root, is of a swap type, and there is room behind it.

    A logical one must be the only one, in an extended partition behind the root: then that moves with it.
    """
    last, partition = _last(table), partition_of(table, root or 0)
    if last is None or partition is None or last.kind not in (SWAP_GPT, SWAP_MBR):
        return None
    if any(partition.end <= p.start < last.start for p in table.partitions) or last.start < partition.end:
        return None
    if isinstance(table, Mbr) and last.number >= 5:
        alone = sum(p.number >= 5 for p in table.partitions) == 1
        if not alone or table.extended is None or table.extended.start < partition.end:
            return None
    limit = _usable_end(table, disk_sectors)
    return last if (limit - last.sectors) // ALIGN * ALIGN > last.start else None


def _usable_end(table: Table, disk_sectors: int) -> int:
    """The first sector behind what partitions can have."""
    if isinstance(table, Gpt):
        return disk_sectors - table.entry_sectors - 1
    return min(disk_sectors, MBR_SECTORS_LIMIT) // ALIGN * ALIGN


def partition_of(table: Table, number: int) -> Partition | None:
    return next((p for p in table.partitions if p.number == number), None)


def _last(table: Table) -> Partition | None:
    return max(table.partitions, key=lambda p: p.end, default=None)


def _swap_start(table: Table, swap: NewPartition, usable_end: int, kind: str | int) -> int | None:
    """Where a new swap partition begins; None when it is there already (an earlier run made it)."""
    if present := partition_of(table, swap.number):
        last = _last(table)
        if present.kind == kind and present == last and present.sectors == swap.sectors:
            return None
        raise TableError(f"partition {swap.number} was to become swap, but the image uses it already; choose another")
    start = (usable_end - swap.sectors) // ALIGN * ALIGN
    last = _last(table)
    if last is not None and start < last.end:
        raise TableError(
            f"a swap partition of {swap.sectors // ALIGN} MiB does not fit behind the image's last partition; "
            "ask for a bigger disk or less swap"
        )
    return start


def _grown_end(table: Table, root: int | None, limit: int, moved: int | None = None) -> int | None:
    """The new end of the root partition, or None when it stays: it is not the last, or there is no room."""
    last = max((p for p in table.partitions if p.number != moved), key=lambda p: p.end, default=None)
    if last is None or last.number != root:
        return None
    end = limit // ALIGN * ALIGN
    return end if end > last.end else None


# --- GPT


def _plan_gpt(
    table: Gpt, root: int | None, disk_sectors: int, swap: NewPartition | None, moved: int | None
) -> tuple[SectorWrite, ...]:
    backup = disk_sectors - 1
    last_usable = backup - table.entry_sectors - 1
    if last_usable < table.last_usable and any(p.end > last_usable + 1 for p in table.partitions):
        raise TableError("the disk is smaller than its GPT says, and a partition lies in the missing part")
    entries = bytearray(table.entries)
    limit = last_usable + 1
    if swap is not None:
        start = _swap_start(table, swap, limit, swap.kind)
        if start is not None:
            if (swap.number) * table.entry_size > len(entries):
                raise TableError(f"the GPT has no entry {swap.number} for the swap partition")
            name = swap.name.encode("utf-16-le").ljust(72, b"\0")
            entry = GPT_ENTRY.pack(
                guid_bytes(swap.kind), guid_bytes(guid_of(swap.seed)), start, start + swap.sectors - 1, 0, name
            )
            offset = (swap.number - 1) * table.entry_size
            entries[offset : offset + len(entry)] = entry
            limit = start
    if moved is not None and (partition := partition_of(table, moved)) is not None:
        limit = (limit - partition.sectors) // ALIGN * ALIGN
        struct.pack_into("<QQ", entries, (moved - 1) * table.entry_size + 32, limit, limit + partition.sectors - 1)
    if (end := _grown_end(table, root, limit, moved)) is not None:
        assert root is not None
        struct.pack_into("<Q", entries, (root - 1) * table.entry_size + 40, end - 1)
    if bytes(entries) == table.entries and (table.backup, table.last_usable) == (backup, last_usable):
        return ()
    return _gpt_sectors(table, bytes(entries), backup, last_usable, disk_sectors)


def _gpt_sectors(
    table: Gpt, entries: bytes, backup: int, last_usable: int, disk_sectors: int
) -> tuple[SectorWrite, ...]:
    """Backup first: when power fails in between, the primary header still describes what it did before."""
    fields = list(GPT_HEADER.unpack_from(table.header))
    padded = entries.ljust(table.entry_sectors * SECTOR, b"\0")
    first_entries = fields[10]
    primary = _gpt_header(
        table, fields, here=1, other=backup, last_usable=last_usable, at=first_entries, entries=entries
    )
    second = _gpt_header(
        table, fields, here=backup, other=1, last_usable=last_usable, at=backup - table.entry_sectors, entries=entries
    )
    protective = bytearray(table.protective)
    for offset in range(446, 510, 16):
        if protective[offset + 4] == 0xEE:
            struct.pack_into("<I", protective, offset + 12, min(disk_sectors - 1, 0xFFFFFFFF))
    writes = [
        SectorWrite(sector=backup - table.entry_sectors, data=padded),
        SectorWrite(sector=backup, data=second),
        SectorWrite(sector=first_entries, data=padded),
        SectorWrite(sector=1, data=primary),
        SectorWrite(sector=0, data=bytes(protective)),
    ]
    stale = table.backup
    if stale < backup - table.entry_sectors and not any(p.start <= stale < p.end for p in table.partitions):
        writes.append(SectorWrite(sector=stale, data=bytes(SECTOR)))  # nobody shall find the old backup header
    return tuple(writes)


def _gpt_header(
    table: Gpt, fields: list[object], *, here: int, other: int, last_usable: int, at: int, entries: bytes
) -> bytes:
    changed = list(fields)
    changed[3], changed[5], changed[6], changed[8], changed[10] = 0, here, other, last_usable, at
    changed[13] = zlib.crc32(entries)
    size = fields[2]
    assert isinstance(size, int)
    header = bytearray(table.header)
    GPT_HEADER.pack_into(header, 0, *changed)
    struct.pack_into("<I", header, 16, zlib.crc32(bytes(header[:size])))
    return bytes(header)


# --- MBR


def _plan_mbr(
    table: Mbr, root: int | None, disk_sectors: int, swap: NewPartition | None, moved: int | None
) -> tuple[SectorWrite, ...]:
    records = {sector: bytearray(data) for sector, data in table.records}
    limit = disk_sectors // ALIGN * ALIGN
    new_swap = _swap_start(table, swap, limit, SWAP_MBR) if swap is not None else None
    extended = table.extended
    if swap is not None and new_swap is not None:
        if swap.number <= 4:
            if extended is not None and (swap.number == extended.number or new_swap < extended.end):
                raise TableError(f"a swap partition {swap.number} does not fit beside the extended partition")
            _set_record(records[0], swap.number - 1, SWAP_MBR, new_swap, swap.sectors)
            limit = new_swap
        else:
            extended = _add_logical(table, records, swap, new_swap)
            limit = new_swap - ALIGN  # the sector of the logical partition's own record, aligned
    if moved is not None and (partition := partition_of(table, moved)) is not None:
        extended, limit = _move(records, extended, partition, limit)
    end = _grown_end(table, root, limit, moved)
    partition = partition_of(table, root or 0)
    if end is not None and partition is not None:
        if partition.number >= 5:
            assert extended is not None
            extended = replace(extended, sectors=max(extended.end, end) - extended.start)
            _lengthen_link(table, records, partition.where, end)
            _set_sectors(
                records[partition.where], _record_of(records[partition.where], partition), end - partition.start
            )
        elif extended is None or extended.end <= partition.start or extended.start >= end:
            _set_sectors(records[0], partition.number - 1, end - partition.start)
    if extended is not None and extended != table.extended:
        assert isinstance(extended.kind, int)
        _set_record(records[0], extended.number - 1, extended.kind, extended.start, extended.sectors)
    return _changed(table, records)


def _add_logical(table: Mbr, records: dict[int, bytearray], swap: NewPartition, start: int) -> Partition:
    """Append a logical partition at `start`, its record 1 MiB before it; make or lengthen the extended partition."""
    logical = [p for p in table.partitions if p.number >= 5]
    if swap.number != 5 + len(logical):
        raise TableError(f"the next logical partition has the number {5 + len(logical)}, not {swap.number}")
    record = start - ALIGN
    last = _last(table)
    if last is not None and record < last.end:
        raise TableError("there is no room for the swap partition's record; ask for a bigger disk or less swap")
    if table.extended is None:
        free = next((n for n in range(1, 5) if partition_of(table, n) is None), None)
        if free is None:
            raise TableError("the MBR has no free entry for an extended partition to hold the swap partition")
        extended = Partition(number=free, start=record, sectors=swap.sectors + ALIGN, kind=0x0F, where=0)
    else:
        extended = replace(table.extended, sectors=start + swap.sectors - table.extended.start)
        if any(table.extended.end <= p.start < extended.end for p in table.partitions if p.number <= 4):
            raise TableError("a primary partition stands behind the extended one, so swap cannot be added to it")
        if not logical:
            if record < extended.start:
                raise TableError(
                    f"the empty extended partition {extended.number} starts at sector {extended.start}, behind the "
                    f"place of a swap partition of {swap.sectors // ALIGN} MiB; ask for a bigger disk or less swap"
                )
            record = extended.start
        else:
            previous, _ = table.records[-1]
            slot = next((n for n in range(4) if records[previous][446 + 16 * n + 4] == 0), 1)
            _set_record(records[previous], slot, 0x05, record - extended.start, swap.sectors + ALIGN)
    records[record] = _link(swap.sectors, start - record)
    return extended


def _move(
    records: dict[int, bytearray], extended: Partition | None, partition: Partition, limit: int
) -> tuple[Partition | None, int]:
    """Put a partition (the only logical one, with its extended partition) at the end; returns where the rest ends."""
    start = (limit - partition.sectors) // ALIGN * ALIGN
    if partition.number <= 4:
        assert isinstance(partition.kind, int)
        _set_record(records[0], partition.number - 1, partition.kind, start, partition.sectors)
        return extended, start
    assert extended is not None
    record = start - ALIGN
    records[record] = _link(partition.sectors)
    return replace(extended, start=record, sectors=partition.sectors + ALIGN), record


def _link(sectors: int, distance: int = ALIGN) -> bytearray:
    """The record of a swap partition that begins `distance` sectors behind it, and of none after that."""
    fresh = bytearray(SECTOR)
    fresh[510:512] = b"\x55\xaa"
    _set_record(fresh, 0, SWAP_MBR, distance, sectors)
    return fresh


def _changed(table: Mbr, records: dict[int, bytearray]) -> tuple[SectorWrite, ...]:
    """Records behind the first sector come first: until sector 0 is written, nothing points to what is new."""
    before = dict(table.records)
    return tuple(
        SectorWrite(sector=sector, data=bytes(data))
        for sector, data in sorted(records.items(), reverse=True)
        if before.get(sector) != bytes(data)
    )


def _lengthen_link(table: Mbr, records: dict[int, bytearray], where: int, end: int) -> None:
    """The record before the one at `where` says how far that one's space reaches."""
    assert table.extended is not None
    for sector, _ in table.records[1:]:
        for index in range(4):
            kind, start = struct.unpack_from("<4xB3xI", records[sector], 446 + 16 * index)
            if kind in EXTENDED and start + table.extended.start == where:
                _set_sectors(records[sector], index, end - where)


def _record_of(sector: bytearray, partition: Partition) -> int:
    for index in range(4):
        start, sectors = struct.unpack_from("<II", sector, 446 + 16 * index + 8)
        if (start + partition.where, sectors) == (partition.start, partition.sectors):
            return index
    raise TableError(f"partition {partition.number} was not found in its own record")


def _set_record(sector: bytearray, index: int, kind: int, start: int, sectors: int) -> None:
    flag = sector[446 + 16 * index]
    struct.pack_into("<B3sB3sII", sector, 446 + 16 * index, flag, LBA_ONLY, kind, LBA_ONLY, start, sectors)


def _set_sectors(sector: bytearray, index: int, sectors: int) -> None:
    sector[446 + 16 * index + 5 : 446 + 16 * index + 8] = LBA_ONLY
    struct.pack_into("<I", sector, 446 + 16 * index + 12, sectors)
