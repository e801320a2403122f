"""Maps: a root that names pages, which name blocks. Immutable; opening one reads its root alone, a page when needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from synnefo_light.store import blocks
from synnefo_light.store.backend import Kind
from synnefo_light.store.errors import Corrupt
from synnefo_light.store.formats import HOLE, PAGE_ENTRIES, Root, blocks_covered, parse_page, parse_root
from synnefo_light.store.identity import BLOCK_SIZE, BlockId, MapId, block_count
from synnefo_light.store.store import Store

_PAGES_KEPT = 8


class Map:
    """One map, open for reading. `size` is in bytes and need not be a whole number of blocks."""

    def __init__(self, store: Store, map_id: MapId, root: Root) -> None:
        self.id = map_id
        self.root = root
        self.size = root.size
        self._store = store
        self._pages: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()

    @property
    def block_count(self) -> int:
        return block_count(self.size)

    def length_of(self, index: int) -> int:
        """Bytes of the map in its block number `index`: 4 MiB but for the last."""
        return min(BLOCK_SIZE, self.size - index * BLOCK_SIZE)

    def block(self, index: int) -> BlockId | None:
        """The block at `index`, None for a hole. Raises IndexError, and Absent or Corrupt for its page."""
        if not 0 <= index < self.block_count:
            raise IndexError(index)
        entries = self.page(index // PAGE_ENTRIES)
        place = index % PAGE_ENTRIES
        return BlockId(entries[place]) if place < len(entries) and entries[place] != HOLE else None

    def blocks(self, start: int = 0) -> Iterator[tuple[int, BlockId]]:
        """Index and id of what is no hole, ascending."""
        for number in range(start // PAGE_ENTRIES, len(self.root.pages)):
            first = number * PAGE_ENTRIES
            for index, entry in enumerate(self.page(number), first):
                if entry != HOLE and index >= start:
                    yield index, BlockId(entry)

    def content(self, index: int) -> bytes:
        """The bytes of a block, verified, without the NULs at their end. Raises Absent and Corrupt naming the block."""
        block = self.block(index)
        return b"" if block is None else blocks.get(self._store, block)[: self.length_of(index)]

    def read(self, index: int) -> bytes:
        """The bytes of a block, verified, with the NULs that belong to it."""
        return self.content(index).ljust(self.length_of(index), b"\0")

    def page(self, number: int) -> tuple[bytes, ...]:
        """The raw entries of a page up to its last block; empty for a page of holes."""
        key = self.root.pages[number].page
        if key == HOLE:
            return ()
        if key in self._pages:
            self._pages.move_to_end(key)
            return self._pages[key]
        entries = parse_page(self._store.backend.read(Kind.PAGE, key.hex()), key.hex())
        if len(entries) > blocks_covered(self.size, number):
            raise Corrupt(f"map {self.id}", f"has a page {number} that reaches beyond its {self.size} bytes")
        self._pages[key] = entries
        if len(self._pages) > _PAGES_KEPT:
            self._pages.popitem(last=False)
        return entries


def open_map(store: Store, map_id: MapId) -> Map:
    """Raises Absent or Corrupt naming the map. Hold a pin while reading what no name holds for you."""
    return Map(store, map_id, parse_root(store.backend.read(Kind.ROOT, map_id), map_id))


def diff(old: Map | None, new: Map) -> Iterator[tuple[int, BlockId | None]]:
    """Index and new block (None: a hole) wherever `new` differs from `old`, ascending; None: from a map of holes.

    Pages with the same name are not read. Blocks of `old` beyond the end of `new` are not told.
    """
    for number, entry in enumerate(new.root.pages):
        has_old = old is not None and number < len(old.root.pages)
        if has_old and old is not None and old.root.pages[number].page == entry.page:
            continue
        before = old.page(number) if has_old and old is not None else ()
        after = new.page(number)
        for place in range(max(len(before), len(after))):
            was = before[place] if place < len(before) else HOLE
            now = after[place] if place < len(after) else HOLE
            index = number * PAGE_ENTRIES + place
            if was != now and index < new.block_count:
                yield index, BlockId(now) if now != HOLE else None
