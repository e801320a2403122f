"""One name or record is damaged: what has nothing to do with it goes on, and fsck tells."""

from __future__ import annotations

import logging
import shutil

import pytest
from snf_extstorage.catalog import Cut
from snf_extstorage.volume import Damaged, FromBase, FromVolume, NotFound, VolumeFacts

from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.store import fsck, names
from synnefo_light.store.backend import Kind
from synnefo_light.store.errors import Corrupt
from tests.real.snf_extstorage.operations import SIZE, Node, V, W, made, register
from tests.real.snf_extstorage.places import Site
from tests.real.snf_extstorage.test_images import snf_store

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"


def tear(node: Node, name: str) -> None:
    backend = node.catalog.store.backend
    loaded = backend.load(Kind.NAME, name)
    backend.replace(Kind.NAME, name, loaded.data[:-5], expected=loaded.version)


def test_a_torn_name_stops_the_collector_alone_and_can_be_removed(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    node = Node(site)
    made(node)
    register(node)
    image = names.load(node.catalog.store, "image").entry.map
    assert image is not None
    node.volumes.clone(FromBase(map=image), W, uuid=UUID, size=SIZE)
    node.catalog.snapshot([Cut(volume=V, name="torn")])
    tear(node, "torn")
    node.catalog.snapshot([Cut(volume=W, name="golden")])
    assert node.catalog.uncommitted() == ["golden"]
    assert "name=torn is left out" in caplog.text
    assert snf_store(site, "image", "show", f"map:{image}").returncode == 0
    assert snf_store(site, "upkeep", "--commit").returncode == 0
    assert len(snf_store(site, "image", "list").stdout.splitlines()) == 3
    with pytest.raises(UserError, match="which cannot be read"):
        node.catalog.require_free("torn")
    with pytest.raises(Corrupt, match="torn"):
        node.catalog.collect(dry_run=True)
    assert list(node.catalog.problems()) == []
    assert any("torn" in str(problem) for problem in fsck.check(node.catalog.store).problems)
    assert snf_store(site, "image", "rm", "torn").returncode == 0
    assert node.catalog.collect(dry_run=True) == []
    node.catalog.require_free("torn")


def test_a_damaged_volume_is_in_nobodys_way_but_the_collectors(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    node = Node(site)
    made(node)
    register(node)
    node.volumes.clone(FromVolume(volume=V), W, uuid=UUID, size=SIZE)
    (site.place.folder("volumes", V) / "record").write_bytes(b"torn")
    (site.place.root / "volumes" / "stray").mkdir()
    assert node.volumes.find(UUID) == W
    done = snf_store(site, "volume", "list")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert snf_store(site, "stats").returncode == 0
    for name in (V, "stray"):
        assert f"volume={name} is left out" in caplog.text
        assert any(f"volumes/{name}" in text for text in node.catalog.problems()), name
    with pytest.raises((Damaged, NotFound)):
        node.catalog.collect(dry_run=True)
    (site.place.root / "volumes" / "stray" / "disk").touch()
    with pytest.raises(Damaged, match="stray is no whole volume"):
        node.volumes.remove(VolumeName("stray"))


def test_a_volume_without_its_lock_is_told_and_removed(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    node = Node(site)
    made(node)
    (site.place.folder("volumes", V) / "lock").unlink()
    assert any(f"volumes/{V} has no lock" in text for text in node.catalog.problems())
    node.volumes.set_info(V, "a note")
    assert list(node.catalog.problems()) == []
    (site.place.folder("volumes", V) / "lock").unlink()
    node.volumes.remove(V)
    assert list(node.volumes.volumes()) == []


def test_a_volume_that_goes_while_the_collector_looks_does_not_stop_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(site)
    made(node)
    node.volumes.clone(FromVolume(volume=V), W, uuid=UUID, size=SIZE)
    catalog = node.catalog
    facts = catalog.volumes.facts

    def remove_first(name: VolumeName) -> VolumeFacts:
        if name == W:
            shutil.rmtree(site.place.folder("volumes", W))
        return facts(name)

    monkeypatch.setattr(catalog.volumes, "facts", remove_first)
    assert catalog.collect(dry_run=True) == []
    assert list(catalog.volumes.volumes()) == [V]
