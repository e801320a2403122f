"""From the store and into it: a base from a map, what a snapshot differs in, a map from a snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from snf_extstorage.rados.images import Images
from snf_extstorage.rados.kept import Beat, Kept, base_image
from snf_extstorage.rados.record import SnapshotRecord
from snf_extstorage.volume import Extent
from synnefo_light.ceph import CephFault
from synnefo_light.errors import UserError

if TYPE_CHECKING:
    from synnefo_light.store.commit import Commit
    from synnefo_light.store.identity import MapId
    from synnefo_light.store.maps import Map

#: Snapshot of a base that volumes are cloned from.
BASE_SNAPSHOT: Final = "base"
#: Blocks on their way at once.
WIDTH: Final = 4
BLOCK_LIMIT_S: Final = 90.0
#: A chain of clones longer than this is not followed; everything counts as changed then.
CHAIN_LIMIT: Final = 64


def compose(images: Images, content: Map, name: str, beat: Beat, *, mind: Callable[[], None]) -> None:
    """An image of a map's bytes; what the map has no block for stays unwritten. See `register`."""

    def blocks() -> Iterator[tuple[int, bytes]]:
        for index, _ in content.blocks():
            mind()
            yield index, content.read(index)

    _fill(images, name, content.size, blocks(), beat)


def _fill(images: Images, name: str, size: int, blocks: Iterable[tuple[int, bytes]], beat: Beat) -> None:
    """Make an image of these blocks; its snapshot comes last."""
    from synnefo_light.store.identity import BLOCK_SIZE

    images.create(name, size)
    with images.opened(name, read_only=False) as image, ThreadPoolExecutor(WIDTH) as threads:
        writing: list[Future[int]] = []
        for index, data in blocks:
            beat()
            writing.append(threads.submit(image.write, data, index * BLOCK_SIZE))
            if len(writing) >= WIDTH:
                _finish(images, writing.pop(0), name)
        for one in writing:
            _finish(images, one, name)
        images.ask(f"flush {name}", image.flush)
        images.take_snapshot(image, BASE_SNAPSHOT)


def register(kept: Kept, bases: Images, source: int, size: int, into: Commit, *, mind: Callable[[], None]) -> MapId:
    """See `Volumes.register`: the file is read once for the store and once for the base, and must not change.

    `mind` is called before each block; what it raises ends the work.
    """
    from synnefo_light.store.copying import data_blocks
    from synnefo_light.store.identity import BLOCK_SIZE, BlockId, block_id

    named: list[tuple[int, BlockId]] = []
    for index in data_blocks(source, size).blocks():
        mind()
        found = into.put(index, os.pread(source, min(BLOCK_SIZE, size - index * BLOCK_SIZE), index * BLOCK_SIZE))
        if found is not None:
            named.append((index, found))
    made = into.finish()

    def blocks() -> Iterator[tuple[int, bytes]]:
        for index, expected in named:
            mind()
            data = os.pread(source, min(BLOCK_SIZE, size - index * BLOCK_SIZE), index * BLOCK_SIZE)
            if block_id(data) != expected:
                raise UserError(f"the file changed at byte {index * BLOCK_SIZE} while it was made an image; try again")
            yield index, data

    kept.make_base(made, size, lambda name, beat: _fill(bases, name, size, blocks(), beat))
    return made


def dirty(kept: Kept, source: SnapshotRecord, since: MapId | None) -> Iterator[Extent]:
    """See `Volumes.dirty`."""
    parts = _changed(kept, source, since)
    yield from merged(parts if parts is not None else [(0, source.size)], size=source.size)


def commit(kept: Kept, source: SnapshotRecord, into: Commit, since: MapId | None, *, mind: Callable[[], None]) -> MapId:
    """See `Volumes.commit`, and `register`."""
    with ThreadPoolExecutor(WIDTH) as threads:
        for index, data in _blocks(kept, source, since, threads):
            mind()
            into.put(index, data)
    return into.finish()


