"""Adopting and giving back on Ceph, killed at each step; the pool is a dict here, a real one has its own tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from snf_extstorage.rados import kept
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.volume import Exists, InUse, NotFound

from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import Bytes

V, W, X = VolumeName("golden"), VolumeName("a.ext.disk0"), VolumeName("b.ext.disk0")
ONE, TWO = "efa8d6e0-c062-4b14-b829-467e6499f266", "11111111-c062-4b14-b829-467e6499f266"
SIZE = Bytes(1 << 20)


class Died(Exception):
    pass


class Pool:
    """Entries of objects, and images; in the place of `Objects` and `Images`."""

    place = "rbd"
    pool = "rbd"
    namespace = ""
    cluster = SimpleNamespace(access=SimpleNamespace(user="ganeti"))

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], str] = {}
        self.there = {V: "the bytes of golden"}
        self.using: list[Any] = []

    def read_entry(self, name: str, key: str) -> str:
        return self.lines.get((name, key), "")

    def swap_entry(self, name: str, key: str, new: str, *, value: str) -> bool:
        if self.read_entry(name, key) != value:
            return False
        self.lines[name, key] = new
        return True

    def remove_entry(self, name: str, key: str, *, value: str) -> bool:
        return self.read_entry(name, key) == value and bool(self.lines.pop((name, key), ""))

    def entries(self, name: str) -> Iterator[list[tuple[str, str]]]:
        yield [(key, line) for (table, key), line in self.lines.items() if table == name]

    def is_there(self, name: VolumeName) -> bool:
        return name in self.there

    def clients(self, name: VolumeName, *, holding: bool) -> list[Any]:
        assert not holding
        return self.using

    @contextlib.contextmanager
    def opened(self, name: VolumeName, *, read_only: bool = True) -> Iterator[Any]:
        if name not in self.there:
            raise NotFound(name)
        yield SimpleNamespace(size=lambda: SIZE, id=lambda: self.there[name])

    def user_snapshots(self, image: object) -> dict[str, int]:
        return {}

    def rename(self, name: VolumeName, new: VolumeName) -> None:
        if name not in self.there:
            raise NotFound(name)
        if new in self.there:
            raise Exists(new)
        self.there[new] = self.there.pop(name)

    def remove(self, name: VolumeName) -> bool:
        del self.there[name]
        return True

    def empty_trash(self, *, prefix: str) -> int:
        return 0


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    found = Pool()
    monkeypatch.setattr(kept, "Objects", lambda cluster, pool, namespace: found)
    return found


def node(pool: Pool, at: int = -1) -> RadosVolumes:
    """One that dies at step `at`."""
    told = 0

    def trace(step: str) -> None:
        nonlocal told
        if told == at:
            raise Died(step)
        told += 1

    images: Any = pool
    return RadosVolumes(images, node="node1", patience_s=0, cluster="one.example.org", trace=trace)


def adopt(volumes: RadosVolumes, name: VolumeName = W, uuid: str = ONE) -> None:
    volumes.adopt(V, name, uuid=uuid, size=SIZE)


def is_back(pool: Pool) -> bool:
    return pool.there == {V: "the bytes of golden"}


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("at", range(5))
def test_an_adoption_that_died_and_is_undone_loses_nothing(pool: Pool, at: int, ours: bool) -> None:
    if ours:  # what was given back has a record
        adopt(node(pool))
        node(pool).remove(W)
        assert list(node(pool).volumes()) == [V]
    with contextlib.suppress(Died):
        adopt(node(pool, at))
    node(pool).remove(W)
    assert is_back(pool)
    adopt(node(pool), X, TWO)
    assert pool.there == {X: "the bytes of golden"}
    assert list(node(pool).volumes()) == [X]


@pytest.mark.parametrize("at", range(5))
def test_giving_back_that_died_is_finished_by_the_next_removal(pool: Pool, at: int) -> None:
    adopt(node(pool))
    node(pool).open(W, exclusive=True)
    with contextlib.suppress(Died):
        node(pool, at).remove(W)
    node(pool).remove(W)
    assert is_back(pool)
    (record,) = dict(node(pool)._kept.volumes.items()).items()
    assert (record[0], record[1].uuid, record[1].cluster, record[1].state) == (V, None, "", "ready")
    adopt(node(pool), X, TWO)
    assert pool.there == {X: "the bytes of golden"}


def test_what_was_used_is_removed(pool: Pool) -> None:
    adopt(node(pool))
    for _ in range(2):
        node(pool).open(W, exclusive=True)
    node(pool).remove(W)
    assert (pool.there, pool.lines) == ({}, {})


def test_another_image_of_the_old_name_is_not_touched(pool: Pool) -> None:
    adopt(node(pool))
    pool.there[V] = "another"
    with pytest.raises(Exists, match="is to be golden again, but there is another of that name"):
        node(pool).remove(W)
    assert pool.there == {W: "the bytes of golden", V: "another"}
    assert list(node(pool).volumes()) == [W]


def test_what_was_used_is_released_once_nobody_has_it_open_and_adopted_by_another(pool: Pool) -> None:
    adopt(node(pool))
    for _ in range(2):
        node(pool).open(W, exclusive=True)
    node(pool).close(W)
    with pytest.raises(UserError, match=f"Ganeti made it for its disk {ONE}"):
        node(pool).adopt(W, X, uuid=TWO, size=SIZE)
    pool.using = [SimpleNamespace(address="10.0.0.9:0/1")]
    with pytest.raises(InUse, match=rf"volume {W} is to be released, but 10\.0\.0\.9:0/1 has it open"):
        node(pool).release(W)
    with pytest.raises(InUse, match=rf"volume {W} is to be removed, but 10\.0\.0\.9:0/1 has it open"):
        node(pool).remove(W)
    pool.using = []
    images: Any = pool
    RadosVolumes(images, node="node2", patience_s=0).open(W, exclusive=True)
    with pytest.raises(InUse, match=f"volume {W} is to be released, but node2 has it open"):
        node(pool).release(W)
    RadosVolumes(images, node="node2", patience_s=0).close(W)
    for _ in range(2):
        node(pool).release(W)
        record = node(pool)._kept.volume(W)
        assert (record.uuid, record.cluster, record.info, record.formerly) == (None, "", "", "")
    node(pool).adopt(W, X, uuid=TWO, size=SIZE)
    assert pool.there == {X: "the bytes of golden"}


def opened(other: RadosVolumes) -> None:
    other.open(W, exclusive=True)


def renamed(other: RadosVolumes) -> None:
    other.set_cluster(W, "two.example.org")


def made_anew(other: RadosVolumes) -> None:
    other.remove(W)
    adopt(other, uuid=TWO)


@pytest.mark.parametrize(("meanwhile", "uuid"), [(opened, ONE), (renamed, ONE), (made_anew, TWO)])
def test_what_another_does_while_it_is_released_is_not_undone(
    pool: Pool, meanwhile: Callable[[RadosVolumes], None], uuid: str
) -> None:
    images: Any = pool

    def other(step: str) -> None:
        if step == "release record":
            meanwhile(RadosVolumes(images, node="node2", patience_s=0))

    adopt(node(pool))
    with pytest.raises(InUse, match="another process opened, changed or removed it at the same time"):
        RadosVolumes(images, node="node1", patience_s=0, trace=other).release(W)
    assert node(pool)._kept.volume(W).uuid == uuid


def test_what_is_to_be_adopted_and_is_open_is_told_as_that(pool: Pool) -> None:
    pool.using = [SimpleNamespace(address="10.0.0.9:0/1")]
    with pytest.raises(InUse, match=f"volume {V} is to be adopted, but"):
        adopt(node(pool))


def test_a_volumes_cluster_can_be_written_down_anew(pool: Pool) -> None:
    adopt(node(pool))
    assert node(pool)._kept.volume(W).cluster == "one.example.org"
    node(pool).set_cluster(W, "two.example.org")
    assert (node(pool)._kept.volume(W).cluster, node(pool)._kept.volume(W).uuid) == ("two.example.org", ONE)
