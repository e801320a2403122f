"""What one disk held never shows in another, and what is taken from under a clone does not change it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from snf_extstorage.directory.place import init_place
from snf_extstorage.volume import FromVolume

from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, mounted_xfs, own_names, read, release, write

CANARY = b"a stranger's secret " * 3276  # nearly 64 KiB
V, W = own_names(2)


def holds_canary(path: str | Path) -> bool:
    return subprocess.run(["grep", "-q", "-a", "-F", CANARY[:40], path], timeout=120, check=False).returncode == 0


def test_a_deleted_disks_data_is_on_the_storage_still_and_in_no_new_or_grown_disk(tmp_path: Path) -> None:
    """The control is the first half of the name: the bytes are there, as grep sees in the file system's own image."""
    with mounted_xfs(tmp_path, size=330 * MIB) as mount:
        site = Site(place=init_place(mount / "site"), hints=tmp_path / "run")
        node = site.node()
        try:
            size = Bytes(160 * MIB)
            node.create(V, uuid=None, size=size)
            node.open(V, exclusive=True)
            for at in range(150):
                assert write(str(node.attach(V).device), CANARY.ljust(MIB, b"."), block=at * 256)
            node.detach(V)
            node.remove(V)
            os.sync()
            assert holds_canary(tmp_path / "xfs.img")
            # Blocks of the deleted disk are taken again: there are no others.
            node.create(W, uuid=None, size=size)
            node.open(W, exclusive=True)
            device = str(node.attach(W).device)
            for at in range(150):
                assert write(device, b"x" * 4096, block=at * 256)
            node.grow(W, Bytes(size + 32 * MIB))
            assert not holds_canary(device)
            assert not holds_canary(site.place.disk("volumes", W))
            node.detach(W)
        finally:
            release(site.place.root)


def test_a_device_that_was_left_behind_never_shows_a_later_volume(site: Site) -> None:
    """The dead process's device keeps the deleted file; the same name made again has another."""
    node = site.node()
    node.create(V, uuid=None, size=Bytes(8 * MIB))
    node.open(V, exclusive=True)
    old = str(node.attach(V).device)
    assert write(old, CANARY[:4096])
    site.place.discard("volumes", V)  # a removal that never came to detach
    with open(old, "rb"):  # somebody still has it
        site.node().create(V, uuid=None, size=Bytes(8 * MIB))
        new = str(node.attach(V).device)
        assert new != old
        node.open(V, exclusive=True)
        assert write(new, b"N" * 4096)
        assert read(old) == CANARY[:4096]
    assert read(new) == b"N" * 4096
    node.detach(V)
    assert node._access._loops.named(V) == []


def test_a_clone_is_its_own_whatever_becomes_of_its_origin(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=Bytes(8 * MIB))
    node.open(V, exclusive=True)
    origin = str(node.attach(V).device)
    assert write(origin, CANARY[:4096])
    node.clone(FromVolume(volume=V), W, uuid=None, size=Bytes(8 * MIB))
    clone = str(node.attach(W).device)
    assert write(origin, b"altered " * 512)
    assert read(origin) == b"altered " * 512  # the control: it is altered
    subprocess.run(["blkdiscard", origin], check=True, timeout=60)
    node.detach(V)
    node.remove(V)
    assert read(clone) == CANARY[:4096]
