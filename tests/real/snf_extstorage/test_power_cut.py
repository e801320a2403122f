"""The power goes at every step of what makes a volume or a snapshot: it is whole afterwards, or was never there.

XFS is told to stop at once and to write nothing more (XFS_IOC_GOINGDOWN), and what it left on its disk is mounted. This
proves the order: data reaches the disk before the log that names it. It cannot prove that the disk is flushed before
the log counts, for this disk is a file that keeps whatever reached it. Of the engine these are create, clone and
snapshot; adopting, giving back, fencing and bases are killed in `test_crashes.py` alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from snf_extstorage.directory import place as place_module
from snf_extstorage.directory.place import init_place
from snf_extstorage.volume import FromVolume, SnapshotName

from synnefo_light.files import sync_folder
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import KIB, Bytes
from tests.real.snf_extstorage.operations import CONTENT, SIZE, Node, V, W, made
from tests.real.snf_extstorage.places import Site, make_loop_nodes

GOING_DOWN: Final = 0x8004587D
WITHOUT_LOG: Final = struct.pack("=I", 2)
SNAPSHOT: Final = SnapshotName("golden")
#: It ends within a block of the file system, which a clone that becomes longer has copied.
ODD: Final = VolumeName("0d0d0d0d-a2eb-4318-b980-718b7ecef57d.ext.disk0")


class Machine:
    """A file system that can lose its power, and the volumes in it."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mount, self.hints = folder / "xfs.img", folder / "mnt", folder / "run"
        self.boots = 0
        with open(self.image, "wb") as file:
            file.truncate(512 << 20)
        self.mount.mkdir()
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", self.image], check=True, timeout=60)
        self.on()
        self.site = Site(place=init_place(self.mount / "volumes"), hints=self.hints)

    def on(self) -> None:
        """Of a copy: what was told to stop stays so as long as somebody's namespace has it."""
        old, self.boots = self.image, self.boots + 1
        self.image = old.with_name(f"xfs-{self.boots}.img")
        subprocess.run(["cp", "--sparse=always", old, self.image], check=True, timeout=60)
        old.unlink()
        make_loop_nodes()
        subprocess.run(["mount", "-o", "loop,nouuid", self.image, self.mount], check=True, timeout=60)

    def cut_power(self) -> None:
        fd = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, GOING_DOWN, WITHOUT_LOG)
        finally:
            os.close(fd)

    def off(self) -> None:
        subprocess.run(["umount", self.mount], check=True, timeout=60)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.off()


def clone(node: Node) -> None:
    node.volumes.clone(FromVolume(volume=V), W, uuid="w", size=SIZE)


def clone_odd(node: Node) -> None:
    node.volumes.clone(FromVolume(volume=ODD), W, uuid="w", size=SIZE)


def create(node: Node) -> None:
    node.volumes.create(W, uuid="w", size=SIZE)


def snapshot(node: Node) -> None:
    node.volumes.snapshot({V: SNAPSHOT})


def die_at(machine: Machine, act: Callable[[Node], None], at: int, patch: pytest.MonkeyPatch) -> bool:
    """Whether the power went before it returned; at the latest it goes then."""
    told = 0

    def step(name: object) -> None:
        nonlocal told
        if told == at:
            machine.cut_power()
        told += 1

    def syncing(folder: Path) -> None:
        step(folder)
        sync_folder(folder)

    with patch.context() as patched:
        patched.setattr(place_module, "sync_folder", syncing)
        try:
            act(Node(machine.site, trace=step))
        except OSError:
            assert told > at, "it failed though the power had not gone"
            return True
    if told <= at:
        machine.cut_power()
    return told > at


def found(node: Node) -> tuple[bool, bytes]:
    """Whether the volume or snapshot that was made is there, and what is in it."""
    for kind, name in (("volumes", W), ("snapshots", SNAPSHOT)):
        path = node.volumes.place.disk(kind, name)
        if path.exists():
            return True, path.read_bytes()
    return False, b""


@pytest.mark.parametrize(
    ("act", "content"),
    [(create, bytes(SIZE)), (clone, CONTENT), (clone_odd, b"o" * (9 * KIB)), (snapshot, CONTENT)],
    ids=["create", "clone", "clone_odd", "snapshot"],
)
def test_a_power_cut_at_any_step_leaves_all_of_it_or_nothing(
    machine: Machine, act: Callable[[Node], None], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(machine.site)
    made(node)
    node.volumes.create(ODD, uuid="o", size=Bytes(9 * KIB))
    disk = node.volumes.place.disk("volumes", ODD)
    disk.write_bytes(b"o" * (9 * KIB))
    os.sync()
    cuts = 0
    while True:
        dead = die_at(machine, act, cuts, monkeypatch)
        machine.off()
        machine.on()
        there, held = found(node)
        assert list(node.volumes.check()) == []
        if there:
            assert held == content.ljust(len(held), b"\0")
            assert len(held) == SIZE
        if not dead:
            break
        cuts += 1
        with contextlib.suppress(FileNotFoundError):
            node.volumes.place.discard("volumes", W)
        node.volumes.drop_snapshot(SNAPSHOT)
        node.volumes.place.sweep(older_than_s=-1)
    assert there
    assert cuts >= 4


def test_the_control_a_record_whose_data_is_not_written_before_its_name_is_lost(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_module, "write_out", lambda fd: True)
    made(Node(machine.site))
    clone(Node(machine.site))
    machine.cut_power()
    machine.off()
    machine.on()
    assert any(W in problem for problem in Node(machine.site).volumes.check())
