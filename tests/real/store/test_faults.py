"""Every write of ours fails once, with ENOSPC, EIO or in its sync: nothing is acknowledged that is not there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synnefo_light.store import blocks, fsck, maps, names, stats
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.errors import Absent, StoreBroken, StoreFault, StoreFull
from synnefo_light.store.filesystem import FileSystem
from synnefo_light.store.identity import block_id
from synnefo_light.store.store import Store, open_store
from tests.real.store import operations
from tests.real.store.contents import block
from tests.real.store.operations import OPERATIONS, Unsynced

CALLS = ("create", "write", "share", "truncate", "sync", "sync_folder", "rename", "unlink", "mkdir", "touch")


class Failing(FileSystem):
    """The `fail_at`th call ends with an error, and does half of its work if it is a write. `calls` are their names."""

    def __init__(self, fail_at: int, error: int) -> None:
        self.fail_at = fail_at
        self.error = error
        self.calls: list[str] = []
        self.failed = ""

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in CALLS:
            return method

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self.fail_at:
                self.failed = name
                if name == "write":
                    method(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise OSError(self.error, os.strerror(self.error))
            return None if name.startswith("sync") else method(*arguments)

        return call


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "store"
    operations.prepare(make_directory(path, operations.FORM, files=Unsynced()))
    return path


def fail_everywhere(
    prepared: Path, scratch: Path, operation: str, error: int, check: Callable[[Store, Failing, StoreFault], None]
) -> None:
    fail_at = 0
    while True:
        fail_at += 1
        path = scratch / "store"
        shutil.copytree(prepared, path)
        files = Failing(10**9, error)
        store = open_store(Directory(path, files=files))
        files.fail_at = len(files.calls) + fail_at
        fault = None
        try:
            OPERATIONS[operation](store)
        except StoreFault as e:
            fault = e
        fresh = open_store(Directory(path, files=Unsynced()))
        if not files.failed:
            break
        operations.assert_kept(fresh)
        if fault is not None:
            check(store, files, fault)
            operations.again(fresh, operation)
        operations.assert_clean_after_collecting(fresh)
        shutil.rmtree(path)
    assert fault is None
    assert fail_at > 5


@pytest.mark.parametrize("operation", ["put", "commit", "adopt", "replace", "remove", "receive", "collect"])
def test_a_full_disk_at_every_write_is_said_and_the_next_write_is_tried(
    prepared: Path, scratch: Path, operation: str
) -> None:
    def check(store: Store, files: Failing, fault: StoreFault) -> None:
        if files.failed.startswith("sync"):
            assert isinstance(fault, StoreBroken)
            return
        assert isinstance(fault, StoreFull), files.failed
        assert "no space left" in str(fault)
        stored = blocks.put(store, block(99))
        assert stored is not None
        assert blocks.get(store, stored) == block(99)

    fail_everywhere(prepared, scratch, operation, errno.ENOSPC, check)


@pytest.mark.parametrize("operation", ["put", "commit", "adopt", "replace", "remove", "receive", "collect"])
def test_an_error_of_the_disk_at_every_write_ends_all_writing(prepared: Path, scratch: Path, operation: str) -> None:
    def check(store: Store, files: Failing, fault: StoreFault) -> None:
        assert isinstance(fault, StoreBroken), files.failed
        before = len(files.calls)
        for _ in range(2):
            with pytest.raises(StoreBroken, match="nothing is written to it any more"):
                blocks.put(store, block(99))
        assert [call for call in files.calls[before:] if call != "unlink"] == []

    fail_everywhere(prepared, scratch, operation, errno.EIO, check)


def test_after_a_failed_sync_of_a_block_it_is_not_there(scratch: Path) -> None:
    """fsync(2) may report success the next time though the data is gone: so nothing syncs again."""
    path = scratch / "store"
    make_directory(path, operations.FORM, files=Unsynced())
    files = Failing(10**9, errno.EIO)
    store = open_store(Directory(path, files=files))
    blocks.put(store, block(1))
    first = files.calls[:]
    files.fail_at = len(first) + first.index("sync") + 1
    with pytest.raises(StoreBroken):
        blocks.put(store, block(2))
    assert files.failed == "sync"
    assert files.calls.count("sync") == 2
    fresh = open_store(Directory(path))
    with pytest.raises(Absent):
        blocks.get(fresh, block_id(block(2)))
    assert list((path / "tmp").iterdir()) == []


def test_a_store_that_cannot_be_written_is_still_read(prepared: Path) -> None:
    files = Failing(10**9, errno.EROFS)
    store = open_store(Directory(prepared, files=files))
    files.fail_at = len(files.calls) + 1
    with pytest.raises(StoreBroken):
        blocks.put(store, block(50))
    map_id = names.load(store, "base").entry.map
    assert map_id is not None
    assert maps.open_map(store, map_id).read(0).startswith(block(1))


def test_a_store_on_a_file_system_that_is_read_only_is_checked(prepared: Path) -> None:
    class ReadOnly(FileSystem):
        def __getattribute__(self, name: str) -> Any:
            if name in CALLS:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return super().__getattribute__(name)

    store = open_store(Directory(prepared, files=ReadOnly()))
    assert fsck.check(store).exit_code == 0
    assert stats.measure(store).names > 0
    with pytest.raises(StoreBroken):
        blocks.put(store, block(50))
