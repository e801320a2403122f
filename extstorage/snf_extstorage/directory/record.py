"""What the engine keeps beside a file: a line that names format and checksum, and a line of JSON.

    snf-volume 1 9f86d081884c7d65...        kind, version, SHA-256 of all that follows
    {"exclusive":true,"generation":3, ...}

A record that is torn, changed or newer than this program is refused; nothing is guessed from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from snf_extstorage.volume import Damaged
from synnefo_light.records import RecordError, build, dump_json, load_json

LIMIT: Final = 64 << 10
VERSION: Final = 1

Kind = Literal["snf-volume", "snf-snapshot", "snf-base", "snf-volumes"]
T = TypeVar("T")


class NewerFormat(Damaged):
    """It was written by a newer program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    uuid: str | None
    size: int
    origin: str  # what `create` or `clone` was asked for, to know the same question again: "zeros", "map ID" ...
    map: str | None  # the map that its content began as, through however many snapshots, or that was copied onto it
    generation: int = 0
    holders: tuple[str, ...] = ()
    exclusive: bool = False
    owed: tuple[str, ...] = ()  # nodes to be fenced at the next exclusive open that can: see writers.py
    serial: int = 0  # rises with each change of the record
    opened: bool = False  # whether anybody may have written to it
    info: str = ""
    formerly: str = ""  # its name before it was adopted, until it is opened for the second time
    cluster: str = ""  # Ganeti's, that it was made for


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    volume: str
    size: int
    map: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRecord:
    """Of a whole folder of volumes."""

    uuid: str


#: Fields that records of this version once had, and nobody reads any more.
_RETIRED: Final[Mapping[type, frozenset[str]]] = {SnapshotRecord: frozenset({"committed"})}


def encode(kind: Kind, record: object) -> bytes:
    body = dump_json(record) + b"\n"
    return f"{kind} {VERSION} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def decode(raw: bytes, kind: Kind, into: type[T], *, place: str) -> T:
    """Raises Damaged (NewerFormat, where that is it) naming `place`, the file, and what is wrong with it."""
    head, newline, body = raw.partition(b"\n")
    words = head.split(b" ")
    if len(raw) > LIMIT or not newline or len(words) != 3 or words[0] != kind.encode():
        raise Damaged(f"{place} is not a record of kind {kind}; it is damaged, or somebody else's file")
    if words[1] != str(VERSION).encode():
        shown = words[1][:20].decode("ascii", "replace")
        raise NewerFormat(f"{place} has format {shown}, this program knows {VERSION}; use a newer program")
    if words[2] != hashlib.sha256(body).hexdigest().encode():
        raise Damaged(f"{place} is damaged: its checksum does not match; restore it, or see `snf-store fsck`")
    try:
        return build(_without_retired(load_json(body, limit=LIMIT), into), into)
    except RecordError as e:
        raise Damaged(f"{place}: {e}") from None


def _without_retired(data: object, into: type) -> object:
    if not isinstance(data, dict):
        return data
    return {name: value for name, value in data.items() if name not in _RETIRED.get(into, ())}
