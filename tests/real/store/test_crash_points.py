"""kill -9 at every numbered step of every operation: nothing acknowledged is lost, and all can be done again.

On Ceph at one step of some; at every step of all with SNF_CRASH_STEPS=all.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from uuid import uuid4

import pytest
from snf_lab.ceph import CLIENT, POOLS, Ceph

from synnefo_light.ceph import Access, Cluster
from synnefo_light.store import names
from synnefo_light.store.backend import Trace
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.errors import Absent, FormatRefused
from synnefo_light.store.identity import MapId
from synnefo_light.store.names import EngineSnapshot
from synnefo_light.store.rados import RadosBackend, make_rados
from synnefo_light.store.store import Store, no_trace, open_store
from tests import child
from tests.real.store import operations
from tests.real.store.operations import MAKES, OPERATIONS, Unsynced, killed_at, killed_in

#: Steps that a module's docstring argues about; each has to be among those at which an operation was killed.
ARGUED = {
    "put": {"create.1 written", "create.2 synced", "create.3 renamed", "create.4 folders synced"},
    "commit": {
        *("hold.1 pinned", "hold.2 checked", "commit.1 pinned", "commit.2 blocks written", "commit.3 pages written"),
        *("commit.4 root written", "publish.1 pinned", "publish.2 published", "publish.3 checked"),
        *("replace.1 compared", "replace.2 written", "replace.3 renamed", "replace.4 folder synced"),
    },
    "remove": {"remove.1 pinned", "remove.2 removed", "delete.1 removed", "delete.2 folder synced"},
    "collect": {
        *("gc.1 begun", "gc.2 marked", "gc.3 roots swept", "gc.3 pages swept", "gc.3 swept", "gc.4 leftovers gone"),
        *("gc.5 noted", "retire.1 in the trash", "retire.2 looked at again"),
    },
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "store"
    operations.prepare(make_directory(path, operations.FORM, files=Unsynced()))
    return path


def reopened(path: Path) -> Store:
    return open_store(Directory(path, files=Unsynced()))


Content = tuple[MapId | None, EngineSnapshot | None]


def content(store: Store, name: str) -> Content | None:
    try:
        found = names.load(store, name).entry
    except Absent:
        return None
    return found.map, found.snapshot


def is_whole(found: Content | None, before: Content | None, after: Content | None) -> bool:
    """As it was, or as it was to be; a snapshot that is sealed has both for a moment, and either is its content."""
    sealed = before is not None and after is not None and (after[0], before[1])
    return found in (before, after, sealed)


def assert_goes_on(store: Store, operation: str, how: str, before: Content | None, after: Content | None) -> None:
    """After the death nothing is half there; done again, it is as if nobody had died."""
    made = MAKES.get(operation, "base")
    operations.assert_kept(store)
    assert is_whole(content(store, made), before, after), f"{operation} {how}"
    operations.again(store, operation)
    assert content(store, made) == after, f"{operation} again after being {how}"
    operations.assert_clean_after_collecting(store)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_every_step_nothing_is_lost_and_it_can_be_done_again(
    prepared: Path, scratch: Path, operation: str
) -> None:
    undisturbed = scratch / "undisturbed"
    shutil.copytree(prepared, undisturbed)
    killed, steps = killed_at(undisturbed, operation, 0)
    assert not killed
    assert len(steps) >= 4
    assert ARGUED.get(operation, set()) <= set(steps)
    made = MAKES.get(operation, "base")
    before, after = content(reopened(prepared), made), content(reopened(undisturbed), made)
    for step in range(1, len(steps) + 1):
        path = scratch / "store"
        shutil.copytree(prepared, path)
        killed, went = killed_at(path, operation, step)
        assert killed or operation == "collect", f"{operation} ended before its step {step}"
        assert_goes_on(reopened(path), operation, f"killed after {went[-1]}", before, after)
        shutil.rmtree(path)


def test_a_store_whose_making_was_killed_is_no_store_and_can_be_made(scratch: Path) -> None:
    _, steps = killed_at(scratch / "whole", "make", 0)
    assert {"make.1 folders", "make.2 FORMAT"} <= set(steps)
    for step in range(1, len(steps) + 1):
        path = scratch / f"store-{step}"
        _, went = killed_at(path, "make", step)
        if "replace.3 renamed" in went:
            with pytest.raises(FormatRefused, match="already"):
                make_directory(path, operations.FORM)
        else:
            with pytest.raises(FormatRefused, match="is not a store"):
                open_store(Directory(path))
            make_directory(path, operations.FORM, files=Unsynced())
        assert open_store(Directory(path)).format == operations.FORM


EVERY = os.environ.get("SNF_CRASH_STEPS") == "all"
#: What the tests of volumes on Ceph do not kill: they commit, clone and collect.
SAMPLE = ("receive", "rename", "replace")


@pytest.mark.parametrize("operation", OPERATIONS if EVERY else SAMPLE)
def test_killed_on_ceph_nothing_is_lost_and_it_can_be_done_again(ceph: Ceph, cluster: Cluster, operation: str) -> None:
    def made() -> operations.Open:
        """A prepared store; each process that opens it has a connection of its own."""
        namespace, mine = f"crash-{uuid4()}", os.getpid()
        operations.prepare(make_rados(cluster, operations.FORM, pool=POOLS[2], namespace=namespace))

        def opened(trace: Trace) -> Store:
            own = cluster if os.getpid() == mine else Cluster(Access(conf=ceph.client_conf, user=CLIENT))
            return open_store(RadosBackend(own, pool=POOLS[2], namespace=namespace, trace=trace), trace=trace)

        return opened

    undisturbed = made()
    before = content(undisturbed(no_trace), MAKES.get(operation, "base"))
    killed, steps = killed_in(undisturbed, operation, 0)
    assert not killed
    assert len(steps) >= 3
    after = content(undisturbed(no_trace), MAKES.get(operation, "base"))
    for step in range(1, len(steps) + 1) if EVERY else (len(steps) * 2 // 3,):
        opened = made()
        killed, went = killed_in(opened, operation, step)
        assert killed or operation == "collect", f"{operation} ended before its step {step}"
        assert_goes_on(opened(no_trace), operation, f"killed after {went[-1]}", before, after)


def test_a_child_that_raises_or_does_not_end_fails_its_test(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match="the child ended with 1"):
        child.was_killed(child.start(lambda: 1 // 0))
    assert "ZeroDivisionError" in capfd.readouterr().err
    monkeypatch.setattr(child, "LIMIT_S", 1)
    with pytest.raises(AssertionError, match="still at it after 1 s"):
        child.was_killed(child.start(signal.pause))
