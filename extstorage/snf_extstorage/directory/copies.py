"""A volume's record is kept twice in one file and rewritten in place: nothing is allocated, so the disk may be full.

    0 ─ a record, padded with NULs ─ 4096 ─ the same ─ 8192

A change writes the copy that is not the newest and syncs (commit point), then the other and syncs. Died in the first
write: the newest copy is as it was. Died in the second: the first has the new record. A copy that goes bad later does
no harm, for the other says the same. The serial number tells which is newer.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from typing import Final

from snf_extstorage.directory.record import NewerFormat, VolumeRecord, decode, encode
from snf_extstorage.volume import Damaged
from synnefo_light.errors import EnvironmentFault

COPY: Final = 4096


def render_copy(record: VolumeRecord, *, place: str) -> bytes:
    """One copy. Raises EnvironmentFault for a record that has no room, which no names that Ganeti allows can make."""
    raw = encode("snf-volume", record)
    if len(raw) > COPY:
        raise EnvironmentFault(f"{place} is to have {len(raw)} bytes, at most {COPY} are accepted; shorten node names")
    return raw.ljust(COPY, b"\0")


def parse_copies(raw: bytes, *, place: str) -> tuple[VolumeRecord, int]:
    """The newest record, and which copy that is. Raises Damaged if none is whole, or one is newer than we."""
    found: list[tuple[int, int, VolumeRecord]] = []
    faults: list[Damaged] = []
    for number, start in enumerate((0, COPY)):
        copy = raw[start : start + COPY].rstrip(b"\0")
        try:
            record = decode(copy, "snf-volume", VolumeRecord, place=place)
            found.append((record.serial, -number, record))
        except NewerFormat:
            raise
        except Damaged as e:
            faults.append(e)
    if not found:
        raise faults[0]
    _, number, record = max(found, key=lambda one: one[:2])
    return record, -number


def rewrite(fd: int, record: VolumeRecord, *, place: str) -> None:
    """Make it the record in an open file, durably. Raises OSError; nothing is tried again then."""
    now, newest = parse_copies(os.pread(fd, 2 * COPY, 0), place=place)
    copy = render_copy(dataclasses.replace(record, serial=now.serial + 1), place=place)
    for number in (1 - newest, newest):
        if os.pwrite(fd, copy, number * COPY) != COPY:  # and not the other one too
            raise OSError(errno.EIO, os.strerror(errno.EIO), place)
        os.fdatasync(fd)
