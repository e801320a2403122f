"""The bytes of the store's objects, to and from values: pure, strict and bounded. snf-store(5) shows the layouts.

All integers are big endian. Whatever differs from what this module would itself write for the same value is refused:
there is one encoding of each page and root, or equal content would not have equal names. Feature bits come in two
words: an unknown *required* bit refuses the object, an unknown *optional* one is ignored.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from synnefo_light.store.errors import Corrupt, FormatRefused
from synnefo_light.store.identity import (
    BLOCK_LOG2,
    BLOCK_SIZE,
    DIGEST_SIZE,
    HOLE_ID,
    MAP_SIZE_LIMIT,
    block_count,
    hole_node,
    merkle,
    merkle_of_width,
    padding_node,
)

PAGE_LOG2 = 12
PAGE_ENTRIES = 1 << PAGE_LOG2
VERSION = 1
#: A hole in a page, a page of holes in a root.
HOLE = bytes(DIGEST_SIZE)

_PAGE = struct.Struct(">4sHBBQQII")  # magic version block_log2 page_log2 required optional count 0
_ROOT = struct.Struct(">4sHBBQQQII")  # magic version block_log2 page_log2 required optional size pages 0
_PAGE_MAGIC, _ROOT_MAGIC, _RECORD_MAGIC = b"SNFP", b"SNFM", b"SNFR"
PAGE_HEADER = _PAGE.size
_RECORD = struct.Struct(">4sHHQQI")  # magic version 0 required optional length; then the body and its checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class PageEntry:
    """One page of a map, as its root names it. `page`: 32 raw bytes, `HOLE` for a page of holes.

    `subtree`: the Merkle hash of the page's blocks: as a list of its own when the map has one page, otherwise padded
    to a full page, so that a map's hash needs no page.
    """

    page: bytes
    subtree: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    size: int
    pages: tuple[PageEntry, ...]

    @property
    def merkle(self) -> bytes:
        """`X-Object-Hash` of the map."""
        if len(self.pages) <= 1:
            return self.pages[0].subtree if self.pages else merkle(())
        nodes = [entry.subtree for entry in self.pages]
        nodes += [padding_node(PAGE_LOG2)] * ((1 << (len(nodes) - 1).bit_length()) - len(nodes))
        return merkle(nodes)


# --- pages


def encode_page(entries: Sequence[bytes]) -> bytes:
    """At most 4096 raw block ids, `HOLE` for a hole; holes at the end are left out. A page of holes is no page."""
    count = len(entries)
    while count and entries[count - 1] == HOLE:
        count -= 1
    if not 1 <= count <= PAGE_ENTRIES:
        raise ValueError(f"a page has 1 to {PAGE_ENTRIES} entries up to its last block, not {count}")
    header = _PAGE.pack(_PAGE_MAGIC, VERSION, BLOCK_LOG2, PAGE_LOG2, 0, 0, count, 0)
    return header + b"".join(entries[:count])


def check_page(data: bytes, key: str) -> int:
    """How many entries follow the `PAGE_HEADER` bytes of header. Raises Corrupt naming the page."""
    place = f"page {key}"
    if hashlib.sha256(data).hexdigest() != key:
        raise Corrupt(place, "has other bytes than its name says")
    if len(data) < PAGE_HEADER:
        raise Corrupt(place, f"has {len(data)} bytes, less than a header")
    magic, version, block_log2, page_log2, required, _, count, reserved = _PAGE.unpack_from(data)
    _check_header(place, magic, _PAGE_MAGIC, version, block_log2, page_log2, required)
    if reserved or not 1 <= count <= PAGE_ENTRIES or len(data) != PAGE_HEADER + count * DIGEST_SIZE:
        raise Corrupt(place, f"says to have {count} entries in {len(data)} bytes")
    if data[-DIGEST_SIZE:] == HOLE:
        raise Corrupt(place, "ends with a hole, which is left out")
    return int(count)


def parse_page(data: bytes, key: str) -> tuple[bytes, ...]:
    """The entries up to the last block. Raises Corrupt naming the page."""
    count = check_page(data, key)
    return struct.unpack_from("32s" * count, data, PAGE_HEADER)


def subtree_of(entries: Sequence[bytes], *, covered: int, alone: bool) -> bytes:
    """`PageEntry.subtree` of a page that covers `covered` blocks of its map and, `alone`, is the only one."""
    if covered == PAGE_ENTRIES and not entries:
        return hole_node(PAGE_LOG2)
    hashes: list[bytes] = [HOLE_ID if entry == HOLE else entry for entry in entries]
    hashes += [HOLE_ID] * (covered - len(hashes))
    return merkle(hashes) if alone else merkle_of_width(hashes, levels=PAGE_LOG2)


# --- roots


def page_count(size: int) -> int:
    return -(-block_count(size) // PAGE_ENTRIES)


def blocks_covered(size: int, page: int) -> int:
    """How many blocks of a map of `size` bytes lie in its page number `page`."""
    return min(PAGE_ENTRIES, block_count(size) - page * PAGE_ENTRIES)


def encode_root(root: Root) -> bytes:
    if not 0 <= root.size <= MAP_SIZE_LIMIT or len(root.pages) != page_count(root.size):
        raise ValueError(f"a map of {root.size} bytes does not have {len(root.pages)} pages")
    header = _ROOT.pack(_ROOT_MAGIC, VERSION, BLOCK_LOG2, PAGE_LOG2, 0, 0, root.size, len(root.pages), 0)
    return header + b"".join(entry.page + entry.subtree for entry in root.pages)


def parse_root(data: bytes, key: str) -> Root:
    """Raises Corrupt naming the map."""
    place = f"map {key}"
    if hashlib.sha256(data).hexdigest() != key:
        raise Corrupt(place, "has other bytes than its id says")
    if len(data) < _ROOT.size:
        raise Corrupt(place, f"has {len(data)} bytes, less than a header")
    magic, version, block_log2, page_log2, required, _, size, pages, reserved = _ROOT.unpack_from(data)
    _check_header(place, magic, _ROOT_MAGIC, version, block_log2, page_log2, required)
    if reserved or size > MAP_SIZE_LIMIT or pages != page_count(size):
        raise Corrupt(place, f"says to have {pages} pages for {size} bytes")
    if len(data) != _ROOT.size + pages * 2 * DIGEST_SIZE:
        raise Corrupt(place, f"has {len(data)} bytes for {pages} pages")
    table = struct.unpack_from("32s32s" * pages, data, _ROOT.size)
    return Root(
        size=size,
        pages=tuple(PageEntry(page=table[n], subtree=table[n + 1]) for n in range(0, len(table), 2)),
    )


def _check_header(
    place: str, magic: bytes, wanted: bytes, version: int, block_log2: int, page_log2: int, required: int
) -> None:
    if magic != wanted:
        raise Corrupt(place, f"begins with {magic!r}, not with {wanted!r}")
    if version != VERSION:
        raise FormatRefused(f"{place} has version {version} of its format; this release reads version {VERSION}")
    if required:
        raise FormatRefused(f"{place} requires the features {required:#x}, which this release does not know")
    if (block_log2, page_log2) != (BLOCK_LOG2, PAGE_LOG2):
        raise Corrupt(place, f"has blocks of 2^{block_log2} bytes and pages of 2^{page_log2} entries")


# --- records: names, pins, the collector's state


def encode_record(body: bytes) -> bytes:
    """A body in its envelope: header before, SHA-256 of header and body behind."""
    raw = _RECORD.pack(_RECORD_MAGIC, VERSION, 0, 0, 0, len(body)) + body
    return raw + hashlib.sha256(raw).digest()


def parse_record(data: bytes, place: str) -> bytes:
    """The body. Raises Corrupt naming `place` ("name web1"), FormatRefused for what a newer release wrote."""
    if len(data) < _RECORD.size + DIGEST_SIZE:
        raise Corrupt(place, f"has {len(data)} bytes, less than an empty record")
    raw, checksum = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
    if hashlib.sha256(raw).digest() != checksum:
        raise Corrupt(place, "does not have the checksum that it ends with")
    magic, version, reserved, required, _, length = _RECORD.unpack_from(raw)
    if magic != _RECORD_MAGIC or reserved:
        raise Corrupt(place, f"begins with {magic!r}, not with {_RECORD_MAGIC!r}")
    if version != VERSION or required:
        raise FormatRefused(
            f"{place} has version {version} and requires the features {required:#x};"
            f" this release reads version {VERSION} without any"
        )
    if length != len(raw) - _RECORD.size:
        raise Corrupt(place, f"says to have {length} bytes and has {len(raw) - _RECORD.size}")
    return raw[_RECORD.size :]


# --- FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What a store is, written once when it is made. `grace_s`: how long the collector leaves alone what is young."""

    uuid: UUID
    grace_s: int = 86_400
    optional: frozenset[str] = frozenset()


