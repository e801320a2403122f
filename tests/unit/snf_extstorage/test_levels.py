"""How full it is, told once for each crossing; and guests that stand still for want of space."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from snf_extstorage.commands import upkeep
from snf_extstorage.commands.recv import ASK_EACH, Watched
from snf_extstorage.commands.upkeep import YOUNG_S, is_left
from snf_extstorage.guests import parse_starved, starved
from snf_extstorage.levels import Level, has_reserve, plan_level, require_reserve, watch_level
from snf_extstorage.settings import Settings
from snf_extstorage.volume import NoSpace, Space, Volumes

from synnefo_light import events
from synnefo_light.errors import ProtocolError
from synnefo_light.events import StorageLevelChanged
from synnefo_light.store.backend import Version
from synnefo_light.store.identity import BLOCK_SIZE, MapId
from synnefo_light.store.names import EngineSnapshot, Entry, Named
from synnefo_light.units import Bytes
from tests.guest_sockets import Order, Qemu


def space(percent: int) -> Space:
    return Space(total=Bytes(1000), free=Bytes(10 * percent))


class Place:
    """The volumes, as far as space goes."""

    def __init__(self) -> None:
        self.free = 50

    def space(self) -> Space:
        return space(self.free)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("commit", [True, False])
def test_a_node_without_volumes_has_nothing_to_do_and_says_so_to_a_person_only(
    terminal: bool, commit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    said: list[str] = []
    assert upkeep.run(Settings(folder=tmp_path), argparse.Namespace(commit=commit), said.append) == 0
    assert said == ([f"there are no volumes in {tmp_path}, so there is nothing to do"] if terminal else [])


def test_work_that_makes_something_new_is_refused_below_the_reserve() -> None:
    require_reserve(space(5), Settings())
    require_reserve(Space(total=Bytes(0), free=Bytes(0)), Settings(engine="rados"))
    with pytest.raises(NoSpace, match=r"40 B of 1000 B free in /srv/snf-store, and 5 % are reserved"):
        require_reserve(space(4), Settings())
    with pytest.raises(NoSpace, match="free in pool volumes"):
        require_reserve(space(4), Settings(engine="rados"))


@pytest.mark.parametrize(
    ("percent", "before", "level"),
    [
        (50, "ok", "ok"),
        (20, "ok", "ok"),
        (19, "ok", "warning"),
        (9, "ok", "critical"),
        (20, "warning", "warning"),
        (21, "warning", "ok"),
        (10, "warning", "warning"),
        (9, "warning", "critical"),
        (10, "critical", "critical"),
        (11, "critical", "warning"),
        (20, "critical", "warning"),
        (21, "critical", "ok"),
        (0, "critical", "critical"),
    ],
)
def test_a_level_begins_at_its_mark_and_ends_a_little_above(percent: int, before: Level, level: Level) -> None:
    assert plan_level(space(percent), before, Settings()) == level


def test_where_nobody_counts_nothing_is_full() -> None:
    nothing = Space(total=Bytes(0), free=Bytes(0))
    assert plan_level(nothing, "ok", Settings()) == "ok"
    assert has_reserve(nothing, Settings())
    assert [has_reserve(space(n), Settings()) for n in (4, 5)] == [False, True]


def test_a_crossing_is_told_once_and_its_way_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(events, "SPOOL", spool)
    settings, place = Settings(run=tmp_path), Place()
    for free in (50, 19, 19, 15, 8, 8, 9, 12, 20, 21, 50):
        place.free = free
        watch_level(settings, cast("Volumes", place))
    told = [events.from_json(path.read_bytes().strip()).detail for path in events.pending(spool)]
    levels = [(one.before, one.level, one.free) for one in told if isinstance(one, StorageLevelChanged)]
    assert levels == [
        ("ok", "warning", 190),
        ("warning", "critical", 80),
        ("critical", "warning", 120),
        ("warning", "ok", 210),
    ]


def test_what_cannot_be_told_or_remembered_fails_nobodys_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SPOOL", tmp_path / "nothing")
    place = Place()
    place.free = 8
    (tmp_path / "file").touch()
    assert watch_level(Settings(run=tmp_path / "file" / "run"), cast("Volumes", place)) is None
    assert "critical" in str(watch_level(Settings(run=tmp_path), cast("Volumes", place)))
    assert watch_level(Settings(run=tmp_path), cast("Volumes", place)) is None


BLOCKS = [
    {"device": "disk-efa8d6e0-c062-4b14", "io-status": "nospace", "inserted": {"node-name": "#block123"}},
    {"device": "", "io-status": "nospace", "inserted": {"node-name": "disk-0fa8d6e0-c062-4b14"}},
    {"device": "disk-1fa8d6e0-c062-4b14", "io-status": "ok", "inserted": {"node-name": "#block124"}},
    {"device": "ide1-cd0", "io-status": "ok"},
    {"device": "floppy0"},
]


def test_the_drives_without_space_are_known_as_both_versions_of_ganeti_name_them() -> None:
    assert parse_starved(BLOCKS) == {"disk-efa8d6e0-c062-4b14", "disk-0fa8d6e0-c062-4b14"}
    wrongs: list[object] = [None, {}, [1]]
    for wrong in wrongs:
        with pytest.raises(ProtocolError):
            parse_starved(wrong)


def test_only_a_guest_that_qemu_stopped_for_an_error_is_starved(tmp_path: Path) -> None:
    qemu = Qemu(tmp_path)

    def answer(order: Order) -> object:
        return {"return": BLOCKS} if order["execute"] == "query-block" else qemu.behave(order)

    qemu.answer = answer
    try:
        assert starved("web1", sockets=tmp_path) == frozenset()
        qemu.status = "io-error"
        assert len(starved("web1", sockets=tmp_path)) == 2
        assert starved("web2", sockets=tmp_path) == frozenset()
    finally:
        qemu.close()


def named(*, age_s: float, engine: str = "directory", done: bool = False) -> Named:
    held = EngineSnapshot(engine="directory" if engine == "directory" else "rados", reference="r")
    entry = Entry(
        uuid="efa8d6e0-c062-4b14-b829-467e6499f266",
        kind="snapshot",
        size=1,
        created_ms=int(1e12 - age_s * 1000),
        snapshot=held,
        map=MapId("0" * 64) if done else None,
    )
    return Named(name="s", entry=entry, version=Version("1"))


def test_a_snapshot_is_left_when_it_is_old_enough_ours_and_no_map() -> None:
    def left(entry: Named) -> bool:
        return is_left(entry, "directory", now_s=1e9)

    assert left(named(age_s=YOUNG_S + 1))
    assert not left(named(age_s=YOUNG_S - 1))
    assert not left(named(age_s=YOUNG_S + 1, engine="rados"))
    assert not left(named(age_s=YOUNG_S + 1, done=True))


def test_a_stream_is_read_no_further_than_the_reserve_allows() -> None:
    """Whatever the sender says of its size: what came is counted."""
    read: list[int] = []

    class Endless:
        def read(self, size: int, /) -> bytes:
            read.append(size)
            return bytes(size)

    def require() -> None:
        if len(read) >= 2 * ASK_EACH // BLOCK_SIZE:
            raise NoSpace("full")

    watched = Watched(Endless(), require)
    with pytest.raises(NoSpace):
        while True:
            watched.read(BLOCK_SIZE)
    assert sum(read) == 2 * ASK_EACH
