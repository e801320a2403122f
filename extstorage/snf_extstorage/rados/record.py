"""What the engine writes down about volumes, snapshots and bases, and how it changes that: by compare and swap.

One object each, `snf.volumes`, `snf.snapshots` and `snf.bases`, in the pool of the images: an omap of name to a line of
JSON. A swap compares the whole line in the same operation that writes the new one, so of two nodes that change a
record at once one sees that the other was faster. RBD's own metadata of an image has no such operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from synnefo_light.errors import EnvironmentFault
from synnefo_light.records import RecordError, dump_json, parse_json
from synnefo_light.store.rados_objects import Objects

LIMIT: Final = 16 << 10

#: making: the image is not whole yet; removing: it is on its way out. Both are ours to finish, whoever began it.
State = Literal["making", "ready", "removing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    state: State
    uuid: str | None
    size: int
    origin: str  # what `create` or `clone` was asked for, to know the same question again: "zeros", "map ID" ...
    map: str | None  # the map that its content began as, through however many snapshots
    attempt: str = ""  # of making it: two that make it at once differ
    generation: int = 0
    holders: tuple[str, ...] = ()
    exclusive: bool = False
    opened: bool = False  # whether anybody may have written to it
    info: str = ""
    made_s: int = 0  # when it was begun, in seconds since 1970


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


R = TypeVar("R", VolumeRecord, SnapshotRecord, BaseRecord)


class Table(Generic[R]):
    """One of the objects."""

    def __init__(self, objects: Objects, name: str, of: type[R]) -> None:
        self._objects = objects
        self._name = name
        self._of: type[R] = of

    def get(self, key: str) -> R | None:
        """Raises EnvironmentFault for a record that this program did not write."""
        line = self._objects.read_entry(self._name, key)
        return self._parsed(key, line) if line else None

    def swap(self, key: str, old: R | None, new: R | None) -> bool:
        """Replace what `get` returned; None: no record. False when it is another by now, and nothing was done."""
        before = dump_json(old).decode() if old else ""
        if new is None:
            return self._objects.remove_entry(self._name, key, value=before)
        return self._objects.swap_entry(self._name, key, dump_json(new).decode(), value=before)

    def items(self) -> Iterator[tuple[str, R]]:
        for page in self._objects.entries(self._name):
            for key, line in page:
                yield key, self._parsed(key, line)

    def _parsed(self, key: str, line: str) -> R:
        try:
            record: R = parse_json(line.encode(), self._of, limit=LIMIT)
        except RecordError as e:
            raise EnvironmentFault(f"{self._objects.place} object {self._name} says of {key}: {e}") from None
        return record
