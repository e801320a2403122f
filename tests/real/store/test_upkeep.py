"""fsck, scrub, figures and streams, on every backend."""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import replace
from pathlib import Path

import pytest

from synnefo_light.errors import Error, ProtocolError, UserError
from synnefo_light.store import blocks, copying, fsck, maps, names, pins, scrub, stats, stream
from synnefo_light.store.backend import Kind
from synnefo_light.store.commit import Commit
from synnefo_light.store.identity import BLOCK_SIZE, MapId, block_id
from synnefo_light.store.names import Named
from synnefo_light.store.store import Store
from tests.real.store.contents import block, entry, image


def swap(store: Store, kind: Kind, key: str, data: bytes) -> None:
    store.backend.set_aside(kind, key)
    store.backend.create(kind, key, data)


# --- fsck


def test_a_whole_store_is_whole(store: Store) -> None:
    image(store, "a", {0: 1, 5000: 2, 9000: 1})
    image(store, "b", {1: 3}, parent="a", size=10_000 * BLOCK_SIZE)
    report = fsck.check(store)
    assert (report.exit_code, report.problems) == (0, [])
    assert (report.names, report.maps, report.pages, report.blocks) == (2, 2, 4, 3)


def test_a_missing_block_is_damage_and_every_name_that_needs_it_is_told(store: Store) -> None:
    image(store, "a", {0: 1, 4: 2})
    image(store, "b", {3: 2})
    image(store, "c", {3: 3})
    store.backend.set_aside(Kind.BLOCK, block_id(block(2)).hex())
    report = fsck.check(store)
    assert report.exit_code == 4
    damage = {p.place for p in report.problems if p.weight is fsck.Weight.DAMAGE}
    lost = block_id(block(2)).hex()
    assert damage == {f"name a, block 4: block {lost}", f"name b, block 3: block {lost}"}


