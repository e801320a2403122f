"""Commit, maps, names and pins, on every backend."""

from __future__ import annotations

import hashlib
import random
import time

import pytest

from synnefo_light.errors import UserError
from synnefo_light.store import blocks, maps, names, pins
from synnefo_light.store.backend import Kind
from synnefo_light.store.commit import Commit
from synnefo_light.store.errors import Absent, Conflict, Corrupt
from synnefo_light.store.identity import BLOCK_SIZE, HOLE_ID, MAP_SIZE_LIMIT, MapId, block_id, merkle
from synnefo_light.store.names import EngineSnapshot, Entry
from synnefo_light.store.store import Store
from tests.real.store.contents import UUID_A, block, entry, image


def test_a_block_comes_out_as_it_went_in_without_its_trailing_nuls(store: Store) -> None:
    for length in (1, 4095, 4096, 4097, BLOCK_SIZE - 1, BLOCK_SIZE):
        data = block(7, length)
        stored = blocks.put(store, data.ljust(BLOCK_SIZE, b"\0"))
        assert stored == block_id(data)
        assert blocks.get(store, stored) == data


def test_a_hole_is_never_stored(store: Store) -> None:
    assert blocks.put(store, bytes(BLOCK_SIZE)) is None
    assert blocks.put(store, b"") is None
    assert list(store.backend.keys(Kind.BLOCK)) == []


def test_a_block_whose_bytes_changed_is_not_given_out(store: Store) -> None:
    """Positive control: the same block before."""
    stored = blocks.put(store, block(1))
    assert stored is not None
    assert blocks.get(store, stored) == block(1)
    store.backend.set_aside(Kind.BLOCK, stored.hex())
    store.backend.create(Kind.BLOCK, stored.hex(), block(2, 8192))
    with pytest.raises(Corrupt, match=stored.hex()):
        blocks.get(store, stored)


def test_a_map_reads_as_what_was_committed(store: Store) -> None:
    size = 3 * BLOCK_SIZE + 12345
    map_id = image(store, "a", {0: 1, 2: 2, 3: 3}, size=size)
    opened = maps.open_map(store, map_id)
    assert opened.size == size
    assert [opened.block(n) for n in range(4)] == [block_id(block(1)), None, block_id(block(2)), block_id(block(3))]
    assert list(opened.blocks()) == [(n, opened.block(n)) for n in (0, 2, 3)]
    content = b"".join(opened.read(n) for n in range(4))
    assert len(content) == size
    assert content[2 * BLOCK_SIZE :].startswith(block(2))
    assert content[BLOCK_SIZE : 2 * BLOCK_SIZE] == bytes(BLOCK_SIZE)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 4096, 4097, 8192, 9000])
def test_the_map_hash_is_that_of_the_list_of_blocks(store: Store, count: int) -> None:
    numbers = {n: n % 3 for n in random.Random(count).sample(range(count), min(count, 12))}
    if count:
        numbers[count - 1] = 1
    map_id = image(store, "a", numbers, size=count * BLOCK_SIZE)
    flat = [block_id(block(numbers.get(n, 0))) for n in range(count)]
    assert maps.open_map(store, map_id).root.merkle == merkle(flat)


def test_equal_content_is_one_map_whoever_commits_it_and_how(store: Store) -> None:
    whole = image(store, "a", {0: 1, 1: 2, 5000: 3})
    image(store, "b", {0: 1, 1: 9}, size=10 * BLOCK_SIZE)
    grown = image(store, "c", {1: 2, 5000: 3}, parent="b")
    assert whole == grown
    assert len(list(store.backend.keys(Kind.BLOCK))) == 4


def test_a_commit_on_a_parent_writes_only_what_changed(store: Store) -> None:
    image(store, "parent", {n * 1000: n % 5 + 1 for n in range(30)}, size=30_000 * BLOCK_SIZE)
    before = {kind: set(store.backend.keys(kind)) for kind in (Kind.PAGE, Kind.BLOCK)}
    image(store, "child", {4096: 77}, size=30_000 * BLOCK_SIZE, parent="parent")
    after = {kind: set(store.backend.keys(kind)) for kind in (Kind.PAGE, Kind.BLOCK)}
    assert [len(after[kind] - before[kind]) for kind in (Kind.PAGE, Kind.BLOCK)] == [1, 1]


