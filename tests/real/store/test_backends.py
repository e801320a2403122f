"""What every backend promises (backend.py), one by one."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from synnefo_light.errors import UserError
from synnefo_light.store import names, pins
from synnefo_light.store.backend import IMMUTABLE, LIMIT, Instant, Kind, Space
from synnefo_light.store.errors import Absent, Conflict
from synnefo_light.store.identity import BLOCK_SIZE
from synnefo_light.store.rados import RadosBackend
from synnefo_light.store.store import Store
from tests.real.store.contents import entry, image

KEY = hashlib.sha256(b"key").hexdigest()


@pytest.mark.parametrize("kind", IMMUTABLE)
def test_what_was_created_is_read_and_listed(store: Store, kind: Kind) -> None:
    store.backend.create(kind, KEY, b"content")
    assert store.backend.read(kind, KEY) == b"content"
    assert list(store.backend.keys(kind)) == [KEY]
    assert store.backend.stat(kind, KEY).size == 7


def test_the_largest_object_of_each_kind_goes_in_and_out(store: Store) -> None:
    for kind in IMMUTABLE:
        store.backend.create(kind, KEY, bytes(LIMIT[kind] - 1) + b"x")
        assert len(store.backend.read(kind, KEY)) == LIMIT[kind]


def test_an_object_larger_than_its_kind_allows_is_refused(store: Store) -> None:
    for kind in IMMUTABLE:
        with pytest.raises(ValueError, match=str(LIMIT[kind])):
            store.backend.create(kind, KEY, bytes(LIMIT[kind] + 1))
    with pytest.raises(ValueError, match=str(LIMIT[Kind.NAME])):
        store.backend.replace(Kind.NAME, "a", bytes(LIMIT[Kind.NAME] + 1), expected=None)


def test_creating_twice_is_creating_once(store: Store) -> None:
    for _ in range(2):
        store.backend.create(Kind.BLOCK, KEY, b"content")
    assert list(store.backend.keys(Kind.BLOCK)) == [KEY]


@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_not_there_is_absent(store: Store, kind: Kind) -> None:
    key = KEY if kind in IMMUTABLE else "nobody"
    with pytest.raises(Absent):
        store.backend.read(kind, key)
    if kind in IMMUTABLE:
        with pytest.raises(Absent):
            store.backend.stat(kind, key)
        with pytest.raises(Absent):
            store.backend.touch(kind, key)
        with pytest.raises(Absent):
            store.backend.set_aside(kind, key)
        assert store.backend.retire(kind, key, untouched_since=Instant(store.backend.now() + 1)) is False
    else:
        with pytest.raises(Absent):
            store.backend.load(kind, key)


@pytest.mark.parametrize(
    "key", ["", ".", "..", "a/b", "../a", "a\0", "-a", ".a", "_a", "a@b", "a:b", "a.", "ä", "a b", "a" * 201, "a\n"]
)
def test_no_name_leads_out_of_the_store(store: Store, key: str) -> None:
    for kind in (Kind.NAME, Kind.PIN):
        with pytest.raises(UserError, match="letters, digits"):
            store.backend.replace(kind, key, b"x", expected=None)
        with pytest.raises(UserError, match="letters, digits"):
            store.backend.load(kind, key)
    with pytest.raises(UserError, match="64 hex digits"):
        store.backend.read(Kind.BLOCK, key)


def test_a_batch_is_invisible_before_its_flush_and_durable_after(store: Store) -> None:
    keys = [hashlib.sha256(bytes([n])).hexdigest() for n in range(5)]
    with store.backend.batch() as batch:
        for key in keys:
            batch.create(Kind.PAGE, key, key.encode())
        batch.flush()
        assert {key: store.backend.read(Kind.PAGE, key) for key in keys} == {key: key.encode() for key in keys}
        batch.create(Kind.BLOCK, KEY, b"later")
    assert store.backend.read(Kind.BLOCK, KEY) == b"later"


def test_a_batch_left_by_an_exception_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyError), store.backend.batch() as batch:
        batch.create(Kind.BLOCK, KEY, b"content")
        raise KeyError
    assert list(store.backend.keys(Kind.BLOCK)) == []
    assert list(store.backend.strays()) == []


# --- age, and the collector's removal


def test_retire_removes_what_is_older_than_the_cutoff_alone(store: Store) -> None:
    backend = store.backend
    backend.create(Kind.BLOCK, KEY, b"content")
    touched = backend.stat(Kind.BLOCK, KEY).touched
    assert backend.retire(Kind.BLOCK, KEY, untouched_since=touched) is False
    assert backend.read(Kind.BLOCK, KEY) == b"content"
    assert backend.retire(Kind.BLOCK, KEY, untouched_since=Instant(touched + 2)) is True
    assert list(backend.keys(Kind.BLOCK)) == []


def test_what_was_retired_can_be_created_again(store: Store) -> None:
    backend = store.backend
    for _ in range(2):
        backend.create(Kind.BLOCK, KEY, b"content")
        assert backend.read(Kind.BLOCK, KEY) == b"content"
        assert backend.retire(Kind.BLOCK, KEY, untouched_since=Instant(backend.now() + 100)) is True


def test_set_aside_makes_room_for_the_same_object(store: Store) -> None:
    store.backend.create(Kind.BLOCK, KEY, b"bad")
    assert store.backend.set_aside(Kind.BLOCK, KEY)
    with pytest.raises(Absent):
        store.backend.read(Kind.BLOCK, KEY)
    store.backend.create(Kind.BLOCK, KEY, b"good")
    assert store.backend.read(Kind.BLOCK, KEY) == b"good"
    assert [stray.why for stray in store.backend.strays() if "set aside" in stray.why] != []


# --- records


def test_a_record_is_made_once_and_replaced_by_who_saw_it(store: Store) -> None:
    backend = store.backend
    first = backend.replace(Kind.NAME, "web", b"1", expected=None)
    with pytest.raises(Conflict):
        backend.replace(Kind.NAME, "web", b"2", expected=None)
    second = backend.replace(Kind.NAME, "web", b"22", expected=first)
    with pytest.raises(Conflict):
        backend.replace(Kind.NAME, "web", b"333", expected=first)
    with pytest.raises(Conflict):
        backend.delete(Kind.NAME, "web", expected=first)
    loaded = backend.load(Kind.NAME, "web")
    assert (loaded.data, loaded.version) == (b"22", second)
    backend.delete(Kind.NAME, "web", expected=second)
    with pytest.raises(Absent):
        backend.load(Kind.NAME, "web")


def test_a_record_shrinks_as_well_as_it_grows(store: Store) -> None:
    version = store.backend.replace(Kind.PIN, "p", b"long" * 100, expected=None)
    store.backend.replace(Kind.PIN, "p", b"s", expected=version)
    assert store.backend.load(Kind.PIN, "p").data == b"s"


def test_replacing_what_is_gone_is_refused(store: Store) -> None:
    version = store.backend.replace(Kind.NAME, "web", b"1", expected=None)
    store.backend.delete(Kind.NAME, "web", expected=version)
    with pytest.raises((Absent, Conflict)):
        store.backend.replace(Kind.NAME, "web", b"2", expected=version)
    with pytest.raises(Absent):
        store.backend.load(Kind.NAME, "web")


def test_names_with_every_allowed_character_are_listed_as_they_are(store: Store) -> None:
    wanted = {"a", "0", "A.b_c-d+e", "x" * 200, "debian-12", "DEBIAN-12"}
    for name in wanted:
        store.backend.replace(Kind.NAME, name, b"1", expected=None)
    assert set(store.backend.keys(Kind.NAME)) == wanted


def test_space_is_told(store: Store) -> None:
    space = store.backend.space()
    if isinstance(store.backend, RadosBackend):
        assert space == Space(total=0, free=0)  # the tests' Ceph has no manager daemon, which would count
    else:
        assert 0 < space.free <= space.total


def test_a_store_in_use_has_no_strays(store: Store) -> None:
    store.backend.create(Kind.BLOCK, KEY, b"content")
    store.backend.replace(Kind.NAME, "web", b"1", expected=None)
    assert list(store.backend.strays()) == []


def test_properties_that_are_too_long_for_a_record_are_refused_in_a_sentence(store: Store) -> None:
    map_id = image(store, "base", {0: 1})
    with pins.hold(store, owner="test", names=["base"]) as held:
        long = replace(entry(map_id, BLOCK_SIZE), properties={"A": "x" * 70_000})
        with pytest.raises(UserError, match=r"the record of the name long would have 70.* give it fewer or shorter"):
            names.publish(store, "long", long, under=held)
        with pytest.raises(Absent):
            names.load(store, "long")
        names.publish(store, "long", replace(long, properties={"A": "x" * 60_000}), under=held)
