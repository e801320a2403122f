"""Each operation of the store on a prepared store, so that it can be stopped, failed or replayed at any of its steps.

`killed_at` and `killed_in` have a process do one, that kills itself (SIGKILL) at a step.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from synnefo_light.records import dump_json
from synnefo_light.store import blocks, copying, fsck, gc, maps, names, pins, scrub, stream
from synnefo_light.store.backend import Backend, Instant, Kind, Trace
from synnefo_light.store.commit import Commit
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.errors import Absent
from synnefo_light.store.filesystem import FileSystem
from synnefo_light.store.formats import Format, encode_record
from synnefo_light.store.identity import BLOCK_SIZE, MapId, block_id
from synnefo_light.store.names import EngineSnapshot, Entry
from synnefo_light.store.store import Store, open_store
from tests import child
from tests.real.store.contents import UUID_A, block, entry, image

FORM = Format(uuid=UUID("6f6a2cb0-4d0d-4f0c-8a53-2d2d5c8d9a10"), grace_s=3600)
SIZE = 5000 * BLOCK_SIZE
#: What every prepared store has under these names, whatever happens: block numbers by place.
KEPT = {"base": {0: 1, 1: 2, 4500: 3}, "other": {0: 1, 7: 4}}


class Unsynced(FileSystem):
    """Nothing waits for the disk; killing a process loses nothing that the kernel has."""

    def sync(self, fd: int) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


def prepare(backend: Backend) -> None:
    """Names to keep, a name to remove, a snapshot to seal, garbage, a stream to receive, a damaged block."""
    store = open_store(backend)
    for name, numbers in KEPT.items():
        image(store, name, numbers, size=SIZE)
    image(store, "to-remove", {0: 1, 3: 5}, size=SIZE)
    snapshot = EngineSnapshot(engine="directory", reference="snap")
    waiting = Entry(uuid=UUID_A, kind="snapshot", size=SIZE, created_ms=0, snapshot=snapshot)
    names.publish(store, "to-seal", waiting, under=None)
    image(store, "garbage", {0: 6, 1: 7}, size=SIZE)
    names.remove(store, "garbage")
    blocks.put(store, block(8))
    for key in store.backend.keys(Kind.PIN):  # long ago
        held = pins.load(store, key)
        data = encode_record(dump_json(replace(held.pin, expires_ms=1)))
        store.backend.replace(Kind.PIN, key, data, expected=held.version)


def later(store: Store) -> Instant:
    return Instant(store.backend.now() + 10 * store.format.grace_s)


def put(store: Store) -> None:
    if blocks.put(store, block(20)) != block_id(block(20)):
        raise AssertionError


def commit(store: Store) -> None:
    with Commit(store, size=SIZE, parent="base", owner="test") as change:
        change.put(1, block(21))
        change.put(2, block(1))
        change.hole(4500)
        map_id = change.finish()
        names.publish(store, "committed", entry(map_id, SIZE), under=change.held)


def seal(store: Store) -> None:
    with Commit(store, size=SIZE, owner="test") as change:
        change.put(0, block(22))
        names.seal(store, "to-seal", change.finish(), uuid=UUID_A, under=change.held)


def adopt(store: Store) -> None:
    with tempfile.TemporaryFile() as file, Commit(store, size=SIZE, owner="test") as change:
        file.write(block(23, BLOCK_SIZE) + bytes(BLOCK_SIZE) + block(24))
        file.flush()
        copying.take_file(change, file.fileno(), 3 * BLOCK_SIZE)
        names.publish(store, "adopted", entry(change.finish(), SIZE), under=change.held)


def replace_image(store: Store) -> None:
    over = names.load(store, "to-remove")
    with Commit(store, size=SIZE, owner="test") as change:
        change.put(0, block(25))
        names.publish(store, "to-remove", entry(change.finish(), SIZE), under=change.held, over=over)


def remove(store: Store) -> None:
    names.remove(store, "to-remove")


def rename(store: Store) -> None:
    with pins.hold(store, owner="test", names=["to-remove"]) as held:
        names.publish(store, "renamed", names.load(store, "to-remove").entry, under=held)
    names.remove(store, "to-remove")


def clone(store: Store) -> None:
    with pins.hold(store, owner="test", names=["base"]) as held:
        base = names.load(store, "base").entry.map
        assert base is not None
        pins.keep(store, "volume-1", owner="test", map_id=base, under=held)


def collect(store: Store) -> None:
    gc.collect(store, now=later(store))


def scrub_damaged(store: Store) -> None:
    scrub.scrub(store, bytes_per_s=1e12)


def receive(store: Store) -> None:
    raw = io.BytesIO()
    base, other = (names.load(store, name).entry.map for name in ("base", "other"))
    assert base is not None
    assert other is not None
    stream.send(store, other, raw.write, parent=base)
    raw.seek(0)
    stream.receive(store, raw, "received", entry, parent="base")


#: Each may be done again after it was broken off anywhere: then it ends, or says that it had been done.
OPERATIONS: dict[str, Callable[[Store], None]] = {
    "put": put,
    "commit": commit,
    "seal": seal,
    "adopt": adopt,
    "replace": replace_image,
    "remove": remove,
    "rename": rename,
    "clone": clone,
    "collect": collect,
    "receive": receive,
}
#: The name that an operation makes or changes; every other name is as it was at each step.
MAKES = {
    "commit": "committed",
    "seal": "to-seal",
    "adopt": "adopted",
    "replace": "to-remove",
    "remove": "to-remove",
    "rename": "renamed",
    "receive": "received",
}


def assert_kept(store: Store) -> None:
    """No damage, and what was acknowledged before is all there."""
    report = fsck.check(store)
    damage = [str(problem) for problem in report.problems if problem.weight is fsck.Weight.DAMAGE]
    assert damage == []
    for name, numbers in KEPT.items():
        map_id = names.load(store, name).entry.map
        assert map_id is not None
        opened = maps.open_map(store, map_id)
        assert dict(opened.blocks()) == {n: block_id(block(number)) for n, number in numbers.items()}
        for index, number in numbers.items():
            assert opened.read(index).startswith(block(number))


def assert_clean_after_collecting(store: Store) -> None:
    """Two runs of the collector, the second to empty the trash of the first, leave only what is needed."""
    for graces in (10, 20):
        gc.collect(store, now=Instant(store.backend.now() + graces * store.format.grace_s))
    assert_kept(store)
    strays = [s.place for s in store.backend.strays()]
    assert strays == []
    needed = {block for named in names.listing(store) if named.entry.map for block in _blocks(store, named.entry.map)}
    for held in (pins.load(store, key) for key in store.backend.keys(Kind.PIN)):
        needed |= {block for map_id in held.pin.maps for block in _blocks(store, map_id)}
    assert {bytes.fromhex(key) for key in store.backend.keys(Kind.BLOCK)} == needed


def _blocks(store: Store, map_id: str) -> set[bytes]:
    return {bytes(b) for _, b in maps.open_map(store, MapId(map_id)).blocks()}


def again(store: Store, operation: str) -> None:
    """Do it after it was broken off: what is done already is said, not done twice."""
    made = MAKES.get(operation)
    if operation in ("commit", "adopt", "receive", "rename"):
        try:
            names.load(store, str(made))
        except Absent:
            OPERATIONS[operation](store)
        else:
            if operation == "rename":
                _forget(store, "to-remove")
    elif operation == "remove":
        _forget(store, "to-remove")
    else:
        OPERATIONS[operation](store)


def _forget(store: Store, name: str) -> None:
    with contextlib.suppress(Absent):
        names.remove(store, name)


#: Opens a store whose every step is told.
Open = Callable[[Trace], Store]


def killed_at(path: Path, operation: str, last: int) -> tuple[bool, list[str]]:
    """As `killed_in` in a store that is a directory; "make" makes it."""
    if operation == "make":
        return _killed_at(lambda trace: make_directory(path, FORM, files=Unsynced(), trace=trace), last)
    return killed_in(
        lambda trace: open_store(Directory(path, files=Unsynced(), trace=trace), trace=trace), operation, last
    )


def killed_in(opened: Open, operation: str, last: int) -> tuple[bool, list[str]]:
    """Have a child open the store, do this and die (SIGKILL) at this step, counted from 1.

    Returns whether it did, and the steps that it went. Raises AssertionError when it ends in another way.
    """
    return _killed_at(lambda trace: OPERATIONS[operation](opened(trace)), last)


def _killed_at(act: Callable[[Trace], object], last: int) -> tuple[bool, list[str]]:
    with tempfile.TemporaryFile() as told:
        seen = itertools.count(1)

        def trace(step: str) -> None:
            os.write(told.fileno(), f"{step}\n".encode())
            if next(seen) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        died = child.was_killed(child.start(lambda: act(trace)))
        told.seek(0)
        return died, told.read().decode().splitlines()
