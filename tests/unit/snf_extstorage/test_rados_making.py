"""Two that make the same thing, and who has it open: what the engine `rados` does about it, in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.images import Client, Images
from snf_extstorage.rados.kept import Beat, Kept, base_image
from snf_extstorage.rados.record import VolumeRecord
from snf_extstorage.rados.upkeep import check, sweep
from snf_extstorage.volume import Exists, InUse, SnapshotName, no_trace

from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.store.identity import MapId
from tests.unit.snf_extstorage.pool_in_memory import EntriesInMemory, PoolInMemory

KEY = MapId("ab" * 32)
IMAGE = base_image(KEY)
V = VolumeName("a.ext.disk0")
HERE, ELSEWHERE = "10.0.0.1:0/7", "10.0.0.2:0/7"
WANTED = VolumeRecord(state="ready", uuid="u", size=1, origin="zeros", map=None)


class Killed(BaseException):
    """Nothing is undone after it."""


@dataclass
class Site:
    pool: PoolInMemory
    entries: EntriesInMemory

    def kept(self) -> Kept:
        return Kept(cast("Images", self.pool), trace=no_trace)

    def node(self, name: str) -> RadosVolumes:
        images = cast("Images", self.pool)
        return RadosVolumes(images, node=name, patience_s=0, spare=lambda client: client.address == HERE)

    def make(self, *, meanwhile: Callable[[], None] = lambda: None, fault: Exception | None = None) -> None:
        def fill(name: str, beat: Beat) -> None:
            self.pool.create(name)
            meanwhile()
            if fault is not None:
                raise fault

        self.kept().make_base(KEY, 1, fill)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    entries = EntriesInMemory()
    monkeypatch.setattr("snf_extstorage.rados.kept.Objects", lambda *_, **__: entries)
    monkeypatch.setattr("snf_extstorage.rados.kept.time.sleep", lambda _: None)
    return Site(pool=PoolInMemory(), entries=entries)


def test_who_failed_throws_away_his_own_image_alone(site: Site) -> None:
    with pytest.raises(UserError, match="the file changed"):
        site.make(meanwhile=site.make, fault=UserError("the file changed"))
    assert site.kept().has_base(KEY)
    assert site.pool.there == {IMAGE: "id2"}
    assert list(check(site.kept())) == []


def test_who_failed_alone_leaves_neither_image_nor_record(site: Site) -> None:
    with pytest.raises(UserError, match="the file changed"):
        site.make(fault=UserError("the file changed"))
    assert (site.pool.there, site.entries.lines) == ({}, {})


def test_a_volume_that_another_made_meanwhile_stays(site: Site) -> None:
    def fill(beat: Beat) -> None:
        site.pool.create(V)
        site.kept().make_volume(V, WANTED, lambda beat: site.pool.create(V))
        raise UserError("it failed")

    with pytest.raises(UserError, match="it failed"):
        site.kept().make_volume(V, WANTED, fill)
    assert site.kept().volume(V).state == "ready"
    assert site.pool.there == {V: "id2"}


def test_a_new_volume_is_begun_without_asking_for_its_record(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def read_entry(name: str, key: str) -> str:
        asked.append(key)
        return ""

    monkeypatch.setattr(site.entries, "read_entry", read_entry)
    monkeypatch.setattr(site.entries, "swap_entry", lambda *_, **__: True)
    site.kept().make_volume(V, WANTED, lambda beat: site.pool.create(V), looked=lambda: False)
    assert asked == []


def test_an_image_that_is_not_ours_stays_and_gets_no_record(site: Site) -> None:
    site.pool.create(V)
    with pytest.raises(Exists, match="an image of that name that is not ours"):
        site.kept().make_volume(V, WANTED, lambda beat: None)
    assert (site.pool.there, site.entries.lines) == ({V: "id1"}, {})


def test_of_two_that_make_one_volume_the_second_takes_over_and_the_first_is_told(site: Site) -> None:
    def fill(beat: Beat) -> None:
        site.kept().make_volume(V, WANTED, lambda beat: site.pool.create(V), looked=lambda: False)

    with pytest.raises(InUse, match="made or removed by another process"):
        site.kept().make_volume(V, WANTED, fill, looked=lambda: False)
    assert site.kept().volume(V).state == "ready"
    assert site.pool.there == {V: "id1"}


def test_a_base_without_its_image_is_none_and_is_made_anew(site: Site) -> None:
    site.make()
    site.pool.remove(IMAGE)
    assert not site.node("node1").has_base(KEY)
    site.make()
    assert site.node("node1").has_base(KEY)
    assert site.pool.there == {IMAGE: "id2"}


def test_a_base_that_somebody_composes_is_not_taken_from_him(site: Site) -> None:
    def second() -> None:
        site.pool.using[IMAGE] = [ELSEWHERE]
        with pytest.raises(InUse, match=r"10\.0\.0\.2:0/7 composes it already"):
            site.make()
        site.pool.using.clear()

    site.make(meanwhile=second)
    assert site.pool.there == {IMAGE: "id1"}


def test_a_base_that_is_ready_while_it_is_waited_for_is_taken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(_: float) -> None:
        site.pool.using.clear()
        making = site.kept().bases.get(KEY)
        assert making is not None
        assert site.kept().bases.swap(KEY, making, type(making)(state="ready", size=1))

    def second() -> None:
        site.pool.using[IMAGE] = [ELSEWHERE]
        monkeypatch.setattr("snf_extstorage.rados.kept.time.monotonic", lambda: 0.0)
        monkeypatch.setattr("snf_extstorage.rados.kept.time.sleep", publish)
        site.make()

    with pytest.raises(InUse, match="made or removed by another"):
        site.make(meanwhile=second)
    assert site.pool.there == {IMAGE: "id1"}


def test_an_image_that_comes_late_from_who_was_taken_for_dead_is_mended(site: Site) -> None:
    """He had written his record and not made the image yet; then his image is in the way of who took over."""

    def take_over(name: str, beat: Beat) -> None:
        def in_the_way(name: str, beat: Beat) -> None:
            site.pool.create(name)
            site.pool.create(name)

        with pytest.raises(Exists):
            site.kept().make_base(KEY, 1, in_the_way)

    with pytest.raises(InUse, match="made or removed by another"):
        site.kept().make_base(KEY, 1, take_over)
    assert not site.kept().has_base(KEY)
    site.make()
    assert site.kept().has_base(KEY)


def test_an_image_that_others_made_since_the_look_is_theirs_whoever_dies(site: Site) -> None:
    """Between the look and the record a clone looks at its origin and the pool's space."""
    site.pool.create(V)

    def die(step: str) -> None:
        if step == "create image":
            raise Killed

    kept = Kept(cast("Images", site.pool), trace=die)
    with pytest.raises(Exists, match="an image of that name that is not ours"):
        kept.make_volume(V, WANTED, lambda beat: site.pool.create(V), looked=lambda: False)
    sweep(site.kept(), older_than_s=-5)
    assert (site.pool.there, site.entries.lines) == ({V: "id1"}, {})


