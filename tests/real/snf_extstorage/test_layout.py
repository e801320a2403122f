"""How bases lie on the disk, as filefrag(8) sees it: what a clone of one costs depends on it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.directory.contents import MOST_EXTENTS
from snf_extstorage.directory.place import Place
from snf_extstorage.volume import FromBase, NoSpace

from synnefo_light.store import fsck, names
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.formats import Format
from synnefo_light.store.identity import MapId
from synnefo_light.store.maps import open_map
from synnefo_light.store.store import open_store
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.operations import CONTENT, Node
from tests.real.snf_extstorage.places import Site, own_names

(V,) = own_names(1)
PAGE = 4096


@pytest.fixture
def catalog(site: Site) -> Catalog:
    path = site.place.root / "store"
    make_directory(path, Format(uuid=uuid4(), grace_s=0))
    return Catalog(open_store(Directory(path)), site.node(), engine="directory")


@pytest.fixture
def image(catalog: Catalog, tmp_path: Path) -> MapId:
    """96 MiB, of which a third in the middle is a hole; from another file system."""
    path = tmp_path / "image.raw"
    with open(path, "wb") as file:
        file.write(os.urandom(32 * MIB))
        file.seek(64 * MIB)
        file.write(os.urandom(32 * MIB))
    with open(path, "rb") as file:
        map_id = catalog.register("image", file.fileno(), Bytes(96 * MIB), origin="", properties={}).entry.map
    assert map_id is not None
    return map_id


def pieces(path: Path) -> int:
    """Lines of filefrag -v; its sum takes neighbours on the disk for one, also with a hole between them in the file."""
    answer = subprocess.run(["filefrag", "-v", path], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "extent" in answer
    return len(re.findall(r"^ *\d+: +\d+\.\.", answer, re.MULTILINE))


def used(place: Place) -> int:
    os.sync()
    found = os.statvfs(place.root)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def age(path: Path, *, start: int, count: int) -> None:
    """Every other page of a part is written anew."""
    fd = os.open(path, os.O_RDWR)
    for number in range(count):
        os.pwrite(fd, os.urandom(PAGE), start + 2 * number * PAGE)
    os.fsync(fd)
    os.close(fd)


def committed(catalog: Catalog, name: str) -> MapId:
    catalog.snapshot([Cut(volume=V, name=name)])
    map_id = catalog.commit(name)
    assert fsck.check(catalog.store).exit_code == 0
    assert list(catalog.problems()) == []
    return map_id


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", one, other], timeout=60, check=False).returncode == 0


def test_an_image_becomes_a_base_in_a_few_pieces_registered_or_composed(
    site: Site, catalog: Catalog, image: MapId, tmp_path: Path
) -> None:
    base = site.place.disk("bases", image)
    assert pieces(base) <= 8
    assert same(base, tmp_path / "image.raw")
    catalog.volumes.drop_base(image)
    catalog.volumes.compose(open_map(catalog.store, image))
    assert pieces(base) <= 8
    assert same(base, tmp_path / "image.raw")
    assert base.stat().st_blocks * 512 <= 65 * MIB


def test_a_volume_in_many_pieces_becomes_a_base_in_few_and_shares_what_it_did_not_change(
    site: Site, catalog: Catalog, image: MapId
) -> None:
    catalog.volumes.clone(FromBase(map=image), V, uuid=None, size=Bytes(96 * MIB))
    disk = site.place.disk("volumes", V)
    age(disk, start=0, count=400)
    os.truncate(disk, 40 * MIB)  # the last part becomes zeros
    os.truncate(disk, 96 * MIB)
    assert pieces(disk) > MOST_EXTENTS
    before = used(site.place)
    base = site.place.disk("bases", committed(catalog, "golden"))
    assert pieces(base) <= 16
    assert same(base, disk)
    assert used(site.place) - before < 6 * MIB
    # Its clones are compared with it, and share it.
    assert catalog.volumes.facts(V).origin == image
    (again,) = own_names(1)
    catalog.volumes.clone(FromBase(map=MapId(base.parent.name)), again, uuid=None, size=Bytes(96 * MIB))
    assert pieces(site.place.disk("volumes", again)) <= 16


def test_a_volume_without_an_origin_in_many_pieces_becomes_a_base_in_few(site: Site, catalog: Catalog) -> None:
    catalog.volumes.create(V, uuid=None, size=Bytes(17 * MIB))
    disk = site.place.disk("volumes", V)
    age(disk, start=9 * MIB, count=400)
    assert pieces(disk) > MOST_EXTENTS
    base = site.place.disk("bases", committed(catalog, "golden"))
    assert pieces(base) <= 4
    assert same(base, disk)


def test_a_volume_in_few_pieces_is_shared_and_costs_nothing(site: Site, catalog: Catalog, image: MapId) -> None:
    catalog.volumes.clone(FromBase(map=image), V, uuid=None, size=Bytes(96 * MIB))
    disk = site.place.disk("volumes", V)
    age(disk, start=0, count=40)
    before = used(site.place)
    base = site.place.disk("bases", committed(catalog, "golden"))
    assert same(base, disk)
    assert used(site.place) - before < MIB


def without_room(site: Site) -> Place:
    """As far above the reserve as one percent of the file system is, at most."""
    found = os.statvfs(site.place.root)
    return Place(site.place.root, reserve_percent=found.f_bavail * 100 // found.f_blocks)


def test_without_room_to_lay_it_out_a_base_stays_in_many_pieces(site: Site, catalog: Catalog) -> None:
    catalog.volumes.create(V, uuid=None, size=Bytes(128 * MIB))
    disk = site.place.disk("volumes", V)
    for start in range(0, 128 * MIB, 4 * MIB):
        age(disk, start=start, count=10)
    assert pieces(disk) > MOST_EXTENTS
    catalog.snapshot([Cut(volume=V, name="golden")])
    node = Site(place=without_room(site), hints=site.hints).node()
    base = site.place.disk("bases", Catalog(catalog.store, node, engine="directory").commit("golden"))
    assert pieces(base) > MOST_EXTENTS
    assert same(base, disk)


def test_what_an_image_will_take_is_asked_for_before_it_is_written(
    site: Site, catalog: Catalog, image: MapId, tmp_path: Path
) -> None:
    node = Site(place=without_room(site), hints=site.hints).node()
    node.drop_base(image)
    before = used(site.place)
    poor = Catalog(catalog.store, node, engine="directory")
    with pytest.raises(NoSpace, match="64 MiB are needed"):
        poor.prepare("image")
    with open(tmp_path / "image.raw", "rb") as file, pytest.raises(NoSpace, match="64 MiB are needed"):
        poor.register("other", file.fileno(), Bytes(96 * MIB), origin="", properties={})
    assert used(site.place) - before < MIB
    assert list(node.bases()) == []
    assert [n.name for n in names.listing(catalog.store)] == ["image"]


def test_a_base_and_its_map_are_the_same_though_the_file_was_written_meanwhile(site: Site) -> None:
    """A base is named by its map: what it had besides, every clone of that map would get."""
    source = site.place.root / "volumes" / ".tmp-written"
    source.write_bytes(CONTENT)
    os.truncate(source, 16 * MIB)
    with open(source, "r+b", buffering=0) as file:

        def write_meanwhile(step: str) -> None:
            if step == "base disk":
                os.pwrite(file.fileno(), CONTENT, 12 * MIB)

        catalog = Node(site, trace=write_meanwhile).catalog
        named = catalog.register("image", file.fileno(), Bytes(16 * MIB), origin="test", properties={})
    assert named.entry.map is not None
    found = open_map(catalog.store, named.entry.map)
    base = site.place.disk("bases", named.entry.map).read_bytes()
    assert base[12 * MIB :][: len(CONTENT)] == CONTENT
    assert b"".join(found.read(index) for index in range(4)) == base
    source.unlink()
