"""Guests that run in QEMU and write: one cut over two disks, and a file system that is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.directory.place import init_place
from snf_extstorage.guests import drive_of, starved

from synnefo_light.units import MIB
from tests.boot_sectors import RECORD, SECTOR, counting, filling
from tests.real.snf_extstorage.machine import running, status, until
from tests.real.snf_extstorage.places import Site, mounted_xfs
from tests.real.snf_extstorage.test_scripts import snf_store


@pytest.fixture(scope="module")
def small_xfs() -> Iterator[Path]:
    """One that is soon full, in memory, where syncs cost nothing: without a cache, BIOS has each write synced."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("mounting a file system needs root and mkfs.xfs")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        with mounted_xfs(folder, size=320 * MIB) as mount:
            yield mount
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def small_site(small_xfs: Path, tmp_path: Path) -> Site:
    site = Site(place=init_place(small_xfs / uuid4().hex), hints=tmp_path / "run")
    assert snf_store(site, "init").returncode == 0
    return site


class Disk:
    """A volume of an instance, open on this node."""

    def __init__(self, site: Site, instance: str, number: int, *, mib: int, first: bytes = b"") -> None:
        self.uuid = str(uuid4())
        self.name = f"{uuid4()}.ext.disk{number}"
        self._site = site
        self.script("create", VOL_SIZE=str(mib))
        self.script("setinfo", VOL_METADATA=f"originstname+{instance}")
        self.device, uri = self.script("attach").split("\n")
        self.path = Path(uri.removeprefix("kvm:"))
        self.script("open", VOL_OPEN_EXCLUSIVE="True")
        with open(self.path, "r+b") as file:
            file.write(first)

    def script(self, name: str, **more: str) -> str:
        done = self._site.script(name, self.name, VOL_UUID=self.uuid, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def remove(self) -> None:
        self.script("detach")
        self.script("remove")


def number_in(path: Path) -> int:
    with open(path, "rb") as file:
        file.seek(SECTOR)
        return int.from_bytes(file.read(4), "little")


def test_what_a_guest_wrote_to_one_disk_before_the_other_is_in_a_cut_of_both(small_site: Site) -> None:
    instance = f"counting-{uuid4()}"
    disks = [Disk(small_site, instance, n, mib=8, first=counting() if n == 0 else b"") for n in range(2)]
    folder = small_site.place.root
    found, loose = [], []
    with running(instance, [(disk.uuid, str(disk.path)) for disk in disks]):
        until(lambda: number_in(disks[1].path) > 10)
        for n in range(2):
            done = snf_store(small_site, "snapshot", "--no-commit", instance, f"cut{n}")
            assert done.returncode == 0, done.stderr
            assert b"stood still for" in done.stdout
            cut = {p.name.rpartition("-")[0]: p / "disk" for p in (folder / "snapshots").iterdir()}
            found.append((number_in(cut[f"cut{n}"]), number_in(cut[f"cut{n}-disk1"])))
            # The control: the same files, one after the other, while the guest goes on.
            copies: list[Path] = []
            for disk in disks:
                copies.append(folder / f"copy{n}-{len(copies)}")
                subprocess.run(["cp", "--reflink=always", disk.path, copies[-1]], check=True, timeout=60)
                reached = number_in(disks[1].path)
                until(lambda reached=reached: number_in(disks[1].path) > reached + 2)  # type: ignore[misc]
            loose.append((number_in(copies[0]), number_in(copies[1])))
        assert status(instance) == "running"
    assert all(second in (first, first - 1) for first, second in found), found
    assert len(set(found)) == 2
    assert any(second > first for first, second in loose), loose
    for disk in disks:
        disk.remove()


LAST = 64


def records(path: Path | str) -> list[int]:
    with open(path, "rb") as file:
        content = file.read((LAST + 1) * RECORD)
    return [int.from_bytes(content[n * RECORD : n * RECORD + 4], "little") for n in range(1, LAST + 1)]


def fill(folder: Path, *, leave: int) -> Path:
    found = os.statvfs(folder)
    path = folder / "filling"
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - leave)
    return path


@pytest.mark.parametrize(("ganeti", "access"), [("3.0", "userspace"), ("3.1", "kernelspace")])
def test_a_guest_on_a_full_file_system_stands_still_and_goes_on_with_nothing_lost(
    small_site: Site, ganeti: str, access: str
) -> None:
    instance = f"filling-{uuid4()}"
    disk = Disk(small_site, instance, 0, mib=16, first=filling(LAST))
    opened = str(disk.path) if access == "userspace" else disk.device
    in_the_way = fill(small_site.place.root, leave=MIB)
    with running(instance, [(disk.uuid, opened)], ganeti=ganeti):
        until(lambda: status(instance) == "io-error")
        assert starved(instance) == {drive_of(disk.uuid)}
        there = [n for n in records(disk.path) if n]
        assert there == list(range(1, len(there) + 1))
        assert 0 < len(there) < LAST
        # Nothing is free, so it stays as it is.
        done = snf_store(small_site, "upkeep")
        assert (done.returncode, status(instance)) == (0, "io-error")
        in_the_way.unlink()
        done = snf_store(small_site, "upkeep")
        assert f"{instance} goes on".encode() in done.stdout, done.stderr
        until(lambda: records(disk.path)[-1] == LAST)
        assert status(instance) == "running"
    assert records(disk.path) == list(range(1, LAST + 1))
    disk.remove()
