"""Content becomes a map: what a volume engine, an upload and a received stream all write through.

    with Commit(store, size=size, parent="debian-12", owner="snapshot nightly of web1/0") as commit:
        for index in dirty.blocks():            # ascending; see dirty.py
            commit.take(index, volume_fd, index * BLOCK_SIZE)
        map_id = commit.finish()
        names.seal(store, "nightly", map_id, uuid=uuid, under=commit.held)

Blocks that are not named keep what `parent` has there, or are holes. Pages in which nothing changed are the parent's:
they are neither read nor written, so a commit costs what changed.

Order: 1 the pin (of the parent's map, and of everything touched from now on), 2 blocks, 3 the pages that name them,
4 the root, 5 the name, which is `names.publish` and the commit point, 6 the pin is released. A crash before 5 leaves
blocks, pages and a root that nothing refers to, and a pin that expires; the collector removes them. A crash after 5
leaves the pin. Nothing is undone by hand, and doing it all again finds the blocks there and ends with the same map id.
"""

from __future__ import annotations

import hashlib
import os
from types import TracebackType

from synnefo_light.errors import UserError
from synnefo_light.store import blocks, pins
from synnefo_light.store.backend import Kind
from synnefo_light.store.errors import Absent
from synnefo_light.store.formats import (
    HOLE,
    PAGE_ENTRIES,
    PageEntry,
    Root,
    blocks_covered,
    encode_page,
    encode_root,
    page_count,
    subtree_of,
)
from synnefo_light.store.identity import BLOCK_SIZE, MAP_SIZE_LIMIT, BlockId, MapId, block_count
from synnefo_light.store.maps import Map, open_map
from synnefo_light.store.sharing import SharingBatch
from synnefo_light.store.store import Store

#: Blocks that wait for their flush together.
_BATCH = 64


