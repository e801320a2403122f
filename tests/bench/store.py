"""How fast the store is, a core, against SHA-256 alone: `python -m tests.bench.store FOLDER` prints one line of JSON.

Megabytes (10^6) a second of CPU time, user and system together, so that other work on the machine does not count; the
`_wall` keys are by the clock, with every fsync, and say what the disk under FOLDER does. Where the file system cannot
share extents, `commit_shared` is 0 and committing copies.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from synnefo_light.store import blocks, copying, gc, names
from synnefo_light.store.backend import Kind
from synnefo_light.store.commit import Commit
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.directory_batch import DirectoryBatch
from synnefo_light.store.formats import (
    PAGE_ENTRIES,
    Format,
    PageEntry,
    Root,
    encode_page,
    encode_root,
    subtree_of,
)
from synnefo_light.store.identity import BLOCK_SIZE, BlockId, MapId
from synnefo_light.store.names import Entry
from synnefo_light.store.store import open_store

BLOCKS = 64
PAGES = 512


def measured(act: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.monotonic()
    act()
    return time.process_time() - cpu, time.monotonic() - wall


def measure(folder: Path) -> dict[str, float]:
    store = open_store(make_directory(folder / "store", Format(uuid=uuid4())))
    content = [random.randbytes(BLOCK_SIZE) for _ in range(BLOCKS)]
    megabytes = BLOCKS * BLOCK_SIZE / 1e6
    figures: dict[str, float] = {}

    def noted(name: str, act: Callable[[], object]) -> None:
        cpu, wall = measured(act)
        figures[f"{name}_MBps"] = round(megabytes / cpu, 1)
        figures[f"{name}_MBps_wall"] = round(megabytes / wall, 1)

    noted("sha256", lambda: [hashlib.sha256(data).digest() for data in content])
    found: list[BlockId | None] = []

    def put() -> None:
        with store.backend.batch() as batch:
            found.extend(blocks.put(store, data, into=batch) for data in content)

    noted("put", put)
    content.clear()

    def get() -> None:
        for block in filter(None, found):
            blocks.get(store, block)

    noted("get", get)

    volume = folder / "volume"
    volume.write_bytes(b"".join(random.randbytes(BLOCK_SIZE) for _ in range(BLOCKS)))
    os.sync()
    shared = 0

    def commit() -> None:
        nonlocal shared
        with open(volume, "rb") as file, Commit(store, size=BLOCKS * BLOCK_SIZE, owner="bench") as change:
            copying.take_file(change, file.fileno(), BLOCKS * BLOCK_SIZE)
            map_id = change.finish()
            assert isinstance(change._batch, DirectoryBatch)
            shared = change._batch.shared
            names.publish(store, "bench", _entry(map_id, BLOCKS * BLOCK_SIZE), under=change.held)

    noted("commit", commit)
    figures["commit_shared"] = shared
    for name in ("put", "get", "commit"):
        figures[f"{name}_ratio"] = round(figures[f"{name}_MBps"] / figures["sha256_MBps"], 3)
    shutil.rmtree(folder / "store")
    return figures | measure_collector(folder)


def measure_collector(folder: Path) -> dict[str, float]:
    """Marking pages that name 2 million different blocks, and comparing them with what is there: nothing, here."""
    store = open_store(make_directory(folder / "many", Format(uuid=uuid4())))
    assert isinstance(store.backend, Directory)
    pages = []
    with store.backend.batch() as batch:
        for _ in range(PAGES):
            raw = random.randbytes(PAGE_ENTRIES * 32)
            entries = [raw[n : n + 32] for n in range(0, len(raw), 32)]
            data = encode_page(entries)
            digest = hashlib.sha256(data).digest()
            batch.create(Kind.PAGE, digest.hex(), data)
            pages.append(PageEntry(page=digest, subtree=subtree_of([], covered=1, alone=True)))
    size = PAGES * PAGE_ENTRIES * BLOCK_SIZE
    root = encode_root(Root(size=size, pages=tuple(pages)))
    map_id = MapId(hashlib.sha256(root).hexdigest())
    with Commit(store, size=0, owner="bench") as change:
        store.backend.create(Kind.ROOT, map_id, root)
        names.publish(store, "many", _entry(map_id, size), under=change.held)
    mark_cpu, _ = measured(lambda: gc.mark(store, store.backend.now()))
    cpu, _ = measured(lambda: gc.collect(store, dry_run=True))
    shutil.rmtree(folder / "many")
    return {
        "gc_mark_entries_per_s": round(PAGES * PAGE_ENTRIES / mark_cpu),
        "gc_entries_per_s": round(PAGES * PAGE_ENTRIES / cpu),
    }


def _entry(map_id: MapId, size: int) -> Entry:
    return Entry(uuid=str(uuid4()), kind="image", size=size, created_ms=0, map=map_id)


if __name__ == "__main__":
    place = Path(sys.argv[1]) / f"bench-{os.getpid()}"
    place.mkdir()
    try:
        print(json.dumps(measure(place)))
    finally:
        shutil.rmtree(place)