def test_the_image_of_a_volume_that_was_half_removed_is_not_taken_for_others(site: Site) -> None:
    site.pool.create(V)
    removing = dataclasses.replace(WANTED, state="removing")
    assert site.kept().volumes.swap(V, None, removing)
    site.kept().make_volume(V, WANTED, lambda beat: site.pool.create(V), looked=lambda: False)
    assert site.kept().volume(V).state == "ready"
    assert site.pool.there == {V: "id2"}


def test_who_meets_an_image_of_others_when_his_record_is_another_s_already_leaves_both(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(WANTED, state="making", attempt="other")

    def look_for(pool: PoolInMemory, name: str) -> Callable[[], bool]:
        def answer() -> bool:
            volumes = site.kept().volumes
            return volumes.swap(V, volumes.get(V), other)

        return answer

    monkeypatch.setattr(PoolInMemory, "look_for", look_for)
    with pytest.raises(InUse, match="being made by another process"):
        site.kept().make_volume(V, WANTED, lambda beat: site.pool.create(V), looked=lambda: False)
    assert site.kept().volumes.get(V) == other
    assert site.pool.there == {}


def test_a_write_of_a_claim_that_fails_leaves_the_next_claim_as_it_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[EntriesInMemory] = []

    def objects(*_: object, **__: object) -> EntriesInMemory:
        made.append(EntriesInMemory())
        return made[-1]

    monkeypatch.setattr("snf_extstorage.rados.kept.Objects", objects)
    node, before = site.node("node1"), len(made)
    for _ in range(2):
        with node.claim(SnapshotName("s"), wait_s=0):
            pass
    assert len(made) == before + 2


def open_volume(site: Site) -> RadosVolumes:
    node = site.node("node1")
    site.kept().make_volume(V, WANTED, lambda beat: site.pool.create(V))
    node.open(V, exclusive=True)
    return node


def test_detach_refuses_while_a_process_of_this_node_has_it_open_and_who_writes_stays_written_down(site: Site) -> None:
    node = open_volume(site)
    site.pool.using[V] = [HERE]
    with pytest.raises(InUse, match=rf"to be detached, but {HERE} on this node has it open"):
        node.detach(V)
    assert site.kept().volume(V).holders == ("node1",)
    site.pool.using[V] = [ELSEWHERE]  # where it was migrated to
    node.detach(V)
    assert site.kept().volume(V).holders == ()


def test_detach_waits_until_ceph_forgets_who_was_killed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    open_volume(site)
    site.pool.using[V] = [HERE]
    slept: list[float] = []

    def forget(seconds: float) -> None:
        slept.append(seconds)
        site.pool.using.clear()

    monkeypatch.setattr("snf_extstorage.rados.kept.time.sleep", forget)
    patient = RadosVolumes(cast("Images", site.pool), node="node1", patience_s=35, spare=is_here)
    patient.detach(V)
    assert slept == [1]
    assert site.kept().volume(V).holders == ()


def is_here(client: Client) -> bool:
    return client.address == HERE


def test_what_was_made_after_the_images_were_listed_is_not_told_as_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_volume(site)
    site.make()
    monkeypatch.setattr(PoolInMemory, "names", lambda _: [])
    assert list(check(site.kept())) == []
    site.pool.there.clear()
    assert len(list(check(site.kept()))) == 2


def test_of_images_called_gone_those_alone_are_ours_that_are_called_by_their_own_id(site: Site) -> None:
    theirs = {"gone.fishing-server-root": "id7", "gone.id7": "id8", "gone.": ""}
    site.pool.there = {**theirs, "gone.id9": "id9"}
    (told,) = check(site.kept())
    assert told.startswith("image gone.id9 was to be removed")
    assert sweep(site.kept(), older_than_s=0) == ["image gone.id9, which nothing of ours needed any more,"]
    assert site.pool.there == theirs
    assert list(check(site.kept())) == []
