"""What the engine writes down about volumes, snapshots and bases, and how it changes that: by compare and swap.

One object each, `snf.volumes`, `snf.snapshots` and `snf.bases`, in the pool of the images: an omap of name to a line

    1 CHECKSUM JSON          version, the first 32 digits of a SHA-256 over "TABLE/NAME JSON", the record in ASCII

A swap compares the whole line in the same operation that writes the new one, so of two nodes that change a record at
once one sees that the other was faster. RBD's own metadata of an image has no such operation.

A line that this program would not write as it is stands for a damaged record: it is refused by name, told by `check`,
and whatever it may refer to stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from synnefo_light.errors import EnvironmentFault
from synnefo_light.log import escape
from synnefo_light.records import RecordError, parse_json, plain
from synnefo_light.store.rados_objects import Objects

LIMIT: Final = 16 << 10
#: The object with `PlaceRecord`s.
PLACES: Final = "snf.places"
VERSION: Final = 1
_DIGITS: Final = 32
#: Fields that lines of before have not; left out where empty, for a swap compares whole lines.
_LATER: Final = frozenset({"formerly", "cluster", "since_s"})

#: making: the image is not whole yet; removing: it is on its way out. Both are ours to finish, whoever began it.
State = Literal["making", "ready", "removing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    state: State
    uuid: str | None
    size: int
    origin: str  # what `create` or `clone` was asked for, to know the same question again: "zeros", "map ID" ...
    map: str | None  # the map that its content began as, through however many snapshots, or that was copied onto it
    attempt: str = ""  # of making it: two that make it at once differ
    generation: int = 0
    holders: tuple[str, ...] = ()
    exclusive: bool = False
    opened: bool = False  # whether anybody may have written to it
    info: str = ""
    made_s: int = 0  # when it was begun, in seconds since 1970
    formerly: str = ""  # its name before it was adopted, until it is opened for the second time
    cluster: str = ""  # Ganeti's, that it was made for


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    state: State
    volume: str
    image: str  # RBD's id of the image, which outlives the volume's name
    number: int  # RBD's id of the snapshot on it; 0 while it is being made
    size: int
    map: str | None  # the map that the volume began as
    committed: str | None = None  # the map that it became
    group: str = ""  # the RBD group that it was cut with
    made_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    state: State
    size: int
    attempt: str = ""
    made_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    node: str
    pid: int
    attempt: str  # two processes of one node and number differ
    beat_s: int  # when its process last said that it lives, in seconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRecord:
    """Where a disk of the provider `rados` is and how it is used, as its parameters said when it was made."""

    pool: str
    namespace: str
    user: str
    fence: bool
    data_pool: str | None
    features: int | None
    object_size: int | None
    since_s: int = 0  # when it was written down, in seconds since 1970


class DamagedRecord(EnvironmentFault):
    """A record that cannot be read: damaged, or of a newer release."""


Record = VolumeRecord | SnapshotRecord | BaseRecord | ClaimRecord | PlaceRecord
R = TypeVar("R", VolumeRecord, SnapshotRecord, BaseRecord, ClaimRecord, PlaceRecord)


def render_line(record: Record, *, place: str) -> str:
    """`place`: TABLE/NAME."""
    fields = plain(record)
    assert isinstance(fields, dict)
    found = {key: value for key, value in fields.items() if value or key not in _LATER}
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    return f"{VERSION} {_checksum(text, place)} {text}"


def parse_line(line: str, of: type[R], *, place: str) -> R:
    """Raises DamagedRecord, also for a record of a newer release, and for one that was written for another place."""
    version, _, rest = line.partition(" ")
    if version.isascii() and version.isdigit() and int(version) > VERSION:
        raise DamagedRecord(
            f"the record {place} has version {version}, and this release reads {VERSION}; use the newer one here too"
        )
    checksum, _, text = rest.partition(" ")
    if version != str(VERSION) or checksum != _checksum(text, place):
        raise DamagedRecord(
            f"the record {place} is damaged: it begins {escape(line[:40])!r}, and its checksum is wrong"
        )
    try:
        record: R = parse_json(text.encode(), of, limit=LIMIT)
    except RecordError as e:
        raise DamagedRecord(f"the record {place} is none of this release: {e}") from None
    return record


def _checksum(text: str, place: str) -> str:
    return hashlib.sha256(f"{place} {text}".encode()).hexdigest()[:_DIGITS]


class Table(Generic[R]):
    """One of the objects."""

    def __init__(self, objects: Objects, name: str, of: type[R]) -> None:
        self._objects = objects
        self._name = name
        self._of: type[R] = of

    def get(self, key: str) -> R | None:
        """Raises DamagedRecord."""
        line = self._objects.read_entry(self._name, key)
        return self._parsed(key, line) if line else None

    def swap(self, key: str, old: R | None, new: R | None) -> bool:
        """Replace what `get` returned; None: no record. False when it is another by now, and nothing was done."""
        before = self._line(key, old) if old else ""
        if new is None:
            return self._objects.remove_entry(self._name, key, value=before)
        return self._objects.swap_entry(self._name, key, self._line(key, new), value=before)

    def items(self) -> Iterator[tuple[str, R]]:
        """All that can be read; see `damaged` for the others."""
        for key, line in self._lines():
            with contextlib.suppress(DamagedRecord):
                yield key, self._parsed(key, line)

    def damaged(self) -> Iterator[tuple[str, DamagedRecord]]:
        for key, line in self._lines():
            try:
                self._parsed(key, line)
            except DamagedRecord as e:
                yield key, e

    def require_whole(self) -> None:
        """Raises DamagedRecord for the first that cannot be read: it may be any."""
        for _, fault in self.damaged():
            raise fault

    def _lines(self) -> Iterator[tuple[str, str]]:
        for page in self._objects.entries(self._name):
            yield from page

    def _line(self, key: str, record: R) -> str:
        return render_line(record, place=self._place(key))

    def _parsed(self, key: str, line: str) -> R:
        return parse_line(line, self._of, place=self._place(key))

    def _place(self, key: str) -> str:
        return f"{self._name}/{key}"
