"""Blocks in and out. A block is stored once, whoever brings it; nothing here tells whether it was there before.

That silence is deliberate: who learns that a block exists learns that somebody has that content. A service for several
tenants must not pass on more than "stored", nor let a tenant name a block that he has not sent (see `stream.py`).

`put` is one `create` of the backend, whose link or write is the commit point. A crash before it leaves a leftover, a
crash after it a block that nothing refers to; the collector removes both.
"""

from __future__ import annotations

import hashlib

from synnefo_light.store.backend import Batch, Kind
from synnefo_light.store.errors import Corrupt
from synnefo_light.store.formats import stored_length
from synnefo_light.store.identity import BLOCK_SIZE, BlockId, stripped_length
from synnefo_light.store.store import Store


def encode_block(data: bytes) -> tuple[BlockId, bytes] | None:
    """The id and the bytes that are stored: without trailing NULs, filled to whole 4 KiB. None: a hole."""
    if len(data) > BLOCK_SIZE:
        raise ValueError(f"a block has at most {BLOCK_SIZE} bytes, not {len(data)}")
    length = stripped_length(data)
    if length == 0:
        return None
    digest = BlockId(hashlib.sha256(memoryview(data)[:length]).digest())
    stored = stored_length(length)
    return digest, data[:stored] if len(data) >= stored else data.ljust(stored, b"\0")


def put(store: Store, data: bytes, *, into: Batch | None = None) -> BlockId | None:
    """Store a block durably, or in a batch with its flush; None for a hole, which is never stored."""
    encoded = encode_block(data)
    if encoded is None:
        return None
    block, stored = encoded
    (into or store.backend).create(Kind.BLOCK, block.hex(), stored)
    return block


def get(store: Store, block: BlockId) -> bytes:
    """Without trailing NULs. Raises Absent, and Corrupt when the bytes are not what the id says."""
    return check(store.backend.read(Kind.BLOCK, block.hex()), block)


def check(stored: bytes, block: BlockId) -> bytes:
    """The content of a block from its stored bytes. Raises Corrupt naming the block."""
    length = stripped_length(stored)
    if hashlib.sha256(memoryview(stored)[:length]).digest() != block:
        raise Corrupt(f"block {block.hex()}", "has other bytes than its name says")
    if len(stored) != stored_length(length):
        raise Corrupt(f"block {block.hex()}", f"is stored with {len(stored)} bytes instead of {stored_length(length)}")
    return stored[:length]
