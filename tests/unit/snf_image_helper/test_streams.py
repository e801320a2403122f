"""Compressed raw images: every format, in pieces, within bounds, and what is damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Callable, Iterator

import pytest
from snf_image_helper.conversion import HOLE, not_zero
from snf_image_helper.source_headers import SourceError
from snf_image_helper.streams import BLOCK, decompress

from synnefo_light.manifest import Compression

DATA = random.Random(1).randbytes(70_000) + bytes(3 * BLOCK) + b"end"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def zstd(data: bytes, *, window: int = 10) -> bytes:
    """A frame of raw and run-length blocks (RFC 8878, 3.1.1), since no compressor is at hand here."""
    frame = ZSTD_MAGIC + bytes([0, (window - 10) << 3])
    pieces = [data[n : n + 1024] for n in range(0, len(data), 1024)] or [b""]
    for n, piece in enumerate(pieces):
        run = len(piece) > 1 and piece == piece[:1] * len(piece)
        head = len(piece) << 3 | (2 if run else 0) | (n == len(pieces) - 1)
        frame += head.to_bytes(3, "little") + (piece[:1] if run else piece)
    return frame


COMPRESS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.GZIP: gzip.compress,
    Compression.XZ: lzma.compress,
    Compression.ZSTD: zstd,
    Compression.BZIP2: bz2.compress,
}
PACKED = [kind for kind in COMPRESS if kind is not Compression.NONE]


def blocks(kind: Compression, packed: bytes, *, piece: int = 4096) -> Iterator[bytes]:
    pieces = iter([packed[n : n + piece] for n in range(0, len(packed), piece)])
    return decompress(kind, lambda: next(pieces, b""))


def whole(kind: Compression, packed: bytes, *, piece: int = 4096) -> bytes:
    out = b""
    for block in blocks(kind, packed, piece=piece):
        assert 0 < len(block) <= BLOCK
        out += block
    return out


def refusal(kind: Compression, packed: bytes) -> str:
    with pytest.raises(SourceError) as caught:
        whole(kind, packed)
    return str(caught.value)


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("piece", [4096, 1 << 20])
def test_what_was_compressed_comes_out(kind: Compression, piece: int) -> None:
    assert whole(kind, COMPRESS[kind](DATA), piece=piece) == DATA


@pytest.mark.parametrize("kind", PACKED)
def test_a_stream_may_come_byte_by_byte(kind: Compression) -> None:
    assert whole(kind, COMPRESS[kind](DATA[:2000]), piece=1) == DATA[:2000]


@pytest.mark.parametrize("kind", PACKED)
def test_streams_in_a_row_are_one_image_and_zeros_behind_them_nothing(kind: Compression) -> None:
    pack = COMPRESS[kind]
    assert whole(kind, pack(b"one") + pack(b"") + pack(b"two") + bytes(9000)) == b"onetwo"


@pytest.mark.parametrize("kind", PACKED)
def test_a_stream_that_was_cut_is_not_whole(kind: Compression) -> None:
    packed = COMPRESS[kind](DATA)
    for length in (1, 5, 20, len(packed) // 2, len(packed) - 1):
        assert refusal(kind, packed[:length]) == (
            f"the image ends in the middle of its {kind.value} stream; it is not whole"
        )


@pytest.mark.parametrize("kind", PACKED)
def test_what_is_no_stream_is_refused(kind: Compression) -> None:
    for wrong in (b"QFI\xfb" * 1000, COMPRESS[kind](b"one") + b"more than padding"):
        assert refusal(kind, wrong).startswith(f"the image cannot be decompressed by {kind.value}: ")


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.XZ, Compression.BZIP2])
def test_damage_is_seen_by_the_check_sum(kind: Compression) -> None:
    packed = bytearray(COMPRESS[kind](DATA))
    packed[len(packed) // 2] ^= 0x10
    assert "cannot be decompressed" in refusal(kind, bytes(packed)) or "not whole" in refusal(kind, bytes(packed))


@pytest.mark.parametrize("kind", PACKED)
def test_nothing_at_all_is_nothing(kind: Compression) -> None:
    assert whole(kind, b"") == b""


@pytest.mark.parametrize("kind", PACKED)
def test_a_bomb_comes_in_blocks_and_only_as_far_as_it_is_taken(kind: Compression) -> None:
    packed = COMPRESS[kind](bytes(20 * BLOCK))
    assert len(packed) < BLOCK / 4
    taken = blocks(kind, packed, piece=1 << 20)
    assert [len(next(taken)) <= BLOCK for _ in range(4)] == [True] * 4


def xz_with_dictionary(code: int) -> bytes:
    """A stream whose LZMA2 filter asks for a dictionary of 4 GiB (code 40) or less (xz file format, 3.1 and 5.3.1)."""
    packed = bytearray(lzma.compress(b"small"))
    header = 12  # behind the stream's header
    length = (packed[header] + 1) * 4
    place = packed.index(b"\x21\x01", header, header + length) + 2
    packed[place] = code
    packed[header + length - 4 : header + length] = zlib.crc32(packed[header : header + length - 4]).to_bytes(
        4, "little"
    )
    return bytes(packed)


def test_a_stream_that_asks_for_much_memory_is_refused() -> None:
    assert whole(Compression.XZ, xz_with_dictionary(28)) == b"small"  # 64 MiB, as xz -9
    assert "Memory usage limit exceeded" in refusal(Compression.XZ, xz_with_dictionary(37))
    assert whole(Compression.ZSTD, zstd(b"small", window=27)) == b"small"  # 128 MiB, as zstd --long
    assert "too much memory" in refusal(Compression.ZSTD, zstd(b"small", window=31))


def test_holes_are_left_out() -> None:
    block = b"a" + bytes(HOLE - 1) + bytes(2 * HOLE) + b"b" * HOLE + bytes(HOLE - 1) + b"c" + bytes(100)
    assert list(not_zero(block)) == [(0, block[:HOLE]), (3 * HOLE, block[3 * HOLE : 5 * HOLE])]
    assert list(not_zero(bytes(BLOCK))) == []
    assert list(not_zero(b"x")) == [(0, b"x")]
