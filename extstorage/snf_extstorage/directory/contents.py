"""Files from maps and maps from files.

A base is written as one stretch of data and not cloned together from block files, which would give it an extent a
block, and every clone and snapshot of it the same number of steps. The store's copy of the same blocks stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from snf_extstorage.directory import sharing
from snf_extstorage.directory.extents import plan_dirty
from snf_extstorage.volume import Extent
from synnefo_light.store.commit import Commit
from synnefo_light.store.copying import data_blocks
from synnefo_light.store.dirty import DirtyBlocks
from synnefo_light.store.identity import BLOCK_SIZE, MapId, is_hole
from synnefo_light.store.maps import Map


def compose(content: Map, path: Path) -> None:
    """A new file with the bytes of a map, durable, holes left out. Raises OSError, and Corrupt for a damaged block."""
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        os.ftruncate(fd, content.size)
        for index, _ in content.blocks():
            _write(fd, content.read(index), index * BLOCK_SIZE)
        os.fsync(fd)


def copy(source: int, path: Path, *, size: int) -> None:
    """A new file of `size` bytes with those of an open one, durable: cloned in the same file system, else copied."""
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        try:
            sharing.clone_file(source, fd)
        except OSError:  # another file system, a device, or not a file that can share
            for index in data_blocks(source, size).blocks():
                start = index * BLOCK_SIZE
                data = os.pread(source, min(BLOCK_SIZE, size - start), start)
                if not is_hole(data):
                    _write(fd, data, start)
        os.ftruncate(fd, size)
        os.fsync(fd)


def _write(fd: int, data: bytes, at: int) -> None:
    if os.pwrite(fd, data, at) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def dirty(path: Path, base: Path | None, *, size: int) -> Iterator[Extent]:
    """What of a file may differ from a base's, or may hold data. Everything, without a base's file or FIEMAP."""
    with contextlib.ExitStack() as opened:
        fd = opened.enter_context(_opened(path, os.O_RDONLY))
        try:
            there = sharing.extents(opened.enter_context(_opened(base, os.O_RDONLY))) if base else iter(())
            now = sharing.extents(fd)
            first = next(now, None)
        except OSError:
            yield Extent(start=0, length=size)
            return
        yield from plan_dirty(_chain(first, now), there, size=size)


def changed(path: Path, base: Path, *, size: int) -> int:
    """Bytes of a file that may differ from a base that goes on with zeros.

    Short parts are read: of a base that ends within a block of the file system each clone has a last block of its own.
    Without FIEMAP both files are read, block by block of the store.
    """
    with _opened(path, os.O_RDONLY) as fd, _opened(base, os.O_RDONLY) as there:
        try:
            parts = list(plan_dirty(sharing.extents(fd), sharing.extents(there), size=size))
        except OSError:
            parts = list(_blocks(fd, there, size=size))
        return sum(p.length for p in parts if p.length > BLOCK_SIZE or _differ(fd, there, p))


def _blocks(fd: int, base: int, *, size: int) -> Iterator[Extent]:
    """The blocks in which one of two files has data."""
    marked = data_blocks(fd, size)
    for index in data_blocks(base, min(size, os.fstat(base).st_size)).blocks():
        marked.mark(index * BLOCK_SIZE, 1)
    for index in marked.blocks():
        yield Extent(start=index * BLOCK_SIZE, length=min(BLOCK_SIZE, size - index * BLOCK_SIZE))


def _differ(fd: int, base: int, part: Extent) -> bool:
    mine, theirs = (os.pread(one, part.length, part.start) for one in (fd, base))
    return mine != theirs.ljust(part.length, b"\0")


def commit(path: Path, changed: Iterable[Extent], into: Commit, *, size: int) -> MapId:
    """Hand the blocks that changed to the store, which shares their extents where it can."""
    blocks = DirtyBlocks(size)
    for extent in changed:
        blocks.mark(extent.start, extent.length)
    with _opened(path, os.O_RDONLY) as fd:
        for index in blocks.blocks():
            into.take(index, fd, index * BLOCK_SIZE)
    return into.finish()


def _chain(first: sharing.Mapped | None, rest: Iterator[sharing.Mapped]) -> Iterator[sharing.Mapped]:
    if first is not None:
        yield first
    yield from rest


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
