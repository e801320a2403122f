"""The store's bytes: one encoding of each value; what is torn, flipped or of a newer release is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
import struct
from pathlib import Path
from uuid import UUID

import pytest

from synnefo_light.errors import Error
from synnefo_light.store import formats
from synnefo_light.store.backend import LIMIT, Kind
from synnefo_light.store.errors import Corrupt, FormatRefused
from synnefo_light.store.formats import (
    HOLE,
    PAGE_ENTRIES,
    Format,
    PageEntry,
    Root,
    encode_format,
    encode_page,
    encode_record,
    encode_root,
    page_count,
    parse_format,
    parse_page,
    parse_record,
    parse_root,
    stored_length,
    subtree_of,
)
from synnefo_light.store.gc import Run
from synnefo_light.store.identity import BLOCK_SIZE, HOLE_ID, MAP_SIZE_LIMIT, merkle
from synnefo_light.store.names import Entry
from synnefo_light.store.pins import Pin

FORM = Format(uuid=UUID("6f6a2cb0-4d0d-4f0c-8a53-2d2d5c8d9a10"))
PAGE = encode_page([b"a" * 32, HOLE, b"b" * 32, HOLE])
ENTRY = PageEntry(page=b"p" * 32, subtree=b"s" * 32)
ROOT = encode_root(Root(size=3 * BLOCK_SIZE, pages=(ENTRY,)))
RECORD = encode_record(b'{"owner":"x"}')


def named(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_pages_roots_and_records_come_out_as_they_went_in() -> None:
    assert parse_page(PAGE, named(PAGE)) == (b"a" * 32, HOLE, b"b" * 32)
    assert parse_root(ROOT, named(ROOT)) == Root(size=3 * BLOCK_SIZE, pages=(ENTRY,))
    assert parse_record(RECORD, "pin p") == b'{"owner":"x"}'
    assert parse_format(encode_format(FORM), "here") == FORM


def test_the_largest_page_and_root_are_within_their_bounds() -> None:
    assert len(encode_page([b"x" * 32] * PAGE_ENTRIES)) == 131_104 <= LIMIT[Kind.PAGE]
    pages = tuple([ENTRY] * page_count(MAP_SIZE_LIMIT))
    assert len(encode_root(Root(size=MAP_SIZE_LIMIT, pages=pages))) == 65_576 <= LIMIT[Kind.ROOT]


@pytest.mark.parametrize("entries", [[], [HOLE], [HOLE] * 5, [b"x" * 32] * (PAGE_ENTRIES + 1)])
def test_a_page_of_holes_or_of_too_many_entries_is_not_made(entries: list[bytes]) -> None:
    with pytest.raises(ValueError, match="1 to 4096"):
        encode_page(entries)


@pytest.mark.parametrize("size", [-1, MAP_SIZE_LIMIT + 1, 17 << 30])
def test_a_root_of_another_number_of_pages_than_its_size_has_is_not_made(size: int) -> None:
    with pytest.raises(ValueError, match="does not have 1 pages"):
        encode_root(Root(size=size, pages=(ENTRY,)))


# --- torn and flipped


def test_every_truncation_and_every_flipped_bit_of_a_page_or_root_is_refused_by_its_name() -> None:
    for good, parse in ((PAGE, parse_page), (ROOT, parse_root)):
        for end in range(len(good)):
            with pytest.raises(Corrupt, match=named(good)):
                parse(good[:end], named(good))
        for bit in range(len(good) * 8):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            with pytest.raises(Corrupt, match=named(good)):
                parse(bytes(bad), named(good))


def test_every_truncation_and_every_flipped_bit_of_a_record_is_refused_by_its_place() -> None:
    for end in range(len(RECORD)):
        with pytest.raises(Corrupt, match="pin p"):
            parse_record(RECORD[:end], "pin p")
    for bit in range(len(RECORD) * 8):
        bad = bytearray(RECORD)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt, match="pin p"):
            parse_record(bytes(bad), "pin p")


def test_every_truncation_and_every_flipped_bit_of_format_is_refused() -> None:
    good = encode_format(FORM)
    for end in range(len(good)):
        with pytest.raises(FormatRefused, match="here"):
            parse_format(good[:end], "here")
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatRefused, match="here"):
            parse_format(bytes(bad), "here")


def test_bytes_that_have_the_right_name_and_mean_nothing_are_refused() -> None:
    """The checksum holds: somebody made them so. Nothing but our errors comes out, whatever they say."""
    chance = random.Random(0)
    for good, parse in ((PAGE, parse_page), (ROOT, parse_root)):
        for _ in range(3000):
            bad = bytearray(good)
            for _ in range(chance.randint(1, 4)):
                bad[chance.randrange(40)] = chance.choice([0, 1, 255, chance.randrange(256)])
            if chance.random() < 0.3:
                bad = bad[: chance.randrange(len(bad))] if chance.random() < 0.5 else bad + b"x" * 32
            try:
                value = parse(bytes(bad), named(bytes(bad)))
            except Error:
                continue
            again = encode_page(value) if isinstance(value, tuple) else encode_root(value)
            assert again[:16] == bytes(bad)[:16]
            assert again[24:] == bytes(bad)[24:]


def test_a_page_that_ends_with_a_hole_is_refused_because_it_has_another_encoding() -> None:
    bad = struct.pack(">4sHBBQQII", b"SNFP", 1, 22, 12, 0, 0, 1, 0) + HOLE
    with pytest.raises(Corrupt, match="ends with a hole"):
        parse_page(bad, named(bad))


# --- newer releases


@pytest.mark.parametrize("bit", [0, 1, 63])
def test_an_unknown_required_feature_refuses_and_an_unknown_optional_one_does_not(bit: int) -> None:
    word = (1 << bit).to_bytes(8, "big")
    for good, parse in ((PAGE, parse_page), (ROOT, parse_root)):
        required, optional = good[:8] + word + good[16:], good[:16] + word + good[24:]
        with pytest.raises(FormatRefused, match=re.escape(f"{1 << bit:#x}")):
            parse(required, named(required))
        assert parse(optional, named(optional)) == parse(good, named(good))
    raw = RECORD[:-32]
    required = raw[:8] + word + raw[16:]
    with pytest.raises(FormatRefused, match="requires"):
        parse_record(required + hashlib.sha256(required).digest(), "pin p")


def test_a_newer_version_is_refused_with_both_versions() -> None:
    for good, parse in ((PAGE, parse_page), (ROOT, parse_root)):
        newer = good[:4] + b"\0\2" + good[6:]
        with pytest.raises(FormatRefused, match=r"version 2 .* reads version 1"):
            parse(newer, named(newer))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("snf-store=1", "snf-store=2", "version 2"),
        ("required=\n", "required=zstd\n", "features zstd"),
        ("block_log2=22", "block_log2=23", "block_log2=23"),
        ("page_log2=12", "page_log2=13", "page_log2=13"),
        ("hash=sha256-rstrip0", "hash=blake3", "hash=blake3"),
        ("grace_s=86400", "grace_s=-1", "other keys"),
        ("grace_s=86400\n", "", "other keys"),
        ("optional=\n", "optional=\nmore=1\n", "other keys"),
        ("uuid=6f6a2cb0", "uuid=xf6a2cb0", "no UUID"),
    ],
)
def test_a_store_of_another_format_is_refused_by_what_is_other(old: str, new: str, said: str) -> None:
    text = encode_format(FORM).decode().rpartition("sha256=")[0].replace(old, new)
    data = f"{text}sha256={hashlib.sha256(text.encode()).hexdigest()}\n".encode()
    with pytest.raises(FormatRefused, match=said):
        parse_format(data, "/srv/store")


def test_an_optional_feature_of_a_newer_release_is_kept() -> None:
    form = dataclasses.replace(FORM, optional=frozenset({"b", "a"}))
    assert parse_format(encode_format(form), "here") == form


# --- hashes of parts


@pytest.mark.parametrize("blocks", [1, 2, 4095, 4096, 4097, 8192, 10000])
def test_the_map_hash_from_subtrees_is_that_of_the_flat_list(blocks: int) -> None:
    chance = random.Random(blocks)
    flat = [chance.randbytes(32) if chance.random() < 0.3 else HOLE for _ in range(blocks)]
    if blocks > 8192:
        flat[:4096] = [HOLE] * 4096
    pages = []
    for first in range(0, blocks, PAGE_ENTRIES):
        part = flat[first : first + PAGE_ENTRIES]
        subtree = subtree_of(part, covered=len(part), alone=blocks <= PAGE_ENTRIES)
        pages.append(PageEntry(page=HOLE, subtree=subtree))
    root = Root(size=blocks * BLOCK_SIZE, pages=tuple(pages))
    assert root.merkle == merkle([HOLE_ID if entry == HOLE else entry for entry in flat])


@pytest.mark.parametrize(("length", "stored"), [(1, 4096), (4096, 4096), (4097, 8192), (BLOCK_SIZE, BLOCK_SIZE)])
def test_a_block_is_stored_in_whole_file_system_blocks(length: int, stored: int) -> None:
    assert stored_length(length) == stored


# --- the manual page

MANUAL = (Path(__file__).resolve().parents[3] / "man" / "snf-store.5.md").read_text()


def test_every_key_of_a_record_is_in_the_manual() -> None:
    wanted = {f.name for record in (Entry, Pin, Run) for f in dataclasses.fields(record)}
    assert {key for key in wanted if f"**{key}**" not in MANUAL} == set()


def test_the_manuals_format_is_one_that_is_read() -> None:
    shown = re.search(r"```\n(snf-store=1\n.*?)sha256=", MANUAL, re.DOTALL)
    assert shown is not None
    assert shown[1] == encode_format(FORM).decode().rpartition("sha256=")[0]


@pytest.mark.parametrize(
    ("magic", "layout"), [("SNFP", formats._PAGE), ("SNFM", formats._ROOT), ("SNFR", formats._RECORD)]
)
def test_the_manuals_offsets_are_the_formats(magic: str, layout: struct.Struct) -> None:
    table = MANUAL[MANUAL.index(f'offset  0  "{magic}"') :].partition("```")[0]
    offsets = [int(line.split()[0]) for line in table.splitlines()[1:] if line.strip()]
    sizes = {"s": 4, "H": 2, "B": 1, "Q": 8, "I": 4}
    expected, position = [], 0
    for letter in layout.format.lstrip(">").replace("4s", "s"):
        position += sizes[letter]
        expected.append(position)
    assert offsets == expected[: len(offsets)]
    assert len(offsets) >= len(expected) - 1
