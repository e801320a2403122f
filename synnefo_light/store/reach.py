"""What is needed: from names and pins to maps, to pages, to blocks. For the collector, fsck and figures."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from synnefo_light.store import names
from synnefo_light.store.backend import Kind
from synnefo_light.store.formats import HOLE, PAGE_HEADER, Root, check_page, parse_root
from synnefo_light.store.identity import DIGEST_SIZE, MapId
from synnefo_light.store.store import Store

_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Who needs a map: "name debian-12", "pin volume-1"."""

    who: str
    map_id: MapId


def from_names(store: Store) -> Iterator[Reference]:
    for named in names.listing(store):
        if named.entry.map is not None:
            yield Reference(who=f"name {named.name}", map_id=named.entry.map)


def read_root(store: Store, map_id: MapId) -> Root:
    return parse_root(store.backend.read(Kind.ROOT, map_id), map_id)


def read_entries(store: Store, page: bytes) -> memoryview:
    """The entries of a page, 32 bytes each, checked."""
    data = store.backend.read(Kind.PAGE, page.hex())
    check_page(data, page.hex())
    return memoryview(data)[PAGE_HEADER:]


class Digests:
    """Very many hashes, in 256 parts by their first byte, each small enough for a set; what is much goes to a file.

    A petabyte of blocks is 268 million hashes, 33 MB a part.
    """

    def __init__(self) -> None:
        self._parts = [bytearray() for _ in range(256)]
        self._held = 0
        self._file: IO[bytes] | None = None
        self._spilled: list[list[tuple[int, int]]] = [[] for _ in range(256)]
        self.added = 0

    def add(self, digests: bytes | memoryview) -> None:
        """Any number of hashes, one behind the other."""
        count = len(digests) // DIGEST_SIZE
        parts = self._parts
        for digest in struct.unpack("32s" * count, digests):
            parts[digest[0]] += digest
        self.added += count
        self._held += len(digests)
        if self._held >= _MEMORY:
            self._spill()

    def part(self, number: int) -> set[bytes]:
        """The different hashes that begin with this byte, without holes."""
        found: set[bytes] = set()
        for offset, length in self._spilled[number]:
            assert self._file is not None
            self._file.seek(offset)
            found.update(_split(self._file.read(length)))
        found.update(_split(self._parts[number]))
        found.discard(HOLE)
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this does
        end = self._file.seek(0, 2)
        for number, part in enumerate(self._parts):
            self._file.write(part)
            self._spilled[number].append((end, len(part)))
            end += len(part)
            part.clear()
        self._held = 0


def _split(digests: bytes | bytearray) -> tuple[bytes, ...]:
    return struct.unpack("32s" * (len(digests) // DIGEST_SIZE), digests)


@dataclass(slots=True, kw_only=True)
class Reached:
    """Everything that is needed. `blocks` holds an entry for each page that names a block, so doubles too."""

    roots: set[str] = field(default_factory=set)
    pages: set[bytes] = field(default_factory=set)
    blocks: Digests = field(default_factory=Digests)

    def follow(self, store: Store, map_id: MapId) -> None:
        """Raises Absent or Corrupt at what is missing or damaged. Each root and page is read once."""
        if map_id in self.roots:
            return
        root = read_root(store, map_id)
        for entry in root.pages:
            if entry.page != HOLE and entry.page not in self.pages:
                self.blocks.add(read_entries(store, entry.page))
                self.pages.add(entry.page)
        self.roots.add(map_id)
