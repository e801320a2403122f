"""The engine `directory` where files share extents and nobody says where they are: NFS 4.2."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from snf_extstorage.catalog import Cut
from snf_extstorage.commands.volume import find_volume
from snf_extstorage.volume import FromBase, FromSnapshot, SnapshotName

from synnefo_light.store import names
from synnefo_light.store.maps import open_map
from synnefo_light.units import Bytes
from tests.real.snf_extstorage.operations import CONTENT, SIZE, Node, W, content_of, made, register
from tests.real.snf_extstorage.places import Site, own_names

(X,) = own_names(1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where files are is not told; whose it was asked of."""
    real, found = fcntl.ioctl, list[int]()

    def ioctl(fd: int, request: int, *more: object) -> object:
        if request == 0xC020660B:  # FS_IOC_FIEMAP
            found.append(fd)
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(fd, request, *more)  # type: ignore[call-overload]

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return found


def test_everything_works_without_knowing_where_extents_are(site: Site, asked: list[int]) -> None:
    node = Node(site)
    made(node)
    register(node)
    catalog, volumes = node.catalog, node.volumes
    image = names.load(catalog.store, "image").entry.map
    assert image is not None
    volumes.clone(FromBase(map=image), W, uuid=None, size=SIZE)
    assert (volumes.facts(W).extents, volumes.facts(W).origin) == (None, image)
    volumes.grow(W, Bytes(2 * SIZE))
    assert find_volume(volumes, W).size == 2 * SIZE
    with open(site.place.disk("volumes", W), "r+b") as file:
        file.seek(SIZE)
        file.write(CONTENT)
        os.fsync(file.fileno())
    assert volumes.changed(W, FromBase(map=image)) is not None
    catalog.snapshot([Cut(volume=W, name="golden")])
    (held,) = volumes.snapshots()
    volumes.clone(FromSnapshot(snapshot=SnapshotName(held)), X, uuid=None, size=Bytes(2 * SIZE))
    found = open_map(catalog.store, catalog.commit("golden"))
    assert found.size == 2 * SIZE
    whole = b"".join(found.read(index) for index in range(5))
    assert whole == site.place.disk("volumes", W).read_bytes()
    assert content_of(node, "bases", found.id) == CONTENT
    for name in ("image", "golden"):
        catalog.remove(name)
    age(site.place.root / "bases")
    assert len(catalog.collect(dry_run=False)) == 1  # the other base is what volumes began as
    volumes.remove(W)
    assert list(catalog.problems()) == []
    assert asked


def age(folder: Path) -> None:
    for one in folder.iterdir():
        os.utime(one, (0, 0))
