"""Content for stores: blocks that are told apart by a number, and maps of them."""

from __future__ import annotations

import random
from collections.abc import Mapping

from synnefo_light.store import names
from synnefo_light.store.commit import Commit
from synnefo_light.store.identity import BLOCK_SIZE, MapId
from synnefo_light.store.names import Entry
from synnefo_light.store.store import Store

UUID_A = "11111111-1111-4111-8111-111111111111"


def block(number: int, length: int = 5000) -> bytes:
    """Bytes that no other number has; they do not end with a NUL. 0 is a hole."""
    return random.Random(number).randbytes(length - 1) + b"\x01" if number else b""


def image(
    store: Store, name: str, numbers: Mapping[int, int], *, size: int | None = None, parent: str | None = None
) -> MapId:
    """Commit a map with these blocks at these places and give it a name."""
    size = (max(numbers, default=-1) + 1) * BLOCK_SIZE if size is None else size
    with Commit(store, size=size, parent=parent, owner=f"test {name}") as commit:
        for index in sorted(numbers):
            commit.put(index, block(numbers[index]))
        map_id = commit.finish()
        names.publish(store, name, entry(map_id, size), under=commit.held)
    return map_id


def entry(map_id: MapId | None, size: int, uuid: str = UUID_A) -> Entry:
    return Entry(uuid=uuid, kind="image", size=size, created_ms=0, map=map_id)
