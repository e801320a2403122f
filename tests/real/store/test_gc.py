"""The collector, and what runs at the same time, on every backend."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from synnefo_light.store import blocks, fsck, gc, maps, names, pins
from synnefo_light.store.backend import Instant, Kind
from synnefo_light.store.commit import Commit
from synnefo_light.store.errors import Absent, StoreFault
from synnefo_light.store.identity import BLOCK_SIZE, BlockId, MapId, block_id
from synnefo_light.store.store import Store
from tests.real.store.conftest import MakeStore
from tests.real.store.contents import block, entry, image


def later(store: Store, graces: float = 2.5) -> Instant:
    """A time at which everything that was touched so far is old and every pin that can expire has."""
    return Instant(store.backend.now() + graces * store.format.grace_s + 2 * pins.HOLD_TTL_S)


def everything(store: Store) -> dict[Kind, int]:
    return {kind: len(list(store.backend.keys(kind))) for kind in (Kind.ROOT, Kind.PAGE, Kind.BLOCK)}


def traced(store: Store, act: Callable[[str], None]) -> Store:
    return replace(store, trace=act)


def test_what_no_name_leads_to_goes_and_the_rest_stays(store: Store) -> None:
    image(store, "kept", {0: 1, 5000: 2})
    image(store, "gone", {0: 1, 5000: 3, 5001: 4})
    assert everything(store) == {Kind.ROOT: 2, Kind.PAGE: 3, Kind.BLOCK: 4}
    names.remove(store, "gone")
    done = gc.collect(store, now=later(store))
    assert everything(store) == {Kind.ROOT: 1, Kind.PAGE: 2, Kind.BLOCK: 2}
    assert (done.roots, done.pages, done.blocks, done.removed) == (1, 2, 2, 4)
    assert fsck.check(store).exit_code == 0


def test_nothing_goes_within_the_grace(store: Store) -> None:
    image(store, "gone", {0: 1})
    names.remove(store, "gone")
    done = gc.collect(store)
    assert done.removed == 0
    assert everything(store) == {Kind.ROOT: 1, Kind.PAGE: 1, Kind.BLOCK: 1}


def test_a_removed_name_keeps_its_old_blocks_for_the_grace(store: Store) -> None:
    """They are old themselves: it is the pin of the removal that holds them."""
    image(store, "gone", {0: 1})
    half = Instant(store.backend.now() + store.format.grace_s / 2)
    names.remove(store, "gone")
    done = gc.collect(store, now=half)
    assert (done.removed, done.roots) == (0, 1)


def test_a_dry_run_tells_the_same_and_removes_nothing(store: Store) -> None:
    image(store, "gone", {0: 1, 1: 2})
    names.remove(store, "gone")
    before = everything(store)
    told = gc.collect(store, now=later(store), dry_run=True)
    assert everything(store) == before
    assert gc.last_run(store).runs == 0
    done = gc.collect(store, now=later(store))
    assert (told.removed, told.removed_bytes) == (done.removed, done.removed_bytes)
    assert told.removed == 4


def test_runs_are_counted_and_dated(store: Store) -> None:
    for _ in range(3):
        gc.collect(store)
    run = gc.last_run(store)
    assert run.runs == 3
    assert 0 < run.began_ms <= run.ended_ms


def test_an_image_removed_under_a_clone_that_pins_it_stays(store: Store) -> None:
    map_id = image(store, "base", {0: 1})
    with pins.hold(store, owner="clone", names=["base"]) as held:
        pins.keep(store, "volume-1", owner="volume 1", map_id=map_id, under=held)
    names.remove(store, "base")
    gc.collect(store, now=later(store))
    assert maps.open_map(store, map_id).read(0).startswith(block(1))
    pins.release(store, "volume-1")
    gc.collect(store, now=later(store))
    assert everything(store)[Kind.BLOCK] == 0
    assert list(store.backend.keys(Kind.PIN)) == []


def test_blocks_shared_by_two_maps_outlive_one_of_them(store: Store) -> None:
    map_id = image(store, "a", {0: 1, 1: 2})
    image(store, "b", {1: 3}, parent="a", size=2 * BLOCK_SIZE)
    names.remove(store, "b")
    gc.collect(store, now=later(store))
    assert [maps.open_map(store, map_id).read(n)[:9] for n in (0, 1)] == [block(1)[:9], block(2)[:9]]


# --- unreadable


@pytest.mark.parametrize("kind", [Kind.ROOT, Kind.PAGE])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_one_root_or_page_that_cannot_be_read_and_nothing_is_swept(store: Store, kind: Kind, how: str) -> None:
    """Positive control: `test_what_no_name_leads_to_goes`; the same garbage is swept when all can be read."""
    image(store, "damaged", {0: 1})
    (key,) = store.backend.keys(kind)
    good = store.backend.read(kind, key)
    image(store, "gone", {0: 2})
    names.remove(store, "gone")
    store.backend.set_aside(kind, key)
    if how == "damaged":
        store.backend.create(kind, key, good[:-1] + bytes([good[-1] ^ 1]))
    before = everything(store)
    with pytest.raises(StoreFault, match=r"nothing was removed.*(damaged|missing|not there|other bytes)"):
        gc.collect(store, now=later(store))
    assert everything(store) == before
    if how == "damaged":
        store.backend.set_aside(kind, key)
    store.backend.create(kind, key, good)
    assert gc.collect(store, now=later(store)).removed == 3


@pytest.mark.parametrize("kind", [Kind.NAME, Kind.PIN])
def test_one_record_that_cannot_be_read_and_nothing_is_swept(store: Store, kind: Kind) -> None:
    image(store, "gone", {0: 2})
    names.remove(store, "gone")
    version = store.backend.replace(kind, "damaged", b"not a record", expected=None)
    with pytest.raises(StoreFault, match="nothing was removed"):
        gc.collect(store, now=later(store))
    store.backend.delete(kind, "damaged", expected=version)
    assert gc.collect(store, now=later(store)).removed == 3


def test_a_mark_that_took_too_long_sweeps_nothing(store: Store) -> None:
    image(store, "gone", {0: 2})
    names.remove(store, "gone")
    with pytest.raises(StoreFault, match="half the grace"):
        gc.collect(store, now=Instant(store.backend.now() - store.format.grace_s))


# --- at the same time


def test_a_put_of_a_block_that_is_about_to_be_swept_keeps_it(store: Store) -> None:
    """Between mark and sweep: the collector holds that nobody needs it, the writer is told that it is stored."""
    stored = blocks.put(store, block(1))
    assert stored is not None
    old = store.backend.stat(Kind.BLOCK, stored.hex()).touched
    cutoff = Instant(old + 0.001)
    store.backend.fresh_s = 0.0
    while store.backend.now() < cutoff:
        pass
    blocks.put(store, block(1))
    assert store.backend.retire(Kind.BLOCK, stored.hex(), untouched_since=cutoff) is False
    assert blocks.get(store, stored) == block(1)


@pytest.mark.parametrize(
    "step", ["nobody commits", "gc.1 begun", "gc.2a names read", "gc.2 marked", "gc.3 roots swept"]
)
def test_a_commit_during_the_run_is_whole_after_it(make_store: MakeStore, step: str) -> None:
    """It names blocks, a page and a root that are garbage, and past their grace, when the run begins."""
    store = make_store(1)
    image(store, "gone", {0: 1, 1: 2})
    names.remove(store, "gone")
    time.sleep(1.2)

    def act(reached: str) -> None:
        if reached == step:
            image(store, "new", {0: 1, 1: 2})

    done = gc.collect(traced(store, act))
    assert fsck.check(store).problems == []
    if step == "nobody commits":
        assert done.removed == 4
    else:
        assert maps.open_map(store, names.load(store, "new").entry.map or MapId("")).read(1).startswith(block(2))


@pytest.mark.parametrize("how", ["released", "deleted"])
def test_a_reference_that_moves_from_a_pin_to_a_name_between_reading_names_and_pins_is_seen(
    store: Store, how: str
) -> None:
    """Positive control: a pin that is deleted instead of released."""
    map_id = image(store, "a", {0: 1})
    with pins.hold(store, owner="x", names=["a"]) as held:
        pins.keep(store, "p", owner="x", map_id=map_id, under=held)
    names.remove(store, "a")
    for key in list(store.backend.keys(Kind.PIN)):
        if key != "p":
            store.backend.delete(Kind.PIN, key, expected=pins.load(store, key).version)

    def act(reached: str) -> None:
        if reached == "gc.2a names read":
            names.publish(store, "b", entry(map_id, BLOCK_SIZE), under=pins.load(store, "p"))
            if how == "released":
                pins.release(store, "p")
            else:
                store.backend.delete(Kind.PIN, "p", expected=pins.load(store, "p").version)

    reached, _ = gc.mark(traced(store, act), store.backend.now())
    assert (map_id in reached.roots) == (how == "released")


def test_a_reference_is_seen_wherever_the_mark_is_while_it_moves_back_and_forth(store: Store) -> None:
    """The worst order: the target is listed before it exists, the source after it is gone, its pin released before."""
    map_id = image(store, "a", {0: 1})
    image(store, "marker", {0: 2})
    original = names.load
    moved: list[str] = []

    def load_and_move(any_store: Store, name: str) -> names.Named:
        if not moved:
            moved.append(name)
            with pins.hold(store, owner="move", names=["a"]) as held:
                names.publish(store, "b", entry(map_id, BLOCK_SIZE), under=held)
            moved.append("published")
            version = original(store, "a").version
            pins.linger(store, map_id)
            store.backend.delete(Kind.NAME, "a", expected=version)
            version = original(store, "b").version
            pins.linger(store, map_id)
            store.backend.delete(Kind.NAME, "b", expected=version)
        return original(any_store, name)

    patch = pytest.MonkeyPatch()
    patch.setattr(names, "load", load_and_move)
    try:
        reached, _ = gc.mark(store, store.backend.now())
    finally:
        patch.undo()
    assert map_id in reached.roots


def test_an_upload_that_lasts_longer_than_the_grace_keeps_its_blocks(store: Store) -> None:
    image(store, "gone", {9: 9})
    names.remove(store, "gone")
    with Commit(store, size=2 * BLOCK_SIZE, owner="upload", ttl_s=100 * store.format.grace_s) as commit:
        commit.put(0, block(1))
        commit._flush()
        gc.collect(store, now=later(store, 20))
        commit.put(1, block(2))
        map_id = commit.finish()
        gc.collect(store, now=later(store, 30))
        names.publish(store, "upload", entry(map_id, 2 * BLOCK_SIZE), under=commit.held)
    assert fsck.check(store).problems == []
    assert maps.open_map(store, map_id).block(0) == block_id(block(1))


def test_an_upload_whose_pin_expired_is_collected(store: Store) -> None:
    """The control of the test before: it is the pin that keeps the blocks."""
    pins.acquire(store, owner="upload", since_now=True, ttl_s=10)
    blocks.put(store, block(1))
    gc.collect(store, now=later(store))
    assert everything(store)[Kind.BLOCK] == 0


def test_a_block_read_while_it_is_retired_is_whole_or_absent(store: Store) -> None:
    stored = blocks.put(store, block(1))
    assert stored is not None
    assert store.backend.retire(Kind.BLOCK, stored.hex(), untouched_since=later(store))
    with contextlib.suppress(Absent):
        assert blocks.get(store, BlockId(stored)) == block(1)


def test_very_many_hashes_go_to_a_file_and_come_back() -> None:
    import hashlib

    from synnefo_light.store.reach import Digests

    digests = Digests()
    wanted = [hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(3000)]
    for n in range(0, 3000, 100):
        digests.add(b"".join(wanted[n : n + 100]) + bytes(32))
        if n % 500 == 0:
            digests._spill()
    found = [digests.part(number) for number in range(256)]
    assert set().union(*found) == set(wanted)
    assert all(digest[0] == number for number, part in enumerate(found) for digest in part)
    assert digests.added == 3030
    digests.close()
