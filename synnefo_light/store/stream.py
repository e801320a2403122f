"""A map on its way to another store: whole, or what changed since one that both have.

    header   "SNFS" version u16 0 u16 required u64 size u64, id of the parent (NULs: none), id of the map
    records  "D" index u64, block id, length u32, content     a block
             "S" index u64, block id                          a block that came earlier in this stream
             "H" index u64                                    a hole where the parent has a block
    end      "E", SHA-256 of all before

Indexes rise. The receiver hashes what it gets, commits it on its own copy of the parent, and ends with a map id of its
own, which must be the one in the header: so content, order, holes and size are all checked, and by nothing that the
sender says. A stream can put into a map only what it brings or what the parent has: nobody gets a block by naming it.

`receive` is a commit (`commit.py`) whose commit point is the name. Broken off at any byte it leaves nothing named.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Protocol

from synnefo_light.errors import ProtocolError, UserError
from synnefo_light.store import blocks, maps, names
from synnefo_light.store.commit import Commit
from synnefo_light.store.identity import BLOCK_SIZE, DIGEST_SIZE, MAP_SIZE_LIMIT, BlockId, MapId, block_id
from synnefo_light.store.names import Entry, Named
from synnefo_light.store.store import Store

VERSION = 1
_HEADER = struct.Struct(">4sHHQQ32s32s")
_INDEX = struct.Struct(">Q")
_DATA = struct.Struct(">Q32sI")
_SAME = struct.Struct(">Q32s")
_NOBODY = bytes(DIGEST_SIZE)


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def send(store: Store, map_id: MapId, write: Callable[[bytes], object], *, parent: MapId | None = None) -> int:
    """Write the stream of a map, or of what it has other than `parent`; the bytes written. Hold a pin on both.

    Raises UserError when the parent is larger than the map, Corrupt for a block that is damaged: the stream then has no
    end, and no receiver accepts it.
    """
    new = maps.open_map(store, map_id)
    old = maps.open_map(store, parent) if parent is not None else None
    if old is not None and old.size > new.size:
        raise UserError(f"map {map_id} has {new.size} bytes, less than the {old.size} of {parent}; send it whole")
    checksum = hashlib.sha256()
    total = 0

    def out(*parts: bytes) -> None:
        nonlocal total
        for part in parts:
            checksum.update(part)
            write(part)
            total += len(part)

    base = bytes.fromhex(parent) if parent is not None else _NOBODY
    out(_HEADER.pack(b"SNFS", VERSION, 0, 0, new.size, base, bytes.fromhex(map_id)))
    sent: set[bytes] = set()
    for index, block in maps.diff(old, new):
        if block is None:
            out(b"H", _INDEX.pack(index))
        elif block in sent:
            out(b"S", _SAME.pack(index, block))
        else:
            content = blocks.get(store, block)
            out(b"D", _DATA.pack(index, block, len(content)), content)
            sent.add(block)
    out(b"E")
    digest = checksum.digest()
    write(digest)
    return total + len(digest)


def receive(
    store: Store, source: Readable, name: str, entry: Callable[[MapId, int], Entry], *, parent: str = ""
) -> Named:
    """Read one stream, up to its end and no further, and publish it as `name` with the entry of its map id and size.

    `parent`: the name of the map that an incremental stream builds on. Raises ProtocolError for a stream that is torn,
    damaged or not ours, UserError when it builds on another map than the parent's, Conflict when the name is taken.
    """
    reading = _Reading(source)
    magic, version, _, required, size, base, wanted = _HEADER.unpack(reading.exactly(_HEADER.size))
    if magic != b"SNFS":
        raise ProtocolError(f"this is no stream of a map: it begins with {magic!r}")
    if version != VERSION or required:
        raise ProtocolError(
            f"the stream has version {version} and requires {required:#x}; this release reads {VERSION}"
        )
    if size > MAP_SIZE_LIMIT:
        raise ProtocolError(f"the stream is of a map of {size} bytes; a map has at most {MAP_SIZE_LIMIT}")
    _check_parent(store, base, parent)
    with Commit(store, size=size, parent=parent or None, owner=f"receive {name}") as commit:
        try:
            _receive_blocks(commit, reading)
        except ValueError as e:
            raise ProtocolError(f"the stream has a record that does not fit: {e}") from e
        map_id = commit.finish()
        if map_id != wanted.hex():
            raise ProtocolError(f"the stream became map {map_id} and not {wanted.hex()}, so it was damaged on its way")
        return names.publish(store, name, entry(map_id, size), under=commit.held)


def _check_parent(store: Store, base: bytes, parent: str) -> None:
    if base == _NOBODY:
        if parent:
            raise UserError(f"the stream is of a whole map and builds on nothing; receive it without {parent}")
        return
    if not parent:
        raise UserError(f"the stream builds on map {base.hex()}; say which name has it")
    found = names.load(store, parent).entry.map
    if found != base.hex():
        raise UserError(f"the stream builds on map {base.hex()}, but {parent} is {found}")


def _receive_blocks(commit: Commit, reading: _Reading) -> None:
    came: set[bytes] = set()
    while True:
        match reading.exactly(1):
            case b"D":
                index, block, length = _DATA.unpack(reading.exactly(_DATA.size))
                if not 0 < length <= BLOCK_SIZE:
                    raise ProtocolError(f"block {index} of the stream has {length} bytes")
                content = reading.exactly(length)
                if block_id(content) != block:
                    raise ProtocolError(f"block {index} of the stream has other bytes than its id says")
                commit.put(index, content)
                came.add(block)
            case b"S":
                index, block = _SAME.unpack(reading.exactly(_SAME.size))
                if block not in came:
                    raise ProtocolError(f"block {index} of the stream names a block that did not come with it")
                commit.name(index, BlockId(block))
            case b"H":
                commit.hole(_INDEX.unpack(reading.exactly(_INDEX.size))[0])
            case b"E":
                expected = reading.checksum.digest()
                if reading.exactly(DIGEST_SIZE) != expected:
                    raise ProtocolError("the stream ends with another checksum than its bytes have")
                return
            case other:
                raise ProtocolError(f"the stream has a record {other!r}, which is none")


class _Reading:
    def __init__(self, source: Readable) -> None:
        self._source = source
        self.checksum = hashlib.sha256()

    def exactly(self, size: int) -> bytes:
        parts = []
        left = size
        while left:
            part = self._source.read(left)
            if not part:
                raise ProtocolError("the stream ends before its end record; it was broken off")
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        self.checksum.update(data)
        return data
