"""What a backend does for the store. Two of them: a directory (`directory.py`) and RADOS. One test suite holds both.

Objects are of two sorts. *Immutable* ones (blocks, pages, roots) are named by a hash of their content, are created once
and whole, and are removed by the collector alone. *Records* (names, pins, and the store's own `FORMAT`, `GC`,
`CUTS`) are small and replaced by compare-and-swap.

Promises that everything above leans on:

- What `create`, `replace`, `delete`, `touch` or `Batch.flush` returned for is durable and seen by every node.
- A crash leaves each object as it was or as it was to be, never in between. It may leave garbage that `sweep_leftovers`
  finds, never something that `read`, `load` or `keys` shows.
- After an error of the storage itself (EIO, a failed fsync, a lost connection in mid-write) nothing is retried or
  acknowledged: `StoreBroken`, and every later write through the same object raises it again. ENOSPC is `StoreFull`,
  leaves no trace, and later writes are tried anew.
- `create` of what is already there makes it young *before* it answers, unless it is younger than half the grace; and
  `retire` never removes what was made young after the cut-off that it was given. Together: what a writer was told to be
  there stays for the grace at least, whatever the collector does at the same time.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NewType, Protocol

from synnefo_light.errors import UserError
from synnefo_light.resource_names import ALLOWED, is_name
from synnefo_light.store.identity import BLOCK_SIZE
from synnefo_light.units import KIB, MIB

#: Called with the name of each step of an operation, when the step is done; a test stops the process there.
Trace = Callable[[str], None]
#: Opaque; two are equal when the record has not been replaced in between.
Version = NewType("Version", str)
#: Seconds since 1970 by the backend's own clock (`Backend.now`), the one that objects get their age from.
Instant = NewType("Instant", float)

_HEX = re.compile(r"[0-9a-f]{64}")


class Kind(enum.Enum):
    """The value is the folder, or the prefix of object names, that things of this kind live under."""

    BLOCK = "blocks"
    PAGE = "pages"
    ROOT = "roots"
    NAME = "names"
    PIN = "pins"
    STORE = "store"


#: Immutable, content-addressed, collected.
IMMUTABLE = (Kind.BLOCK, Kind.PAGE, Kind.ROOT)
#: No object of a kind is larger; what is, is refused when written and `Corrupt` when read.
LIMIT = {
    Kind.BLOCK: BLOCK_SIZE,
    Kind.PAGE: 132 * KIB,
    Kind.ROOT: MIB,
    Kind.NAME: 64 * KIB,
    Kind.PIN: 16 * KIB,
    Kind.STORE: 64 * KIB,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One object. `touched`: when it was created or last made young."""

    key: str
    size: int
    touched: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    data: bytes
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Bytes of the whole file system or pool, whoever uses them."""

    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """Something in the backend that is not ours, or that a writer left that died."""

    place: str
    why: str


class Batch(Protocol):
    """Several creations that become durable together, which costs far less than one by one.

    Leaving the context without an exception flushes; with one, what was not flushed is dropped.
    """

    def create(self, kind: Kind, key: str, data: bytes) -> None: ...

    def flush(self) -> None:
        """All created so far is durable and visible when this returns; only now may anything refer to it."""

    def __enter__(self) -> Batch: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...


class Backend(Protocol):
    """Keys: 64 hex digits for immutable kinds, names as `resource_names.py` has them for records (`check_key`)."""

    #: Where this is, for a message: a path, or pool and namespace.
    place: str
    #: What is younger than this many seconds is not made young again; opening a store sets it to half its grace.
    fresh_s: float

    def now(self) -> Instant: ...

    # --- immutable objects

    def create(self, kind: Kind, key: str, data: bytes) -> None:
        """Create durably. What is there already is made young and left alone (its content is the same by its name)."""

    def batch(self) -> Batch: ...

    def read(self, kind: Kind, key: str) -> bytes:
        """The whole object, unchecked. Raises Absent, and Corrupt when it is larger than its kind may be."""

    def stat(self, kind: Kind, key: str) -> Found:
        """Raises Absent."""

    def touch(self, kind: Kind, key: str) -> None:
        """Make it young, unless it is younger than half the grace. Raises Absent: then it must be created again."""

    def keys(self, kind: Kind) -> Iterator[str]:
        """All of a kind, in no order. What comes or goes meanwhile may be missed, what stays is not.

        Things that are not ours are left out; see `strays`. Raises StoreFault when a part cannot be listed.
        """

    def retire(self, kind: Kind, key: str, *, untouched_since: Instant) -> bool:
        """Remove, unless it was created or touched at or after `untouched_since`; False then, or when it is absent.

        Atomic against `create` and `touch` on any node: whoever was told by these that the object is there still
        finds it (a directory moves it to the trash and looks there when something is missing; RADOS removes with
        the version asserted).
        """

    def set_aside(self, kind: Kind, key: str, *, is_good: Callable[[bytes], bool] = lambda _: False) -> str | None:
        """Move a damaged object out of the way, kept for people, and say where it is. `create` works again then.

        None when its bytes are good by now, and it stays: somebody stored them anew since they were read. Raises
        Absent.
        """

    # --- records

    def load(self, kind: Kind, key: str) -> Loaded:
        """Raises Absent."""

    def replace(self, kind: Kind, key: str, data: bytes, *, expected: Version | None) -> Version:
        """Write a record if it still has the version `expected`; None: if it does not exist. Raises Conflict."""

    def delete(self, kind: Kind, key: str, *, expected: Version) -> None:
        """Raises Conflict when it has another version, Absent when it is not there."""

    # --- the whole

    def space(self) -> Space: ...

    def strays(self) -> Iterator[Stray]:
        """What `fsck` reports: things under the store's place that no operation of ours made or left in use."""

    def sweep_leftovers(self, *, untouched_since: Instant) -> int:
        """Remove for good what dead writers and `retire` left before that instant; how many objects went."""


def check_key(kind: Kind, key: str) -> None:
    """Raises UserError when `key` is not one. No backend has to fear a slash, a NUL or a name like `..`."""
    if kind in IMMUTABLE:
        if not _HEX.fullmatch(key):
            raise UserError(f"{key[:80]!r} names no object of {kind.value}, which have 64 hex digits in lower case")
    elif not is_name(key):
        raise UserError(f"the name {key[:80]!r} is not {ALLOWED}")
