"""Files from maps and maps from files.

Every clone and snapshot of a base takes a step for each piece that it is in. So a base is written as one stretch of
data and not cloned together from block files, and what has been written here and there for a year is laid out anew when
it becomes one. The store shares the blocks out of the base.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from snf_extstorage.directory import sharing
from snf_extstorage.directory.extents import plan_dirty
from snf_extstorage.volume import Extent, NoSpace
from synnefo_light.log import logger
from synnefo_light.reflink import CANNOT_SHARE, clone_file, clone_range
from synnefo_light.store.commit import Commit
from synnefo_light.store.copying import data_blocks, write_file
from synnefo_light.store.dirty import DirtyBlocks
from synnefo_light.store.identity import BLOCK_SIZE, MapId, is_hole
from synnefo_light.store.maps import Map
from synnefo_light.units import MIB

#: A clone takes about 25 us for each extent. What has more of them is laid out anew when it becomes a base.
MOST_EXTENTS: Final = 256
#: What is read of a file at most to see whether it is still what it began as. Who asks waits to copy instead.
LOOK_LIMIT: Final = 256 * MIB


def compose(content: Map, path: Path, *, require_space: Callable[[int], None]) -> None:
    """A new file with the bytes of a map, durable, holes left out. Raises OSError, NoSpace, Corrupt."""
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        write_file(content, fd, whole_blocks=True, require=require_space)
        os.fsync(fd)


def lay_out(
    source: int,
    path: Path,
    blocks: DirtyBlocks,
    *,
    base: Path | None,
    size: int,
    require_space: Callable[[int], None],
) -> None:
    """A new file with the `size` bytes of an open one, durable: a base, in few pieces.

    It is cloned where that can be and the source is in few pieces itself. Else `blocks` are written one after the
    other: those that differ from `base`, with which the rest is shared, or all that hold data. A source in many pieces
    is cloned after all if there is no room for them. Raises OSError, NoSpace.
    """
    needed = len(blocks) * BLOCK_SIZE
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        if not (_is_ragged(source) and _is_room(require_space, needed)) and _clone(source, fd):
            os.ftruncate(fd, size)
        else:
            require_space(needed)
            _write_blocks(source, fd, blocks, base=base, size=size, require_space=require_space)
        os.fsync(fd)


def _is_ragged(source: int) -> bool:
    with contextlib.suppress(OSError):
        return (sharing.count_extents(source) or 0) > MOST_EXTENTS
    return False


def _is_room(require_space: Callable[[int], None], needed: int) -> bool:
    try:
        require_space(needed)
    except NoSpace as e:
        logger.warning("a base stays in as many pieces as what it is made of: %s", e)
        return False
    return True


def _clone(source: int, fd: int) -> bool:
    """False from another file system, from a device, or where files cannot share."""
    try:
        clone_file(source, fd)
    except OSError as e:
        if e.errno in CANNOT_SHARE:
            return False
        raise
    return True


def _write_blocks(
    source: int,
    fd: int,
    blocks: DirtyBlocks,
    *,
    base: Path | None,
    size: int,
    require_space: Callable[[int], None],
) -> None:
    """Asks before each block whether there is room for all that are left: another may write as much as we."""
    shared = False
    if base is not None:
        with _opened(base, os.O_RDONLY) as there:
            shared = _clone(there, fd)
        blocks = blocks if shared else data_blocks(source, size)
    # The end first: what XFS allocates ahead of it would stay where a hole is skipped.
    os.ftruncate(fd, size)
    left = len(blocks)
    for index in blocks.blocks():
        require_space(left * BLOCK_SIZE)
        left -= 1
        start = index * BLOCK_SIZE
        data = os.pread(source, min(BLOCK_SIZE, size - start), start)
        if not is_hole(data):
            _write(fd, data, start)
        elif shared:
            clone_range(source, start, len(data), fd, start)


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


def changed(path: Path, base: Path, *, size: int, limit: int = LOOK_LIMIT) -> int | None:
    """Bytes of a file that may differ from a base that goes on with zeros.

    Short parts are read: of a base that ends within a block of the file system each clone has a last block of its own.
    Without FIEMAP both files are read, block by block of the store. What is behind the first difference is not looked
    at, and may differ. None: `limit` bytes of each file are the same, and there is more.
    """
    with _opened(path, os.O_RDONLY) as fd, _opened(base, os.O_RDONLY) as there:
        try:
            parts = list(plan_dirty(sharing.extents(fd), sharing.extents(there), size=size))
        except OSError:
            parts = list(_blocks(fd, there, size=size))
        left = sum(part.length for part in parts)
        if any(part.length > BLOCK_SIZE for part in parts):
            return left
        for part in parts:
            limit -= part.length
            if limit < 0:
                return None
            if _differ(fd, there, part):
                return left
            left -= part.length
        return left


@contextlib.contextmanager
def beginning(base: Path, folder: Path, *, size: int) -> Iterator[int]:
    """A file without a name, in a folder, that reads as a base that goes on with zeros, sharing its extents."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as whole, _opened(base, os.O_RDONLY) as source:
        clone_file(source, whole.fileno())
        os.ftruncate(whole.fileno(), size)
        yield whole.fileno()


def overwrite(path: Path, whole: int) -> None:
    """Make a file read as another of the same length, holes and all, sharing its extents, durably. Its inode stays."""
    with _opened(path, os.O_RDWR) as target:
        clone_file(whole, target)
        os.fsync(target)


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


def blocks_of(parts: Iterable[Extent], *, size: int) -> DirtyBlocks:
    """The blocks of the store that these touch."""
    blocks = DirtyBlocks(size)
    for part in parts:
        blocks.mark(part.start, part.length)
    return blocks


def commit(path: Path, blocks: DirtyBlocks | None, into: Commit, *, size: int) -> MapId:
    """Hand these blocks of a file to the store, which shares their extents where it can. None: all that hold data."""
    with _opened(path, os.O_RDONLY) as fd:
        blocks = data_blocks(fd, size) if blocks is None else blocks
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
