"""kill -9 at every step of every operation: nothing is half made, nothing is lost, and asking again ends as asked."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from snf_extstorage.directory.kept import held
from snf_extstorage.directory.place import init_place
from snf_extstorage.volume import Exists, FromVolume

from synnefo_light.store import fsck, gc
from synnefo_light.store.identity import MapId
from tests import child
from tests.real.snf_extstorage.operations import (
    CASES,
    CONTENT,
    SIZE,
    Act,
    Node,
    V,
    W,
    adopt,
    clear,
    compose,
    content_of,
    drop,
    made,
    nothing,
    opened,
    opened_elsewhere,
    registered,
)
from tests.real.snf_extstorage.places import Site, write


def run_and_die(site: Site, act: Act, at: int) -> bool:
    """Whether a child that does it, and is killed at step `at`, was."""
    told = 0

    def die(step: str) -> None:
        nonlocal told
        if told == at:
            os.kill(os.getpid(), signal.SIGKILL)
        told += 1

    return child.was_killed(child.start(lambda: act(Node(site, trace=die))))


@pytest.mark.parametrize("name", CASES)
def test_killed_at_every_step(site: Site, name: str) -> None:
    case = CASES[name]
    died = 0
    while True:
        node = Node(site)
        case.before(node)
        if not run_and_die(site, case.act, died):
            break
        assert list(node.catalog.problems()) == []
        assert fsck.check(node.catalog.store).exit_code in (0, 2)
        if V in node.volumes.volumes():
            assert content_of(node, "volumes", V) == CONTENT
        case.act(node)
        case.after(node)
        assert list(node.catalog.problems()) == []
        gc.collect(node.catalog.store)
        case.after(node)
        died += 1
        clear(site)
    assert died >= case.steps
    case.after(Node(site))


def test_a_device_is_shut_from_the_moment_that_it_is_there(site: Site) -> None:
    """Killed between binding it and looking at who may write: nobody has attached it since."""
    made(Node(site))
    assert run_and_die(site, lambda n: n.volumes.attach(V), 1)
    (loop,) = site.node()._access._loops.named(V)
    assert not write(loop.path, b"X" * 4096)
    assert content_of(Node(site), "volumes", V) == CONTENT


def test_what_a_crash_leaves_is_swept_when_it_is_old(site: Site) -> None:
    assert run_and_die(site, lambda n: n.volumes.create(V, uuid=None, size=SIZE), 2)
    left = [p for p in Path(site.place.folder("volumes")).iterdir() if p.name.startswith(".tmp-")]
    assert len(left) == 1
    assert site.place.sweep() == []
    assert site.place.sweep(older_than_s=-1) == left
    assert list(site.place.folder("volumes").iterdir()) == []


def test_what_a_fence_left_that_died_is_swept(site: Site) -> None:
    opened_elsewhere(Node(site))
    assert run_and_die(site, lambda n: n.volumes.open(V, exclusive=True), 1)
    left = site.place.folder("volumes", V) / ".tmp-disk"
    assert left.exists()
    assert site.place.sweep() == []
    with held(site.place, V):  # a fence that takes its time
        assert site.place.sweep(older_than_s=-1) == []
    assert site.place.sweep(older_than_s=-1) == [left]
    assert content_of(Node(site), "volumes", V) == CONTENT


def test_who_works_for_hours_is_not_swept(site: Site) -> None:
    """Neither the folder that a base is composed in, nor anything of it, however old."""
    with site.place.making("bases", lambda: "0" * 64) as folder:
        (folder / "disk").write_bytes(CONTENT)
        os.utime(folder, (0, 0))
        assert site.place.sweep() == []
    assert content_of(Node(site), "bases", "0" * 64) == CONTENT
    # The control: the same, and its maker dead.
    assert run_and_die(site, lambda n: n.volumes.create(V, uuid=None, size=SIZE), 2)
    (left,) = (p for p in site.place.folder("volumes").iterdir() if p.name.startswith(".tmp-"))
    os.utime(left, (0, 0))
    assert site.place.sweep() == [left]


@pytest.mark.parametrize(
    ("before", "act", "synced"),
    [
        (nothing, lambda n: n.volumes.create(V, uuid="u", size=SIZE), "volumes"),
        (made, lambda n: n.volumes.clone(FromVolume(volume=V), W, uuid="w", size=SIZE), "volumes"),
        (made, adopt, "volumes"),
        (made, lambda n: n.volumes.remove(V), "volumes"),
        (nothing, drop, "snapshots"),
        (registered, compose, "bases"),
        (registered, lambda n: n.volumes.drop_base(MapId("0" * 64)), "bases"),
        (opened, lambda n: n.volumes.open(V, exclusive=True), f"volumes/{V}/record"),
        (opened, lambda n: n.volumes.close(V), f"volumes/{V}/record"),
        (opened, lambda n: n.volumes.detach(V), f"volumes/{V}/record"),
        (opened, lambda n: n.volumes.grow(V, SIZE), f"volumes/{V}/record"),
        (opened, lambda n: n.volumes.set_info(V, "originstname+a"), f"volumes/{V}/record"),
        (nothing, lambda n: init_place(n.site.place.root), ""),
    ],
    ids=lambda value: value.replace(V, "V") if isinstance(value, str) else "",
)
def test_who_asks_again_is_answered_when_it_is_durable(
    site: Site, monkeypatch: pytest.MonkeyPatch, before: Act, act: Act, synced: str
) -> None:
    """The first may have died, or its sync may have failed, after everybody could see what it did."""
    node = Node(site)
    before(node)
    act(node)
    seen: list[Path] = []
    for call in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, call, lambda fd: seen.append(Path(f"/proc/self/fd/{fd}").readlink()))
    act(node)
    assert site.place.folder(synced) in seen


def test_two_that_make_the_same_volume_make_one(site: Site) -> None:
    """The other comes between the last step and the rename."""

    def other(step: str) -> None:
        if step == "create publish":
            site.node("node2").create(V, uuid="other", size=SIZE)

    with pytest.raises(Exists, match="another one"):
        site.node(trace=other).create(V, uuid="u", size=SIZE)
    assert site.node().facts(V).uuid == "other"
    assert [p.name for p in site.place.folder("volumes").iterdir()] == [V]