_FORMAT_KEYS = ("snf-store", "uuid", "block_log2", "page_log2", "hash", "grace_s", "required", "optional", "sha256")
_HASH = "sha256-rstrip0"


def encode_format(form: Format) -> bytes:
    """Text, so that whoever finds the folder can read what it is."""
    values = (VERSION, form.uuid, BLOCK_LOG2, PAGE_LOG2, _HASH, form.grace_s, "", ",".join(sorted(form.optional)))
    text = "".join(f"{key}={value}\n" for key, value in zip(_FORMAT_KEYS, values, strict=False))
    return f"{text}sha256={hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def parse_format(data: bytes, place: str) -> Format:
    """Raises FormatRefused naming `place`: torn, of a newer version, of other sizes, with a feature we do not know."""
    head, mark, checksum = data.rpartition(b"sha256=")
    if not mark or checksum != hashlib.sha256(head).hexdigest().encode() + b"\n":
        raise FormatRefused(f"FORMAT of {place} is damaged: its checksum is not that of its text")
    values = dict(line.split("=", 1) for line in head.decode("ascii", "replace").splitlines() if "=" in line)
    if values.get("snf-store") != str(VERSION):
        raise FormatRefused(
            f"the store {place} has version {values.get('snf-store')} of the format; this release knows {VERSION}"
        )
    if values.get("required"):
        raise FormatRefused(
            f"the store {place} requires the features {values['required']}, which this release does not know"
        )
    fixed = {"block_log2": str(BLOCK_LOG2), "page_log2": str(PAGE_LOG2), "hash": _HASH}
    for key, value in fixed.items():
        if values.get(key) != value:
            raise FormatRefused(f"the store {place} has {key}={values.get(key)}; this release knows {value}")
    if not re.fullmatch(r"\d{1,9}", values.get("grace_s", "")) or len(values) != len(_FORMAT_KEYS) - 1:
        raise FormatRefused(f"FORMAT of {place} has other keys than {', '.join(_FORMAT_KEYS)}")
    try:
        uuid = UUID(values["uuid"])
    except (KeyError, ValueError):
        raise FormatRefused(f"FORMAT of {place} has uuid={values.get('uuid')}, which is no UUID") from None
    return Format(
        uuid=uuid,
        grace_s=int(values["grace_s"]),
        optional=frozenset(filter(None, values["optional"].split(","))),
    )


def stored_length(length: int) -> int:
    """Bytes that a block of `length` stripped bytes is stored with: filled with NULs, so that extents can be shared."""
    return min(BLOCK_SIZE, -(-length // 4096) * 4096)
