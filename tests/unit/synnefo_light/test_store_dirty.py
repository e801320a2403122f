"""Byte ranges to blocks."""

from __future__ import annotations

import random

import pytest

from synnefo_light.store.dirty import DirtyBlocks
from synnefo_light.store.identity import BLOCK_SIZE, MAP_SIZE_LIMIT


@pytest.mark.parametrize(
    ("offset", "length", "marked"),
    [
        (0, 1, [0]),
        (0, 0, []),
        (BLOCK_SIZE - 1, 2, [0, 1]),
        (BLOCK_SIZE, BLOCK_SIZE, [1]),
        (9 * BLOCK_SIZE, 5 * BLOCK_SIZE, [9, 10]),
        (10 * BLOCK_SIZE + 4, 1, [10]),
        (10 * BLOCK_SIZE + 5, 1, []),
        (99 * BLOCK_SIZE, 1, []),
        (0, 1 << 60, list(range(11))),
    ],
)
def test_a_range_marks_the_blocks_that_it_touches(offset: int, length: int, marked: list[int]) -> None:
    dirty = DirtyBlocks(10 * BLOCK_SIZE + 5)
    dirty.mark(offset, length)
    assert list(dirty.blocks()) == marked
    assert len(dirty) == len(marked)
    assert all(index in dirty for index in marked)


def test_many_ranges_are_their_union() -> None:
    chance = random.Random(0)
    dirty, expected = DirtyBlocks(1000 * BLOCK_SIZE), set()
    for _ in range(200):
        offset, length = chance.randrange(1000 * BLOCK_SIZE), chance.randrange(1, 3 * BLOCK_SIZE)
        dirty.mark(offset, length)
        expected |= {n for n in range(offset // BLOCK_SIZE, (offset + length - 1) // BLOCK_SIZE + 1) if n < 1000}
    assert list(dirty.blocks()) == sorted(expected)


def test_the_largest_volume_has_a_bit_for_each_block() -> None:
    dirty = DirtyBlocks(MAP_SIZE_LIMIT)
    dirty.mark(MAP_SIZE_LIMIT - 1, 1)
    assert list(dirty.blocks()) == [MAP_SIZE_LIMIT // BLOCK_SIZE - 1]
