"""A snapshot's file shares what it can before the cut; the cut is still the disk at one moment. Compared by cmp."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from snf_extstorage.volume import SnapshotName

from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, own_names

(V,) = own_names(1)
SIZE = Bytes(32 * MIB)


def test_a_snapshot_is_what_the_disk_is_at_the_clone_and_not_what_was_shared_ahead(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    disk = site.place.disk("volumes", V)
    for at in range(0, 300 * 16384, 16384):
        fill(disk, b"a", at=at)
    shared: list[int] = []

    def meanwhile(step: str) -> None:
        if step != "snapshot disk":
            return
        (target,) = site.place.folder("snapshots").glob(".tmp-*/disk")
        shared.append(target.stat().st_blocks * 512)
        fill(disk, b"b", at=0)  # another block than the one that was shared
        fill(disk, b"c", at=20 * MIB)  # where there was none
        subprocess.run(["fallocate", "--punch-hole", "--offset", "16384", "--length", "4096", disk], check=True)

    site.node(trace=meanwhile).snapshot({V: SnapshotName("s")})
    assert [taken // 4096 in range(300, 310) for taken in shared] == [True]  # and a few of the tree of extents
    assert subprocess.run(["cmp", disk, site.place.disk("snapshots", "s")], check=False).returncode == 0
    assert disk.read_bytes()[:20480] == b"b" * 4096 + bytes(16384)
    node.remove(V)
    node.drop_snapshot(SnapshotName("s"))


def fill(disk: Path, letter: bytes, *, at: int) -> None:
    """One block, durably."""
    with open(disk, "r+b") as file:
        os.pwrite(file.fileno(), letter * 4096, at)
        os.fdatasync(file.fileno())
