"""Files and byte streams into maps, and maps into files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from synnefo_light.errors import UserError
from synnefo_light.store.commit import Commit
from synnefo_light.store.dirty import DirtyBlocks
from synnefo_light.store.identity import BLOCK_SIZE, block_count
from synnefo_light.store.maps import Map
from synnefo_light.store.stream import Readable


def data_blocks(fd: int, size: int) -> DirtyBlocks:
    """The blocks of a file in which it has data (lseek(2), SEEK_DATA); all where the file system cannot tell."""
    found = DirtyBlocks(size)
    for offset, length in _data_ranges(fd, size):
        found.mark(offset, length)
    return found


def take_file(commit: Commit, fd: int, size: int) -> None:
    """Commit what a file holds; its holes are not read. Shares extents where that can be (`Commit.take`)."""
    for index in data_blocks(fd, size).blocks():
        commit.take(index, fd, index * BLOCK_SIZE)


def take_stream(commit: Commit, source: Readable, size: int) -> None:
    """Commit `size` bytes that come one after the other. Raises UserError when they end before."""
    for index in range(block_count(size)):
        wanted = min(BLOCK_SIZE, size - index * BLOCK_SIZE)
        parts: list[bytes] = []
        while wanted:
            part = source.read(wanted)
            if not part:
                raise UserError(f"the content ended {wanted} bytes into block {index}; {size} bytes were announced")
            parts.append(part)
            wanted -= len(part)
        commit.put(index, b"".join(parts))


def write_file(
    opened: Map, fd: int, *, whole_blocks: bool = False, require: Callable[[int], None] = lambda _: None
) -> None:
    """Make an empty file the content of a map; holes stay holes. Not synced.

    The NULs at the end of a block are a hole as well, or are written with `whole_blocks`: then neighbours lie on the
    disk in one stretch. `require` is called before each block with the bytes that are left to be written at most.
    """
    left = sum(opened.length_of(index) for index, _ in opened.blocks())
    os.ftruncate(fd, opened.size)
    for index, _ in opened.blocks():
        require(left)
        left -= opened.length_of(index)
        rest = memoryview(opened.read(index) if whole_blocks else opened.content(index))
        offset = index * BLOCK_SIZE
        while rest:
            written = os.pwrite(fd, rest, offset)
            rest, offset = rest[written:], offset + written


def _data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return
            if e.errno != errno.EINVAL:
                raise
            start, position = position, size
        yield start, position - start
