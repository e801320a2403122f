"""Defects that Archipelago's store had, one test each; those of its provider are tested with ours.

The name of a deleted volume was unusable (test_maps.py: a name is taken once and free again); growing made every block
be copied onto itself (test_maps.py: growing adds holes and no page).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synnefo_light.store import blocks, gc, maps, names, pins, stream
from synnefo_light.store.backend import Instant, Kind
from synnefo_light.store.commit import Commit
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.filesystem import FileSystem
from synnefo_light.store.formats import PageEntry, Root, encode_page, encode_record, encode_root
from synnefo_light.store.identity import BLOCK_SIZE
from synnefo_light.store.store import Store, open_store
from tests.real.store import operations
from tests.real.store.contents import block, entry, image
from tests.real.store.operations import OPERATIONS


def test_what_two_hold_is_let_go_when_the_second_lets_go_and_not_before(store: Store) -> None:
    """Whoever waited for a map's users was woken while there were some, and not after the last."""
    map_id = image(store, "a", {0: 1})
    first, second = (pins.acquire(store, owner=who, names=["a"], ttl_s=10**9) for who in ("first", "second"))
    names.remove(store, "a")
    for held, left in ((first, [map_id]), (second, [])):
        pins.release(store, held.key)
        gc.collect(store, now=Instant(store.backend.now() + 10 * store.format.grace_s))
        assert list(store.backend.keys(Kind.ROOT)) == left


def test_every_integer_of_a_format_is_big_endian() -> None:
    """Entry lengths were in the byte order of the host, in a format that was otherwise big endian."""
    page = encode_page([b"\xaa" * 32])
    assert page.hex() == ("534e46500001160c000000000000000000000000000000000000000100000000" + "aa" * 32)
    root = encode_root(Root(size=0x123456, pages=(PageEntry(page=b"\xbb" * 32, subtree=b"\xcc" * 32),)))
    assert root.hex() == (
        "534e464d0001160c0000000000000000000000000000000000000000001234560000000100000000" + "bb" * 32 + "cc" * 32
    )
    assert encode_record(b"{}").hex().startswith("534e46520001000000000000000000000000000000000000000000027b7d")


def test_the_longest_name_works_whatever_it_names(store: Store) -> None:
    """Names of objects were made of the volume's name, an epoch and an index, and had to fit into 123 bytes."""
    name = "n" * 200
    map_id = image(store, name, {0: 1, 4_000_000: 2}, size=4_000_001 * BLOCK_SIZE)
    assert names.load(store, name).entry.map == map_id
    assert names.remove(store, name).name == name


def test_listing_names_opens_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing volumes opened every object of the map pool."""
    for n in range(5):
        image(store, f"n{n}", {0: n + 1})
    opened: list[Kind] = []
    read = store.backend.read

    def noting(kind: Kind, key: str) -> bytes:
        opened.append(kind)
        return read(kind, key)

    monkeypatch.setattr(store.backend, "read", noting)
    assert len(list(names.listing(store))) == 5
    assert set(opened) <= {Kind.NAME}


def test_a_name_has_properties_and_keeps_them(store: Store) -> None:
    """Volumes had no metadata: setinfo was a stub."""
    map_id = image(store, "a", {0: 1})
    named = names.load(store, "a")
    with Commit(store, size=BLOCK_SIZE, parent="a", owner="x") as commit:
        from dataclasses import replace

        wanted = replace(named.entry, properties={"OSFAMILY": "linux", "text": "Grüße\n\0"})
        names.publish(store, "a", wanted, under=commit.held, over=named)
    found = names.load(store, "a").entry
    assert (found.map, found.properties, found.generation) == (map_id, wanted.properties, 2)


def test_the_offset_of_an_open_file_does_not_matter(store: Store, tmp_path: Path) -> None:
    """Copying trusted the offset that an earlier user of the same descriptor had left."""
    volume = tmp_path / "volume"
    volume.write_bytes(block(1, BLOCK_SIZE) + block(2, BLOCK_SIZE))
    with open(volume, "rb") as file, Commit(store, size=2 * BLOCK_SIZE, owner="x") as commit:
        file.seek(12345)
        os.lseek(file.fileno(), 999, os.SEEK_SET)
        commit.take(0, file.fileno(), 0)
        os.lseek(file.fileno(), 5, os.SEEK_SET)
        commit.take(1, file.fileno(), BLOCK_SIZE)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 5
        map_id = commit.finish()
    opened = maps.open_map(store, map_id)
    assert opened.read(0) + opened.read(1) == volume.read_bytes()


def test_every_operation_that_there_is_works(tmp_path: Path) -> None:
    """Hashing always failed, and its test asserted success: the suite cannot have been run."""
    for number, (name, operation) in enumerate(OPERATIONS.items()):
        path = tmp_path / str(number) / "store"
        path.parent.mkdir()
        operations.prepare(make_directory(path, operations.FORM, files=operations.Unsynced()))
        store = open_store(Directory(path, files=operations.Unsynced()))
        operation(store)
        operations.assert_kept(store)
        assert name in OPERATIONS


class Noting(FileSystem):
    """What is called, with its first argument; a descriptor by the path that it was made for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Path]] = []
        self.paths: dict[int, Path] = {}

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name in ("create", "sync", "sync_folder", "rename"):
            return lambda *arguments: self._note(name, method, *arguments)
        return method

    def _note(self, name: str, method: Callable[..., Any], *arguments: Any) -> Any:
        result = method(*arguments)
        if name == "create":
            self.paths[result] = arguments[0]
        first = self.paths[arguments[0]] if isinstance(arguments[0], int) else arguments[0]
        self.calls.append((name, first))
        if name == "rename":
            self.calls.append(("renamed", arguments[1]))
        return result


def test_a_block_is_synced_before_it_has_its_name_and_its_folder_before_it_is_acknowledged(tmp_path: Path) -> None:
    """Hashed blocks were written without syncing file or folder."""
    files = Noting()
    store = open_store(make_directory(tmp_path / "store", operations.FORM, files=files))
    files.calls.clear()
    stored = blocks.put(store, block(1))
    assert stored is not None
    final = tmp_path / "store" / "blocks" / stored.hex()[:2] / stored.hex()
    (temporary,) = (path for name, path in files.calls if name == "create")
    order = [
        files.calls.index(("sync", temporary)),
        files.calls.index(("renamed", final)),
        files.calls.index(("sync_folder", final.parent)),
    ]
    assert order == sorted(order)
    assert ("sync_folder", final.parent.parent) in files.calls


def test_content_that_another_store_sent_has_the_same_hash_here(store: Store) -> None:
    """Maps of the first version could never be written: preparing to always returned nothing."""
    import io

    map_id = image(store, "a", {0: 1, 3: 2})
    raw = io.BytesIO()
    stream.send(store, map_id, raw.write)
    raw.seek(0)
    received = stream.receive(store, raw, "b", entry)
    assert received.entry.map == map_id
