"""Which blocks of a volume to look at again: a bit for each."""

from __future__ import annotations

from collections.abc import Iterator

from bitarray import bitarray

from synnefo_light.store.identity import BLOCK_SIZE, block_count


class DirtyBlocks:
    """A set of block numbers of a volume of `size` bytes; 512 KiB for the largest volume."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bits = bitarray(block_count(size))
        self._bits.setall(0)

    def mark(self, offset: int, length: int) -> None:
        """Mark what a byte range touches; what lies beyond the end is left out, for extents may reach there."""
        end = min(offset + length, self._size)
        if 0 <= offset < end:
            self._bits[offset // BLOCK_SIZE : block_count(end)] = 1

    def __contains__(self, index: int) -> bool:
        return bool(self._bits[index])

    def __len__(self) -> int:
        return self._bits.count()

    def blocks(self) -> Iterator[int]:
        """Ascending."""
        index = self._bits.find(1)
        while index != -1:
            yield index
            index = self._bits.find(1, index + 1)
