"""The hashes of Pithos: published vectors, and the same computed another way."""

from __future__ import annotations

import hashlib
import random

import pytest

from synnefo_light.store.identity import (
    BLOCK_SIZE,
    HOLE_ID,
    block_id,
    is_hole,
    merkle,
    merkle_of_width,
    padding_node,
    stripped_length,
)


def recursive_merkle(hashes: list[bytes], width: int) -> bytes:
    """Top down and by position, where the library goes bottom up and by level."""
    if width == 1:
        return hashes[0] if hashes else bytes(32)
    half = width // 2
    left, right = recursive_merkle(hashes[:half], half), recursive_merkle(hashes[half:], half)
    return hashlib.sha256(left + right).digest()


def test_a_hole_has_the_published_hash_of_nothing() -> None:
    """FIPS 180-4's SHA-256 of the empty string, which Pithos gives to a block of NULs."""
    assert HOLE_ID.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert block_id(bytes(BLOCK_SIZE)) == HOLE_ID == block_id(b"")


def test_a_short_block_and_its_zero_filled_form_have_one_id() -> None:
    """NIST's vector for "abc" holds for the block that is "abc" and NULs."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert block_id(b"abc").hex() == expected == block_id(b"abc".ljust(BLOCK_SIZE, b"\0")).hex()


@pytest.mark.parametrize("length", [0, 1, 511, 4095, 4096, 4097, 65536, (1 << 20) + 1, BLOCK_SIZE - 1, BLOCK_SIZE])
def test_stripping_is_that_of_rstrip(length: int) -> None:
    data = (b"\0x" * BLOCK_SIZE)[: max(0, length - 1)] + (b"y" if length else b"")
    for total in (length, (length + BLOCK_SIZE) // 2, BLOCK_SIZE):
        padded = data.ljust(total, b"\0")
        assert stripped_length(padded) == len(padded.rstrip(b"\0")) == length
        assert is_hole(padded) == (length == 0)


def test_a_block_larger_than_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 4194304"):
        block_id(bytes(BLOCK_SIZE + 1))


def test_the_map_hash_of_no_block_and_of_one_block() -> None:
    assert merkle([]) == HOLE_ID
    assert merkle([b"a" * 32]) == b"a" * 32


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 8, 9, 100, 1000])
def test_the_map_hash_is_that_of_an_independent_computation(count: int) -> None:
    hashes = [random.Random(n).randbytes(32) for n in range(count)]
    width = 1
    while width < count:
        width *= 2
    assert merkle(hashes) == recursive_merkle(hashes, width)


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_a_part_of_a_list_joins_the_whole(count: int) -> None:
    hashes = [random.Random(n).randbytes(32) for n in range(count)]
    assert merkle_of_width(hashes, levels=3) == recursive_merkle(hashes + [bytes(32)] * (8 - count), 8)
    assert padding_node(3) == recursive_merkle([bytes(32)] * 8, 8)
