"""The names of a cut of several disks, on each backend: what is asked for them, and what others find meanwhile."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import cast
from uuid import uuid4

import pytest

from synnefo_light.store import cuts, fsck, names, pins
from synnefo_light.store.backend import Backend, Kind
from synnefo_light.store.errors import Absent, Conflict, StoreFull
from synnefo_light.store.names import EngineSnapshot, Entry
from synnefo_light.store.store import CUTS_KEY, Store
from tests.real.store.contents import image


class Died(BaseException):
    pass


class Asked:
    """A backend that notes what of records and listings it is asked."""

    def __init__(self, store: Store) -> None:
        self._backend = store.backend
        self.what: list[tuple[str, Kind]] = []

    def __getattr__(self, name: str) -> object:
        found = getattr(self._backend, name)
        if name not in ("keys", "load", "replace", "delete"):
            return found

        def act(kind: Kind, *given: object, **named: object) -> object:
            self.what.append((name, kind))
            return found(kind, *given, **named)

        return act


def snapshot() -> Entry:
    held = EngineSnapshot(engine="directory", reference=f"s-{uuid4()}")
    return Entry(uuid=str(uuid4()), kind="snapshot", size=4096, created_ms=0, snapshot=held)


def golden() -> dict[str, Entry]:
    return {"golden": snapshot(), "golden-disk1": snapshot()}


def die_at(store: Store, step: str) -> None:
    """A cut, killed there."""

    def trace(name: str) -> None:
        if name == step:
            raise Died

    with contextlib.suppress(Died):
        cuts.publish(replace(store, trace=trace), golden())
        pytest.fail("it was not killed")


def asked_for(store: Store, name: str) -> list[tuple[str, Kind]]:
    asked = Asked(store)
    with contextlib.suppress(Absent):
        cuts.load(replace(store, backend=cast(Backend, asked)), name)
    return asked.what


def test_who_looks_for_a_name_that_nobody_has_reads_no_others_however_many_there_are(store: Store) -> None:
    cuts.publish(store, golden())
    few = asked_for(store, "new")
    for number in range(20):
        names.publish(store, f"other-{number}", snapshot(), under=None)
    assert asked_for(store, "new") == few
    assert len(few) <= 3
    assert not any(what == "keys" for what, _ in few)


def test_a_name_that_a_cut_is_certain_to_have_is_found_without_the_others(store: Store) -> None:
    die_at(store, "cut.1 certain")
    with pytest.raises(Absent):  # the control
        names.load(store, "golden-disk1")
    assert not any(what == "keys" for what, _ in asked_for(store, "golden-disk1"))
    assert names.load(store, "golden-disk1").entry.kind == "snapshot"
    assert cuts.begun(store) == {}


def test_a_record_of_cuts_that_is_damaged_loses_no_name_and_is_written_anew(store: Store) -> None:
    die_at(store, "cut.1 certain")
    version = store.backend.load(Kind.STORE, CUTS_KEY).version
    store.backend.replace(Kind.STORE, CUTS_KEY, b"nonsense", expected=version)
    assert ["CUTS", 4] in [[problem.place, int(problem.weight)] for problem in fsck.check(store).problems]
    assert ("keys", Kind.NAME) in asked_for(store, "golden-disk1")
    assert names.load(store, "golden-disk1").entry.kind == "snapshot"
    cuts.publish(store, {"second": snapshot(), "second-disk1": snapshot()})
    assert fsck.check(store).problems == []
    assert cuts.begun(store) == {}


def test_a_cut_that_died_before_its_first_name_is_in_nobodys_way_and_is_forgotten_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_at(store, "cut.0 begun")
    (dead,) = cuts.begun(store)
    with pytest.raises(Absent):
        cuts.load(store, "golden-disk1")
    cuts.publish(store, golden())
    assert list(cuts.begun(store)) == [dead]
    monkeypatch.setattr(cuts, "STALE_S", -1)
    cuts.publish(store, {"second": snapshot(), "second-disk1": snapshot()})
    assert cuts.begun(store) == {}


def test_who_was_thought_dead_before_his_first_name_says_again_that_he_lives(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "STALE_S", -1)
    seen = []

    def trace(step: str) -> None:
        if step == "cut.0 begun":
            cuts.publish(store, {"second": snapshot(), "second-disk1": snapshot()})
            seen.append(dict(cuts.begun(store)))
        if step == "cut.1 certain":
            raise Died

    with pytest.raises(Died):
        cuts.publish(replace(store, trace=trace), golden())
    assert seen == [{}]  # the control: it was forgotten
    assert not any(what == "keys" for what, _ in asked_for(store, "golden-disk1"))
    assert names.load(store, "golden-disk1").entry.kind == "snapshot"


def test_two_that_want_the_same_first_name_do_not_forget_each_others_cut(store: Store) -> None:
    die_at(store, "cut.1 certain")
    with pytest.raises(Conflict, match="the name golden is taken"):
        cuts.publish(store, golden())
    assert cuts.load(store, "golden-disk1").entry.kind == "snapshot"


def test_what_was_committed_before_its_cut_is_taken_back_stays_for_the_grace(store: Store) -> None:
    map_id = image(store, "content", {0: 1})
    die_at(store, "cut.2 published")
    uuid = names.load(store, "golden-disk1").entry.uuid
    with pins.hold(store, owner="test", names=["content"]) as held:
        names.seal(store, "golden-disk1", map_id, uuid=uuid, under=held)
    taken = snapshot()
    head = names.load(store, "golden")
    more = replace(head.entry, cut=dict(head.entry.cut) | {"golden-disk2": snapshot()})
    names.replace_entry(store, head, more)
    names.publish(store, "golden-disk2", taken, under=None)
    assert [n.name for n in cuts.readable(store) if n.name.startswith("golden")] == ["golden-disk2"]
    assert names.load(store, "golden-disk2").entry == taken
    assert pins.load(store, pins.lingering(map_id)).pin.alive(store.backend.now())


def test_a_certain_name_that_cannot_be_published_is_not_said_to_be_free(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreFull("the disk is full")

    die_at(store, "cut.1 certain")
    with monkeypatch.context() as patched:
        patched.setattr(names, "publish", full)
        with pytest.raises(StoreFull):
            cuts.load(store, "golden-disk1")
    assert cuts.load(store, "golden-disk1").entry.kind == "snapshot"