def copy(kept: Kept, source: SnapshotRecord, name: str, beat: Beat) -> None:
    """An image with a snapshot's bytes, for a snapshot that RBD cannot clone."""
    from synnefo_light.store.identity import BLOCK_SIZE, is_hole

    images = kept.images
    images.create(name, source.size)
    with images.opened(name, read_only=False) as image, ThreadPoolExecutor(WIDTH) as threads:
        for index, data in _blocks(kept, source, None, threads):
            beat()
            if not is_hole(data):
                _finish(images, threads.submit(image.write, data, index * BLOCK_SIZE), name)
        images.ask(f"flush {name}", image.flush)


def _blocks(
    kept: Kept, source: SnapshotRecord, since: MapId | None, threads: ThreadPoolExecutor
) -> Iterator[tuple[int, bytes]]:
    """The blocks of a snapshot that may differ from a map, read ahead."""
    from synnefo_light.store.dirty import DirtyBlocks
    from synnefo_light.store.identity import BLOCK_SIZE

    blocks = DirtyBlocks(source.size)
    for extent in dirty(kept, source, since):
        blocks.mark(extent.start, extent.length)
    with kept.images.opened(image=source.image, number=source.number) as image:

        def read(index: int) -> bytes:
            start = index * BLOCK_SIZE
            return bytes(image.read(start, min(BLOCK_SIZE, source.size - start)))

        yield from _ahead(kept.images, threads, read, blocks.blocks())


def merged(parts: Iterable[tuple[int, int]], *, size: int) -> Iterator[Extent]:
    """Parts (start, length) in any order, put in order, joined where they touch, cut at `size`."""
    start = end = 0
    for at, length in sorted(parts):
        begins, ends = min(at, size), min(at + length, size)
        if begins > end:
            if end > start:
                yield Extent(start=start, length=end - start)
            start = begins
        end = max(end, ends)
    if end > start:
        yield Extent(start=start, length=end - start)


def _changed(kept: Kept, source: SnapshotRecord, since: MapId | None) -> list[tuple[int, int]] | None:
    """None: it cannot be told."""
    images = kept.images
    with images.opened(image=source.image, number=source.number) as image:
        if since is None:
            return images.changed(image, since=None, with_parents=True)
        earlier = _committed_as(kept, source, since)
        if earlier is not None:
            return images.changed(image, since=earlier, with_parents=False)
        parts = images.changed(image, since=None, with_parents=False)
        parent = images.parent(image)
    # Through the volumes and snapshots that it was cloned from, down to the base of that map.
    for _ in range(CHAIN_LIMIT):
        if parts is None or parent is None:
            return None
        if parent.name == base_image(since):
            return parts
        with images.opened(image=parent.image) as image:
            number = images.any_snapshots(image).get(parent.snapshot)
        if number is None:
            return None
        with images.opened(image=parent.image, number=number) as image:
            more = images.changed(image, since=None, with_parents=False)
            parts = None if more is None else parts + more
            parent = images.parent(image)
    return None


def _committed_as(kept: Kept, source: SnapshotRecord, since: MapId) -> str | None:
    """The latest earlier snapshot of the same image that became the map `since`."""
    found = [
        (record.number, name)
        for name, record in kept.snapshots.items()
        if record.state == "ready"
        and record.committed == since
        and record.image == source.image
        and record.number < source.number
        and not record.group
    ]
    return max(found)[1] if found else None


def _ahead(
    images: Images, threads: ThreadPoolExecutor, read: Any, indices: Iterable[int]
) -> Iterator[tuple[int, bytes]]:
    """Read some blocks ahead of who takes them, in order."""
    waiting: list[tuple[int, Future[bytes]]] = []
    for index in indices:
        waiting.append((index, threads.submit(read, index)))
        if len(waiting) > WIDTH:
            at, one = waiting.pop(0)
            yield at, _finish(images, one, f"block {at}")
    for at, one in waiting:
        yield at, _finish(images, one, f"block {at}")


def _finish(images: Images, one: Future[Any], name: str) -> Any:
    """Its result. Raises CephFault when it takes too long, and what `Images.ask` raises."""

    def act() -> Any:
        try:
            return one.result(BLOCK_LIMIT_S)
        except TimeoutError:
            raise CephFault(
                f"Ceph did not finish with {name} within {BLOCK_LIMIT_S:g} s; `ceph -s` says more"
            ) from None

    return images.ask(f"read or write {name}", act, limit_s=BLOCK_LIMIT_S + 5)
