"""Not a byte is left: whatever stops, moves or takes over an instance still works."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from snf_extstorage.directory.place import BALLAST, init_place
from snf_extstorage.volume import NoSpace

from synnefo_light.ganeti import VolumeName
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, mounted_xfs, own_names, read, release, write

V, W = own_names(2)
A, B = (letter.encode() * 4096 for letter in "AB")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Site]:
    """In memory, for nobody pulls a plug here."""
    folder = Path("/dev/shm") / f"snf-{tmp_path.name}"
    folder.mkdir()
    try:
        with mounted_xfs(folder, size=320 * MIB) as mount:
            yield Site(place=init_place(mount / "site"), hints=tmp_path / "run")
            release(mount)
    finally:
        (folder / "xfs.img").unlink(missing_ok=True)
        (folder / "mnt").rmdir()
        folder.rmdir()


def fill(site: Site) -> None:
    """Until not even an empty file can be made."""
    room = os.statvfs(site.place.root)
    with open(site.place.root.parent / "filler", "ab") as file:
        with contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - MIB)
        with contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))
    number = 0
    while True:
        try:
            (site.place.root.parent / f"filler-{number:0200}").write_bytes(b"x" * 4096)
        except OSError as e:
            assert e.errno == errno.ENOSPC
            with contextlib.suppress(OSError):
                while True:
                    os.close(os.open(site.place.root.parent / f"empty-{number:0200}", os.O_CREAT | os.O_WRONLY))
                    number += 1
            return
        number += 1


def test_stop_migration_failover_and_removal_work_without_a_free_byte(small: Site) -> None:
    one, two = small.node("node1"), small.node("node2")
    for name in (V, W):
        one.create(name, uuid=None, size=Bytes(8 * MIB))
        source = str(one.attach(name).device)
        one.open(name, exclusive=True)
        assert write(source, A)
    fill(small)
    with pytest.raises(NoSpace, match="are reserved"):
        one.create(VolumeName("c"), uuid=None, size=Bytes(MIB))
    # A live migration of V, and its stop and start
    target = str(two.attach(V).device)
    one.open(V, exclusive=False)
    two.open(V, exclusive=False)
    one.close(V)
    two.open(V, exclusive=True)
    one.detach(V)
    assert write(target, B)
    two.set_info(V, "originstname+web1")
    two.detach(V)
    two.open(V, exclusive=True)
    assert (two.facts(V).holders, two.facts(V).info) == (("node2",), "originstname+web1")
    # W is taken from a dead node: that needs room, which the ballast gives
    assert (small.place.root / "ballast").stat().st_blocks > 0
    target = str(two.attach(W).device)
    two.open(W, exclusive=True)
    assert write(source, B)
    assert read(target) == A
    assert two.facts(W).holders == ("node2",)
    two.detach(V)
    two.remove(V)
    assert list(two.volumes()) == [W]
    assert list(two.check()) == []


def test_without_the_ballast_a_fence_says_what_is_missing_and_changes_nothing(small: Site) -> None:
    one, two = small.node("node1"), small.node("node2")
    one.create(V, uuid=None, size=Bytes(8 * MIB))
    source = str(one.attach(V).device)
    one.open(V, exclusive=True)
    assert write(source, A)
    (small.place.root / "ballast").unlink()
    fill(small)
    two.attach(V)
    with pytest.raises(NoSpace, match="there is no ballast left"):
        two.open(V, exclusive=True)
    assert two.facts(V).holders == ("node1",)
    assert write(source, B)
    one.detach(V)
    two.open(V, exclusive=True)
    assert read(str(two.attach(V).device)) == B
    assert list(two.check()) == []


def test_the_ballast_comes_back_when_there_is_room_again(small: Site) -> None:
    node = small.node()
    node.create(V, uuid=None, size=Bytes(MIB))
    ballast = small.place.root / "ballast"
    size = ballast.stat().st_size
    assert MIB < size <= BALLAST
    os.truncate(ballast, 0)
    node.create(W, uuid=None, size=Bytes(MIB))
    assert ballast.stat().st_size == size
    assert ballast.stat().st_blocks * 512 == size


def test_a_record_is_rewritten_where_it_is(small: Site) -> None:
    """Neither a new inode nor a new block: what it takes was taken when the volume was made."""
    node = small.node()
    node.create(V, uuid=None, size=Bytes(MIB))
    record = small.place.folder("volumes", V) / "record"
    before = record.stat()
    node.open(V, exclusive=True)
    after = record.stat()
    assert (after.st_ino, after.st_blocks, after.st_size) == (before.st_ino, before.st_blocks, before.st_size)
    assert after.st_mtime_ns > before.st_mtime_ns
