"""The power goes after each system call: of what was not synced any part may be there or not.

The file functions are recorded while an operation runs on a prepared store. For every prefix of the record the disk is
made as a file system may leave it: a file has what it had at its last fsync, or more; a folder's entries are those of
its last fsync, or each changed one is already there or gone. On each such disk the store must be whole, all that was
acknowledged before be there, and, once the operation has returned, its result too.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from synnefo_light.store import names
from synnefo_light.store.backend import Kind
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.errors import Absent
from synnefo_light.store.filesystem import FileSystem
from synnefo_light.store.identity import block_id
from synnefo_light.store.store import open_store
from tests.real.store import operations
from tests.real.store.contents import block
from tests.real.store.operations import MAKES, OPERATIONS, Unsynced


@dataclass(eq=False)
class Inode:
    """A file: what it holds and what of it is on the disk. None on the disk: nothing yet, its length may be 0."""

    now: bytes = b""
    disk: bytes = b""


@dataclass
class Disk:
    """Folders by path, each with its entries; an entry is a file, or None for a folder."""

    now: dict[Path, dict[str, Inode | None]] = field(default_factory=dict)
    disk: dict[Path, dict[str, Inode | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Disk:
        found = cls()
        for folder, _, files in os.walk(path):
            entries: dict[str, Inode | None] = {name: None for name in os.listdir(folder) if name not in files}
            for name in files:
                content = (Path(folder) / name).read_bytes()
                entries[name] = Inode(content, content)
            found.now[Path(folder)] = entries
            found.disk[Path(folder)] = dict(entries)
        return found

    def left(self, chance: random.Random | None) -> dict[Path, dict[str, bytes | None]]:
        """What a power cut leaves: only what was synced, or by chance more of it."""
        found: dict[Path, dict[str, bytes | None]] = {}
        for folder, on_disk in self.disk.items():
            entries = dict(on_disk)
            for name in on_disk.keys() | self.now[folder].keys():
                if chance is not None and chance.random() < 0.5:
                    entries.pop(name, None)
                    if name in self.now[folder]:
                        entries[name] = self.now[folder][name]
            found[folder] = {name: None if e is None else self._bytes(e, chance) for name, e in entries.items()}
        return found

    @staticmethod
    def _bytes(inode: Inode, chance: random.Random | None) -> bytes:
        if chance is None or inode.now == inode.disk:
            return inode.disk
        return inode.now[: chance.choice([0, len(inode.now) // 2, len(inode.now)])]


class Recording(FileSystem):
    """Does nothing to the real disk that it does not also note; `cuts` are the disks that a power cut may leave."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.open: dict[int, Inode] = {}
        self.cuts: list[dict[Path, dict[str, bytes | None]]] = []
        self.recording = True

    def _cut(self) -> None:
        if self.recording:
            seed = len(self.cuts)
            self.cuts += [self.disk.left(None), *(self.disk.left(random.Random(seed + n)) for n in range(2))]

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self.open[fd] = Inode()
        self.disk.now[path.parent][path.name] = self.open[fd]
        self._cut()
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> None:
        super().write(fd, data)
        self.open[fd].now += bytes(data)
        self._cut()

    def truncate(self, fd: int, length: int) -> None:
        super().truncate(fd, length)
        self.open[fd].now = self.open[fd].now[:length].ljust(length, b"\0")
        self._cut()

    def sync(self, fd: int) -> None:
        self.open[fd].disk = self.open[fd].now
        self._cut()

    def sync_folder(self, folder: Path) -> None:
        self.disk.disk[folder] = dict(self.disk.now[folder])
        self._cut()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.disk.now[new.parent][new.name] = self.disk.now[old.parent].pop(old.name)
        self._cut()

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        del self.disk.now[path.parent][path.name]
        self._cut()

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self.disk.now[path.parent][path.name] = None
        self.disk.now[path], self.disk.disk[path] = {}, {}
        self._cut()


def materialise(left: dict[Path, dict[str, bytes | None]], origin: Path, target: Path) -> None:
    """A folder that is not among its parent's entries is not there, whatever it had."""
    for folder in sorted(left):
        place = target / folder.relative_to(origin)
        parent = left.get(folder.parent)
        if parent is not None and folder.name not in parent:
            continue
        if not place.parent.exists():
            continue
        place.mkdir()
        for name, content in left[folder].items():
            if content is not None:
                (place / name).write_bytes(content)


@pytest.mark.parametrize("operation", ["put", "commit", "seal", "replace", "remove", "rename", "receive", "clone"])
def test_whatever_the_power_cut_leaves_is_whole(scratch: Path, operation: str) -> None:
    path = scratch / "store"
    operations.prepare(make_directory(path, operations.FORM, files=Unsynced()))
    files = Recording(Disk.of(path))
    store = open_store(Directory(path, files=files))
    OPERATIONS[operation](store)
    files.recording = False
    acknowledged = [files.disk.left(None), *(files.disk.left(random.Random(n)) for n in range(10))]
    cuts = files.cuts
    assert len(cuts) > 20
    for number, left in enumerate([*cuts, *acknowledged]):
        target = scratch / "left" / "store"
        target.parent.mkdir()
        materialise(left, path, target)
        found = open_store(Directory(target, files=Unsynced()))
        operations.assert_kept(found)
        if number >= len(cuts):
            for name in {*operations.KEPT, MAKES.get(operation, "base")}:
                if operation == "remove" and name == "to-remove":
                    with pytest.raises(Absent):
                        names.load(found, name)
                else:
                    assert names.load(found, name).entry == names.load(store, name).entry
            if operation == "put":
                assert found.backend.read(Kind.BLOCK, block_id(block(20)).hex())
        shutil.rmtree(target.parent)


def test_without_the_syncs_the_same_cuts_lose_what_was_acknowledged(scratch: Path) -> None:
    """The control: the recorder can see a loss."""

    class Forgetful(Recording):
        def sync_folder(self, folder: Path) -> None:
            pass

    path = scratch / "store"
    operations.prepare(make_directory(path, operations.FORM, files=Unsynced()))
    files = Forgetful(Disk.of(path))
    OPERATIONS["commit"](open_store(Directory(path, files=files)))
    target = scratch / "left"
    materialise(files.disk.left(None), path, target)
    with pytest.raises(Absent):
        names.load(open_store(Directory(target, files=Unsynced())), "committed")