@pytest.mark.parametrize("size", [1, 2, 4095, 4096, 4097, 5000, 20000])
def test_growing_adds_holes_and_no_page(store: Store, size: int) -> None:
    image(store, "parent", {0: 1, min(size, 4000) - 1: 2}, size=size * BLOCK_SIZE - 100)
    pages = set(store.backend.keys(Kind.PAGE))
    grown = image(store, "grown", {}, size=(size + 9000) * BLOCK_SIZE, parent="parent")
    assert set(store.backend.keys(Kind.PAGE)) == pages
    opened = maps.open_map(store, grown)
    flat = [opened.block(n) or HOLE_ID for n in range(size + 9000)]
    assert opened.root.merkle == merkle(flat)
    assert maps.open_map(store, image(store, "same", dict(opened_numbers(size)), size=opened.size)).id == grown


def opened_numbers(size: int) -> list[tuple[int, int]]:
    return [(0, 1), (min(size, 4000) - 1, 2)]


def test_the_largest_map_and_one_byte_more(store: Store) -> None:
    map_id = image(store, "big", {0: 1, (MAP_SIZE_LIMIT // BLOCK_SIZE) - 1: 2}, size=MAP_SIZE_LIMIT)
    assert maps.open_map(store, map_id).block(MAP_SIZE_LIMIT // BLOCK_SIZE - 1) == block_id(block(2))
    with pytest.raises(UserError, match=str(MAP_SIZE_LIMIT)):
        Commit(store, size=MAP_SIZE_LIMIT + 1, owner="x")


def test_a_commit_smaller_than_its_parent_is_refused(store: Store) -> None:
    image(store, "parent", {1: 1})
    with pytest.raises(UserError, match="less than"), Commit(store, size=5, parent="parent", owner="x"):
        pass


def test_blocks_out_of_order_or_range_are_refused(store: Store) -> None:
    with Commit(store, size=3 * BLOCK_SIZE - 5, owner="x") as commit:
        commit.put(1, b"x")
        for index in (0, 1, 3, -1):
            with pytest.raises(ValueError, match="is not between"):
                commit.put(index, b"x")
        with pytest.raises(ValueError, match="4194299"):
            commit.put(2, bytes(BLOCK_SIZE))


def test_a_block_can_be_named_only_when_it_is_there(store: Store) -> None:
    stored = blocks.put(store, block(1))
    assert stored is not None
    with Commit(store, size=2 * BLOCK_SIZE, owner="x") as commit:
        commit.name(0, stored)
        with pytest.raises(Absent):
            commit.name(1, block_id(b"nobody stored this"))


def test_a_range_of_a_file_is_committed_and_reads_back(store: Store, tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    volume = tmp_path / "volume"
    content = bytearray(3 * BLOCK_SIZE + 4096 * 3 + 17)
    content[5:10] = b"hello"
    content[2 * BLOCK_SIZE : 2 * BLOCK_SIZE + 6000] = block(4, 6000)
    content[-3:] = b"end"
    volume.write_bytes(content)
    with open(volume, "rb") as file, Commit(store, size=len(content), owner="volume") as commit:
        taken = [commit.take(n, file.fileno(), n * BLOCK_SIZE) for n in range(4)]
        map_id = commit.finish()
        names.publish(store, "v", entry(map_id, len(content)), under=commit.held)
    assert taken[1] is None
    opened = maps.open_map(store, map_id)
    assert b"".join(opened.read(n) for n in range(4)) == bytes(content)
    assert taken[0] == block_id(bytes(content[:BLOCK_SIZE]))


def test_diff_tells_what_changed_and_reads_no_equal_page(store: Store) -> None:
    old = image(store, "old", {0: 1, 5000: 2, 9000: 3, 20000: 4}, size=30_000 * BLOCK_SIZE)
    new = image(store, "new", {5000: 0, 5001: 5, 20000: 6}, size=31_000 * BLOCK_SIZE, parent="old")
    a, b = maps.open_map(store, old), maps.open_map(store, new)
    expected = [(5000, None), (5001, block_id(block(5))), (20000, block_id(block(6)))]
    assert list(maps.diff(a, b)) == expected
    assert list(maps.diff(None, a)) == list(a.blocks())
    assert list(maps.diff(b, b)) == []
    unchanged = b.root.pages[0].page
    assert unchanged == a.root.pages[0].page
    store.backend.set_aside(Kind.PAGE, unchanged.hex())
    assert list(maps.diff(maps.open_map(store, old), maps.open_map(store, new))) == expected


# --- names


def test_a_name_is_taken_once_and_free_again_when_removed(store: Store) -> None:
    """Archipelago tested the parent's deletion mark and left names of deleted volumes unusable."""
    image(store, "a", {0: 1})
    with pytest.raises(Conflict, match="taken"):
        image(store, "a", {0: 2})
    assert names.remove(store, "a").name == "a"
    with pytest.raises(Absent, match="no image, snapshot or object a"):
        names.load(store, "a")
    image(store, "a", {0: 3})
    assert names.load(store, "a").entry.generation == 1


def test_a_snapshot_can_be_used_before_it_is_committed_and_is_sealed_once(store: Store) -> None:
    snapshot = EngineSnapshot(engine="directory", reference="web1.0.snap")
    waiting = Entry(uuid=UUID_A, kind="snapshot", size=BLOCK_SIZE, created_ms=5, snapshot=snapshot)
    names.publish(store, "nightly", waiting, under=None)
    assert names.load(store, "nightly").entry == waiting
    with pytest.raises(Absent, match="not committed"), pins.hold(store, owner="x", names=["nightly"]):
        pass
    for _ in range(2):
        with Commit(store, size=BLOCK_SIZE, owner="nightly") as commit:
            commit.put(0, block(1))
            map_id = commit.finish()
            sealed = names.seal(store, "nightly", map_id, uuid=UUID_A, under=commit.held)
        assert (sealed.entry.map, sealed.entry.snapshot, sealed.entry.generation) == (map_id, None, 3)


def test_a_name_given_anew_is_not_sealed_with_the_older_content(store: Store) -> None:
    image(store, "nightly", {0: 9})
    with Commit(store, size=BLOCK_SIZE, owner="nightly") as commit:
        map_id = commit.finish()
        with pytest.raises(Conflict, match="another snapshot"):
            names.seal(store, "nightly", map_id, uuid="22222222-2222-4222-8222-222222222222", under=commit.held)


def test_a_listing_shows_every_name(store: Store) -> None:
    for n in range(20):
        image(store, f"n{n}", {0: n})
    assert {named.name for named in names.listing(store)} == {f"n{n}" for n in range(20)}


def test_a_name_whose_record_is_damaged_hides_no_other_and_can_be_removed_and_given_again(store: Store) -> None:
    for n in range(3):
        image(store, f"n{n}", {0: n})
    tear(store, "n1")
    assert {named.name for named in names.readable(store)} == {"n0", "n2"}
    with pytest.raises(Corrupt, match="name n1"):
        list(names.listing(store))
    with pytest.raises(Conflict, match="was mended"):
        names.remove_damaged(store, "n0")
    names.remove_damaged(store, "n1")
    with pytest.raises(Absent):
        names.remove_damaged(store, "n1")
    image(store, "n1", {0: 1})
    assert len(list(names.listing(store))) == 3


def tear(store: Store, name: str) -> None:
    loaded = store.backend.load(Kind.NAME, name)
    store.backend.replace(Kind.NAME, name, loaded.data[:-5], expected=loaded.version)


# --- pins


def test_a_pin_on_a_name_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(Absent), pins.hold(store, owner="x", names=["nobody"]):
        pass


def test_nothing_is_published_under_a_pin_that_has_expired(store: Store) -> None:
    with Commit(store, size=BLOCK_SIZE, owner="slow", ttl_s=-1) as commit:
        map_id = commit.finish()
        with pytest.raises(Conflict, match="expired"):
            names.publish(store, "late", entry(map_id, BLOCK_SIZE), under=commit.held)
    assert list(names.listing(store)) == []


def test_a_commit_renews_its_pin_while_blocks_come_and_ends_when_it_expired(store: Store) -> None:
    with Commit(store, size=100 * BLOCK_SIZE, owner="long") as commit:
        first = commit.held.pin.expires_ms or 0
        commit._renew_at = store.backend.now()
        time.sleep(0.01)
        for index in range(70):
            commit.put(index, block(index % 7 + 1))
        assert (pins.load(store, commit.held.key).pin.expires_ms or 0) > first
        names.publish(store, "long", entry(commit.finish(), 100 * BLOCK_SIZE), under=commit.held)
    with pytest.raises(Conflict, match="begin again"), Commit(store, size=BLOCK_SIZE, owner="stalled") as commit:
        commit._renew_at = store.backend.now()
        store.backend.delete(Kind.PIN, commit.held.key, expected=commit.held.version)
        time.sleep(0.01)
        commit.put(0, block(1))
        commit.finish()


def test_a_pin_that_expires_while_the_name_is_published_withdraws_it(store: Store) -> None:
    """The process stands still between its check and the publication."""
    with Commit(store, size=BLOCK_SIZE, owner="slow") as commit:
        map_id = commit.finish()

        def expire(step: str) -> None:
            if step == "publish.1 pinned":
                loaded = pins.load(store, commit.held.key)
                store.backend.delete(Kind.PIN, commit.held.key, expected=loaded.version)

        slow = Store(backend=store.backend, format=store.format, trace=expire)
        with pytest.raises(Conflict, match="expired"):
            names.publish(slow, "late", entry(map_id, BLOCK_SIZE), under=commit.held)
    assert list(names.listing(store)) == []


def expiring(store: Store, held: pins.Held) -> Store:
    """As seen by a process that stands still between its check and the publication, until its pin has expired."""

    def expire(step: str) -> None:
        if step == "publish.1 pinned":
            loaded = pins.load(store, held.key)
            store.backend.delete(Kind.PIN, held.key, expected=loaded.version)

    return Store(backend=store.backend, format=store.format, trace=expire)


def test_a_pin_that_expires_while_a_name_is_replaced_brings_back_what_it_was(store: Store) -> None:
    image(store, "a", {0: 9})
    before = names.load(store, "a")
    with Commit(store, size=BLOCK_SIZE, owner="slow") as commit:
        map_id = commit.finish()
        with pytest.raises(Conflict, match="expired"):
            names.publish(expiring(store, commit.held), "a", entry(map_id, BLOCK_SIZE), under=commit.held, over=before)
    assert names.load(store, "a").entry == before.entry


def test_a_pin_that_expires_while_a_snapshot_is_sealed_leaves_the_snapshot(store: Store) -> None:
    snapshot = EngineSnapshot(engine="rados", reference="web1.0.snap")
    waiting = Entry(uuid=UUID_A, kind="snapshot", size=BLOCK_SIZE, created_ms=5, snapshot=snapshot)
    names.publish(store, "nightly", waiting, under=None)
    with Commit(store, size=BLOCK_SIZE, owner="slow") as commit:
        map_id = commit.finish()
        with pytest.raises(Conflict, match="expired"):
            names.seal(expiring(store, commit.held), "nightly", map_id, uuid=UUID_A, under=commit.held)
    assert names.load(store, "nightly").entry == waiting
    with Commit(store, size=BLOCK_SIZE, owner="again") as commit:
        sealed = names.seal(store, "nightly", commit.finish(), uuid=UUID_A, under=commit.held)
    assert (sealed.entry.map, sealed.entry.snapshot) == (map_id, None)


def test_a_name_is_never_without_its_snapshot_before_its_map_is_certain(store: Store) -> None:
    """A snapshot that no name refers to is dropped by whoever collects, and could not be brought back."""
    snapshot = EngineSnapshot(engine="rados", reference="web1.0.snap")
    waiting = Entry(uuid=UUID_A, kind="snapshot", size=BLOCK_SIZE, created_ms=5, snapshot=snapshot)
    names.publish(store, "nightly", waiting, under=None)
    seen = []

    def look(step: str) -> None:
        seen.append((step, names.load(store, "nightly").entry.snapshot))

    with Commit(store, size=BLOCK_SIZE, owner="nightly") as commit:
        told = Store(backend=store.backend, format=store.format, trace=look)
        names.seal(told, "nightly", commit.finish(), uuid=UUID_A, under=commit.held)
    assert {one for step, one in seen if step != "seal.1 dropped"} == {snapshot}
    assert seen[-1] == ("seal.1 dropped", None)


def test_a_name_whose_old_map_may_be_gone_too_is_withdrawn(store: Store) -> None:
    """Whoever stood still for longer than the grace: the collector may have had both maps."""
    image(store, "a", {0: 9})
    before = names.load(store, "a")
    with Commit(store, size=BLOCK_SIZE, owner="slow") as commit:
        map_id = commit.finish()

        def expire(step: str) -> None:
            if step == "publish.1 pinned":
                for key in (commit.held.key, f"gone-{before.entry.map}"):
                    store.backend.delete(Kind.PIN, key, expected=pins.load(store, key).version)

        slow = Store(backend=store.backend, format=store.format, trace=expire)
        with pytest.raises(Conflict, match="expired"):
            names.publish(slow, "a", entry(map_id, BLOCK_SIZE), under=commit.held, over=before)
    assert list(names.listing(store)) == []


def test_a_kept_map_moves_to_another_and_can_be_a_parent(store: Store) -> None:
    first = image(store, "a", {0: 1, 1: 1})
    with pins.hold(store, owner="clone", names=["a"]) as held:
        kept = pins.keep(store, "volume-1", owner="volume 1", map_id=first, under=held)
    names.remove(store, "a")
    with Commit(store, size=2 * BLOCK_SIZE, parent=kept, owner="volume 1") as commit:
        assert commit.held.pin.maps == (first,)
    with Commit(store, size=2 * BLOCK_SIZE, parent=kept, owner="volume 1") as commit:
        commit.put(1, block(2))
        second = commit.finish()
        pins.keep(store, "volume-1", owner="volume 1", map_id=second, under=commit.held)
    assert maps.open_map(store, second).block(0) == block_id(block(1))
    assert pins.load(store, "volume-1").pin.maps == (second,)
    assert pins.load(store, f"gone-{first}").pin.maps == (first,)


def test_a_pin_that_is_gone_is_no_parent(store: Store) -> None:
    map_id = image(store, "a", {0: 1})
    with pins.hold(store, owner="x", names=["a"]) as held:
        kept = pins.keep(store, "p", owner="x", map_id=map_id, under=held)
    store.backend.delete(Kind.PIN, "p", expected=kept.version)
    with pytest.raises(Conflict, match="expired"), Commit(store, size=BLOCK_SIZE, parent=kept, owner="y"):
        pass


def test_renewing_lets_a_pin_live_longer_and_release_lets_it_end(store: Store) -> None:
    held = pins.acquire(store, owner="x", since_now=True, ttl_s=10)
    renewed = pins.renew(store, held, ttl_s=7200)
    assert renewed.pin.expires_ms is not None
    assert held.pin.expires_ms is not None
    assert renewed.pin.expires_ms - held.pin.expires_ms > 7_000_000
    pins.release(store, held.key)
    pins.release(store, held.key)
    pins.release(store, "hold-nobody")
    ended = pins.load(store, held.key).pin
    assert ended.expires_ms is not None
    assert 0 < ended.expires_ms - store.backend.now() * 1000 <= 3_600_000


def test_the_id_of_a_map_is_the_hash_of_its_root(store: Store) -> None:
    map_id = image(store, "a", {0: 1})
    assert hashlib.sha256(store.backend.read(Kind.ROOT, map_id)).hexdigest() == map_id
    with pytest.raises(Absent):
        maps.open_map(store, MapId("0" * 64))