class Commit:
    """See the module. `size` in bytes, at least the parent's. `parent`: what the content was cloned from, by name or by
    the pin that keeps it (`pins.keep`).

    `held` is the pin to publish under; it is renewed while blocks come, and what takes longer than `ttl_s` between two
    of them has to begin again (Conflict). Blocks are given in ascending order, each at most once (ValueError). Raises
    UserError for a size that no map has, Absent for a parent that is not there: commit without one then.
    """

    def __init__(
        self,
        store: Store,
        *,
        size: int,
        owner: str,
        parent: str | pins.Held | None = None,
        ttl_s: float = pins.HOLD_TTL_S,
    ) -> None:
        if not 0 <= size <= MAP_SIZE_LIMIT:
            raise UserError(f"{owner} has {size} bytes; a map has at most {MAP_SIZE_LIMIT}")
        self.held: pins.Held
        self._store = store
        self._size = size
        self._owner = owner
        self._from = parent
        self._ttl_s = ttl_s
        self._parent: Map | None = None
        self._next = 0
        self._waiting = 0
        self._page: list[bytes] | None = None
        self._page_number = -1
        self._changed: dict[int, PageEntry] = {}

    def __enter__(self) -> Commit:
        store = self._store
        parents = [self._from] if isinstance(self._from, str) else []
        under = self._from if isinstance(self._from, pins.Held) else None
        self.held = pins.acquire(
            store, owner=self._owner, names=parents, since_now=True, under=under, ttl_s=self._ttl_s
        )
        try:
            if self.held.pin.maps:
                self._parent = open_map(store, MapId(self.held.pin.maps[0]))
                if self._parent.size > self._size:
                    raise UserError(
                        f"{self._owner} has {self._size} bytes, less than the {self._parent.size} of its parent"
                    )
            self._batch = store.backend.batch()
            self._batch.__enter__()
            self._sharing = self._batch if isinstance(self._batch, SharingBatch) else None
        except BaseException:
            pins.release(store, self.held.key)
            raise
        self._renew_at = store.backend.now() + self._ttl_s / 2
        store.trace("commit.1 pinned")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._batch.__exit__(kind, error, where)
        finally:
            pins.release(self._store, self.held.key)

    def take(self, index: int, source: int, offset: int) -> BlockId | None:
        """The block's bytes from an open file at `offset`, shared instead of copied where that can be.

        The range may be written meanwhile: what is stored is what was hashed. What lies beyond the end of the file is
        NULs. Returns the id, None for a hole.
        """
        length = self._length(index)
        if self._sharing is not None:
            return self._set(index, self._sharing.adopt(source, offset, length))
        return self.put(index, os.pread(source, length, offset))

    def put(self, index: int, data: bytes) -> BlockId | None:
        """The block's bytes; fewer than the block has are followed by NULs. Returns the id, None for a hole."""
        if len(data) > self._length(index):
            raise ValueError(f"block {index} has {self._length(index)} bytes, not {len(data)}")
        return self._set(index, blocks.put(self._store, data, into=self._batch))

    def hole(self, index: int) -> None:
        """The block is NULs, whatever the parent has there."""
        self._length(index)
        self._set(index, None)

    def name(self, index: int, block: BlockId) -> None:
        """The block is one that the store has already, which is looked up and made young. Raises Absent.

        Only for blocks that the asker has shown to know or may read: see `blocks.py`.
        """
        self._length(index)
        try:
            self._store.backend.touch(Kind.BLOCK, block.hex())
        except Absent:
            self._flush()  # it may be one of this commit's own
            self._store.backend.touch(Kind.BLOCK, block.hex())
        self._set(index, block)

    def finish(self) -> MapId:
        """Everything is durable and the map exists when this returns; a name is what makes it stay."""
        self._end_page()
        self._batch.flush()
        self._store.trace("commit.3 pages written")
        root = Root(size=self._size, pages=tuple(self._entry(number) for number in range(page_count(self._size))))
        encoded = encode_root(root)
        map_id = MapId(hashlib.sha256(encoded).hexdigest())
        self._store.backend.create(Kind.ROOT, map_id, encoded)
        self._store.trace("commit.4 root written")
        return map_id

    def _length(self, index: int) -> int:
        if not self._next <= index < block_count(self._size):
            raise ValueError(f"block {index} is not between {self._next} and {block_count(self._size) - 1}")
        return min(BLOCK_SIZE, self._size - index * BLOCK_SIZE)

    def _set(self, index: int, block: BlockId | None) -> BlockId | None:
        if index // PAGE_ENTRIES != self._page_number:
            self._end_page()
            self._page_number = index // PAGE_ENTRIES
            self._page = self._parent_entries(self._page_number)
        assert self._page is not None
        self._page[index % PAGE_ENTRIES] = block or HOLE
        self._next = index + 1
        self._waiting += 1
        if self._waiting >= _BATCH:
            self._flush()
        return block

    def _flush(self) -> None:
        self._batch.flush()
        self._waiting = 0
        if self._store.backend.now() > self._renew_at:
            self.held = pins.renew(self._store, self.held, ttl_s=self._ttl_s)
            self._renew_at = self._store.backend.now() + self._ttl_s / 2
        self._store.trace("commit.2 blocks written")

    def _end_page(self) -> None:
        """Write the page at hand, now that its blocks are durable."""
        if self._page is None:
            return
        self._flush()
        number, entries = self._page_number, self._page
        self._page = None
        subtree = self._subtree(number, entries)
        key = HOLE
        if any(entry != HOLE for entry in entries):
            data = encode_page(entries)
            key = hashlib.sha256(data).digest()
            self._batch.create(Kind.PAGE, key.hex(), data)
        self._changed[number] = PageEntry(page=key, subtree=subtree)

    def _entry(self, number: int) -> PageEntry:
        """A page of the new map: changed, the parent's, or of holes."""
        if number in self._changed:
            return self._changed[number]
        parent = self._parent
        if parent is None or number >= len(parent.root.pages):
            return PageEntry(page=HOLE, subtree=self._subtree(number, []))
        was = parent.root.pages[number]
        same_cover = blocks_covered(parent.size, number) == blocks_covered(self._size, number)
        if same_cover and (len(parent.root.pages) == 1) == (page_count(self._size) == 1):
            return was
        return PageEntry(page=was.page, subtree=self._subtree(number, list(parent.page(number))))

    def _parent_entries(self, number: int) -> list[bytes]:
        entries: list[bytes] = []
        if self._parent is not None and number < len(self._parent.root.pages):
            entries = list(self._parent.page(number))
        return entries + [HOLE] * (blocks_covered(self._size, number) - len(entries))

    def _subtree(self, number: int, entries: list[bytes]) -> bytes:
        return subtree_of(entries, covered=blocks_covered(self._size, number), alone=page_count(self._size) == 1)