@pytest.mark.parametrize("kind", [Kind.ROOT, Kind.PAGE, Kind.NAME, Kind.PIN])
def test_every_flipped_byte_of_a_root_page_name_or_pin_is_damage(store: Store, kind: Kind) -> None:
    map_id = image(store, "a", {0: 1})
    with pins.hold(store, owner="x", names=["a"]) as held:
        pins.keep(store, "p", owner="x", map_id=map_id, under=held)
    key = {Kind.NAME: "a", Kind.PIN: "p"}.get(kind) or next(iter(store.backend.keys(kind)))
    good = store.backend.read(kind, key)
    for offset in range(0, len(good), max(1, len(good) // 40)):
        bad = good[:offset] + bytes([good[offset] ^ 0x40]) + good[offset + 1 :]
        write(store, kind, key, bad)
        report = fsck.check(store)
        assert report.exit_code == 4, f"byte {offset}"
        assert any(key in f"{p.place} {p.why}" for p in report.problems)
    write(store, kind, key, good)
    assert [p for p in fsck.check(store).problems if p.weight is fsck.Weight.DAMAGE] == []


def write(store: Store, kind: Kind, key: str, data: bytes) -> None:
    if kind in (Kind.ROOT, Kind.PAGE):
        swap(store, kind, key, data)
    else:
        store.backend.replace(kind, key, data, expected=store.backend.load(kind, key).version)


def test_a_block_of_an_impossible_size_is_damage(store: Store) -> None:
    image(store, "a", {0: 1})
    key = block_id(block(1)).hex()
    swap(store, Kind.BLOCK, key, store.backend.read(Kind.BLOCK, key)[:-1])
    report = fsck.check(store)
    assert report.exit_code == 4
    assert "8191 bytes" in str(report.problems[0])


def test_other_maps_are_not_touched_by_one_that_is_damaged(store: Store) -> None:
    image(store, "a", {0: 1})
    good = image(store, "b", {0: 2})
    store.backend.set_aside(Kind.BLOCK, block_id(block(1)).hex())
    assert maps.open_map(store, good).read(0).startswith(block(2))
    assert not any("name b" in p.place for p in fsck.check(store).problems)


# --- scrub


def test_scrub_finds_one_flipped_bit_sets_it_aside_and_names_every_map(store: Store) -> None:
    image(store, "a", {0: 1, 7: 2})
    image(store, "b", {5: 2})
    assert scrub.scrub(store, bytes_per_s=1e12).damaged == []
    key = block_id(block(2)).hex()
    good = store.backend.read(Kind.BLOCK, key)
    swap(store, Kind.BLOCK, key, good[:3000] + bytes([good[3000] ^ 1]) + good[3001:])
    (damaged,) = scrub.scrub(store, bytes_per_s=1e12).damaged
    assert (damaged.kind, damaged.key) == (Kind.BLOCK, key)
    assert sorted(damaged.needed_by) == ["name a: block 7", "name b: block 5"]
    assert damaged.aside
    assert fsck.check(store).exit_code == 4
    image(store, "again", {0: 2})
    assert fsck.check(store).exit_code == 2
    assert scrub.scrub(store, bytes_per_s=1e12).damaged == []


@pytest.mark.parametrize("step", ["scrub.1 found damaged", "set aside.1 copied"])
def test_scrub_leaves_a_block_that_was_stored_anew_since_it_was_found_damaged(
    store: Store, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(store, "a", {0: 1, 7: 2})
    key = block_id(block(2)).hex()
    good = store.backend.read(Kind.BLOCK, key)
    swap(store, Kind.BLOCK, key, good[:3000] + bytes([good[3000] ^ 1]) + good[3001:])
    mended: list[str] = []

    def mend(at: str) -> None:
        if at == step and not mended:
            mended.append(at)
            swap(store, Kind.BLOCK, key, good)

    monkeypatch.setattr(store.backend, "trace", mend)
    done = scrub.scrub(replace(store, trace=mend), bytes_per_s=1e12)
    if mended:  # the directory takes one step to set aside
        assert done.damaged == []
        assert store.backend.read(Kind.BLOCK, key) == good
    else:
        assert (step, [one.key for one in done.damaged]) == ("set aside.1 copied", [key])


@pytest.mark.parametrize("kind", [Kind.ROOT, Kind.PAGE])
def test_scrub_finds_damaged_pages_and_roots(store: Store, kind: Kind) -> None:
    image(store, "a", {0: 1})
    (key,) = store.backend.keys(kind)
    swap(store, kind, key, store.backend.read(kind, key)[:-1] + b"\xff")
    (damaged,) = scrub.scrub(store, bytes_per_s=1e12).damaged
    assert (damaged.kind, damaged.key) == (kind, key)
    assert damaged.needed_by[0].startswith("name a")


def test_scrub_keeps_to_its_rate(store: Store) -> None:
    image(store, "a", {n: n + 1 for n in range(20)})
    slept: list[float] = []
    done = scrub.scrub(store, bytes_per_s=done_rate(store), sleep=slept.append)
    assert done.bytes > 20 * 5000
    assert max(slept) > 5


def done_rate(store: Store) -> float:
    return scrub.scrub(store, bytes_per_s=1e12).bytes / 10


# --- figures


def test_figures_of_two_maps_that_share(store: Store) -> None:
    image(store, "a", {0: 1, 1: 2}, size=4 * BLOCK_SIZE)
    image(store, "b", {0: 1, 2: 1, 3: 3}, size=4 * BLOCK_SIZE)
    image(store, "gone", {0: 9})
    names.remove(store, "gone")
    blocks.put(store, block(10, 4000))
    figures = stats.measure(store)
    assert (figures.names, figures.maps, figures.blocks) == (2, 2, 3)
    assert figures.logical == 8 * BLOCK_SIZE
    assert (figures.mapped, figures.stored, figures.pinned, figures.garbage) == (5 * 8192, 3 * 8192, 8192, 4096)
    assert figures.work == 0  # what made the images has ended
    assert figures.shared == 2 * 8192
    assert figures.ratio == pytest.approx(5 / 3)


def test_an_empty_store_has_figures(store: Store) -> None:
    assert stats.measure(store) == stats.Figures(
        names=0, maps=0, blocks=0, logical=0, mapped=0, stored=0, pinned=0, garbage=0, work=0
    )
    assert stats.measure(store).ratio == 1.0


# --- streams


def sent(store: Store, map_id: MapId, parent: MapId | None = None) -> bytes:
    out = io.BytesIO()
    written = stream.send(store, map_id, out.write, parent=parent)
    assert written == len(out.getvalue())
    return out.getvalue()


def received(store: Store, raw: bytes, name: str, parent: str = "") -> Named:
    return stream.receive(store, io.BytesIO(raw), name, entry, parent=parent)


def test_a_stream_makes_the_same_map_elsewhere(store: Store) -> None:
    """Sent, forgotten and collected, received: the same id, so the same content."""
    map_id = image(store, "a", {0: 1, 1: 2, 5: 1, 5000: 3}, size=5001 * BLOCK_SIZE - 7)
    raw = sent(store, map_id)
    assert len(raw) < 4 * 5200
    for key in list(store.backend.keys(Kind.BLOCK)):
        store.backend.set_aside(Kind.BLOCK, key)
    assert received(store, raw, "b").entry.map == map_id
    assert maps.open_map(store, map_id).read(5).startswith(block(1))


def test_an_incremental_stream_has_what_changed(store: Store) -> None:
    numbers = {n: n % 50 + 1 for n in range(0, 6000, 10)}
    old = image(store, "old", numbers, size=6000 * BLOCK_SIZE)
    new = image(store, "new", {10: 0, 11: 99, 20: 1}, parent="old", size=6500 * BLOCK_SIZE)
    raw = sent(store, new, old)
    assert len(raw) < 2 * 5200
    assert received(store, raw, "copy", parent="old").entry.map == new
    with pytest.raises(UserError, match="builds on map"):
        received(store, raw, "wrong", parent="new")
    with pytest.raises(UserError, match="say which name"):
        received(store, raw, "wrong")
    with pytest.raises(UserError, match="builds on nothing"):
        received(store, sent(store, new), "wrong", parent="old")
    with pytest.raises(UserError, match="send it whole"):
        sent(store, old, new)


def test_a_stream_torn_at_any_byte_leaves_nothing_named(store: Store) -> None:
    raw = sent(store, image(store, "a", {0: 1, 1: 2}))
    ends = [*range(0, 140), *random.Random(1).sample(range(140, len(raw)), 30), len(raw) - 1]
    for end in ends:
        with pytest.raises(ProtocolError, match="broken off"):
            received(store, raw[:end], "b")
    assert [named.name for named in names.listing(store)] == ["a"]


def test_a_stream_with_any_flipped_byte_is_refused(store: Store) -> None:
    map_id = image(store, "a", {0: 1, 1: 2, 2: 1, 3: 0}, size=4 * BLOCK_SIZE)
    raw = sent(store, map_id)
    offsets = [*range(0, 150), *random.Random(2).sample(range(150, len(raw)), 40), *range(len(raw) - 80, len(raw))]
    for offset in offsets:
        bad = raw[:offset] + bytes([raw[offset] ^ 0x10]) + raw[offset + 1 :]
        if 6 <= offset < 8:
            continue  # reserved, and covered by the checksum at the end alone
        with pytest.raises(Error):
            received(store, bad, "b")
    assert [named.name for named in names.listing(store)] == ["a"]


def test_a_block_cannot_be_had_by_naming_it(store: Store) -> None:
    """The oracle: somebody else's block is in the store; a stream names it without bringing it.

    Positive control: the same stream with the block in it is received.
    """
    image(store, "secret", {0: 42})
    wanted = image(store, "mine", {0: 42})
    names.remove(store, "mine")
    honest = sent(store, wanted)
    header = honest[:88]
    body = header + b"S" + (0).to_bytes(8, "big") + block_id(block(42))
    forged = body + b"E" + hashlib.sha256(body + b"E").digest()
    with pytest.raises(ProtocolError, match="did not come with it"):
        received(store, forged, "stolen")
    assert received(store, honest, "owned").entry.map == wanted


# --- files


def test_a_sparse_file_goes_in_and_comes_out(store: Store, tmp_path: Path) -> None:
    size = 40 * BLOCK_SIZE + 4097
    source = tmp_path / "source"
    with open(source, "wb") as file:
        file.truncate(size)
        for n in (0, 7, 8, 40):
            file.seek(n * BLOCK_SIZE + 100)
            file.write(block(n + 1, 3000))
    with open(source, "rb") as file:
        assert list(copying.data_blocks(file.fileno(), size).blocks()) == [0, 7, 8, 40]
        with Commit(store, size=size, owner="file") as commit:
            copying.take_file(commit, file.fileno(), size)
            map_id = commit.finish()
            names.publish(store, "file", entry(map_id, size), under=commit.held)
    for whole, most in ((True, 5 * BLOCK_SIZE), (False, 5 * 8192)):
        target, left = tmp_path / f"target-{whole}", list[int]()
        with open(target, "wb") as file:
            copying.write_file(maps.open_map(store, map_id), file.fileno(), whole_blocks=whole, require=left.append)
        assert target.read_bytes() == source.read_bytes()
        assert target.stat().st_blocks * 512 < most
        assert left == [n * BLOCK_SIZE + 4097 for n in (3, 2, 1, 0)]


def test_a_byte_stream_goes_in_and_a_short_one_is_refused(store: Store) -> None:
    content = block(1, BLOCK_SIZE + 1000) + bytes(BLOCK_SIZE)
    with Commit(store, size=len(content), owner="upload") as commit:
        copying.take_stream(commit, io.BytesIO(content), len(content))
        map_id = commit.finish()
        opened = maps.open_map(store, map_id)
        assert b"".join(opened.read(n) for n in range(3)) == content
    with (
        pytest.raises(UserError, match="were announced"),
        Commit(store, size=len(content) + 1, owner="upload") as commit,
    ):
        copying.take_stream(commit, io.BytesIO(content), len(content) + 1)
