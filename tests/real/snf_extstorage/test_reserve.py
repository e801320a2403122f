"""Two that bring an image at the same time see the same free space, and do not write into the reserve together."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from snf_extstorage.catalog import Catalog
from snf_extstorage.directory.place import Place, init_place
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.volume import NoSpace, Space

from synnefo_light.store import names
from synnefo_light.store.identity import BLOCK_SIZE
from synnefo_light.store.maps import open_map
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.operations import Node
from tests.real.snf_extstorage.places import Site, mounted_xfs
from tests.real.snf_extstorage.storages import OnRados, catalog_of

RESERVE = 50  # percent


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Site]:
    """In memory, where nobody waits for a disk."""
    folder = Path("/dev/shm") / f"snf-{tmp_path.name}"
    folder.mkdir()
    try:
        with mounted_xfs(folder, size=320 * MIB) as mount:
            place = init_place(mount / "site")
            yield Site(place=Place(place.root, reserve_percent=RESERVE), hints=tmp_path / "run")
    finally:
        (folder / "xfs.img").unlink(missing_ok=True)
        (folder / "mnt").rmdir()
        folder.rmdir()


def image(folder: Path, name: str, size: int) -> Path:
    """A file on another file system, so that it has to be copied; each of its blocks is another one."""
    path = folder / name
    with open(path, "wb") as file:
        for number in range(size // BLOCK_SIZE):
            file.write(f"{name} {number}".encode().ljust(BLOCK_SIZE, b"x"))
    return path


def register(catalog: Catalog, path: Path, said: list[str]) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        catalog.register(path.name, fd, Bytes(path.stat().st_size), origin="test", properties={})
        said.append("done")
    except NoSpace as e:
        said.append(str(e))
    finally:
        os.close(fd)


def at_once(site: Site, paths: list[Path]) -> tuple[list[str], int]:
    """What came of each, and how many bytes were free when it was least."""
    said: list[str] = []
    least = site.place.space().free
    Node(site).catalog  # noqa: B018 - makes the store
    threads = [threading.Thread(target=register, args=(Node(site).catalog, path, said)) for path in paths]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        least = min(least, site.place.space().free)
    return said, least


@pytest.mark.parametrize("again", [True, False], ids=["asks again", "control: asks once"])
def test_two_images_at_once_leave_the_reserve_alone(
    small: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    space = small.place.space()
    reserve = space.total * RESERVE // 100
    size = (space.free - reserve) * 3 // 4 // BLOCK_SIZE * BLOCK_SIZE
    both, asked = threading.Barrier(2), threading.local()
    require = Place.require_space

    def meet(self: Place, needed: int = 0) -> None:
        """Both have looked when the first one writes."""
        looked = getattr(asked, "yes", False)
        if again or not looked:
            require(self, needed)
        if needed and not looked:
            asked.yes = True
            both.wait(30)

    monkeypatch.setattr(Place, "require_space", meet)
    said, least = at_once(small, [image(tmp_path, name, size) for name in ("a", "b")])
    if not again:
        assert said == ["done", "done"]
        assert least < reserve - 16 * MIB
        return
    refused = [text for text in said if text != "done"]
    assert refused and all("are reserved for what running instances write" in text for text in refused)
    assert least > reserve - 8 * MIB
    catalog = Node(small).catalog
    assert len(list(catalog.listing())) == said.count("done") == len(list(catalog.volumes.bases()))
    assert [path.name for path in small.place.folder("bases").iterdir()] == list(catalog.volumes.bases())


def test_an_image_that_is_composed_stops_at_the_reserve(
    small: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Node(small).catalog
    register(catalog, image(tmp_path, "a", 4 * BLOCK_SIZE), [])
    map_id = names.load(catalog.store, "a").entry.map
    assert map_id is not None
    catalog.volumes.drop_base(map_id)
    whole, asked = small.place.space(), list[int]()

    def shrinking(self: Place) -> Space:
        asked.append(1)
        return Space(total=whole.total, free=Bytes(whole.free if len(asked) < 4 else whole.total // 2 + BLOCK_SIZE))

    with monkeypatch.context() as patched:
        patched.setattr(Place, "space", shrinking)
        with pytest.raises(NoSpace, match=r"free, 8 MiB are needed"):
            catalog.volumes.compose(open_map(catalog.store, map_id))
    assert list(small.place.folder("bases").iterdir()) == []
    catalog.volumes.compose(open_map(catalog.store, map_id))
    assert list(catalog.volumes.bases()) == [map_id]


def full_later(monkeypatch: pytest.MonkeyPatch, asked: list[int], *, after: int) -> None:
    def space(self: RadosVolumes) -> Space:
        asked.append(1)
        return Space(total=Bytes(100), free=Bytes(50 if len(asked) <= after else 4))

    monkeypatch.setattr(RadosVolumes, "space", space)
    monkeypatch.setattr("snf_extstorage.rados.reserve.EACH", 2)


@pytest.mark.parametrize("after", [1, 3])
def test_on_ceph_too(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """While the store gets the blocks, and while the base does."""
    storage = OnRados(request.getfixturevalue("ceph"))
    asked: list[int] = []
    full_later(monkeypatch, asked, after=after)
    path = tmp_path / "image"
    with open(path, "wb") as file:
        for number in range(5):
            file.seek(number * BLOCK_SIZE)
            file.write(b"x%d" % number)
    said: list[str] = []
    catalog = catalog_of(storage)
    register(catalog, path, said)
    assert "are reserved for running instances" in said[0]
    assert len(asked) == after + 1
    assert (list(catalog.listing()), list(catalog.volumes.bases())) == ([], [])
    assert list(catalog.volumes.check()) == []
    storage.close()
