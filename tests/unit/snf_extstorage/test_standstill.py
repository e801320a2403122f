"""A guest that stands still for a cut: what it is told, and that it goes on whatever happens."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from snf_extstorage.commands import upkeep
from snf_extstorage.keeper import Keeper, keep
from snf_extstorage.monitor import NotRunning
from snf_extstorage.settings import Settings
from snf_extstorage.standstill import Standstill, Wish, let_go_forgotten

from synnefo_light.errors import EXIT_BUG, EnvironmentFault, PeerError
from synnefo_light.records import dump_json, parse_json
from tests.guest_sockets import Agent, Order, Qemu

STOP = Wish(instance="web1", stop=True, freeze=False)
FREEZE = Wish(instance="web1", stop=False, freeze=True)
BOTH = Wish(instance="web1", stop=True, freeze=True)


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    made = Qemu(tmp_path)
    yield made
    made.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.close()


@contextlib.contextmanager
def kept(folder: Path, *, limit_s: float = 10.0) -> Iterator[Keeper]:
    """A keeper in a thread: the process around it is tried with the real command."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def live() -> None:
        with theirs:
            keep(theirs, notes=folder / "notes", sockets=folder, limit_s=limit_s)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with ours:
            yield Keeper(ours, notes=folder / "notes", sockets=folder)
    finally:
        thread.join(20)
        assert not thread.is_alive()


def notes(folder: Path) -> list[str]:
    found = folder / "notes"
    return [path.name for path in found.iterdir()] if found.exists() else []


@pytest.mark.parametrize("fails", [False, True])
def test_a_stopped_guest_goes_on_after_the_cut_and_after_a_failure(qemu: Qemu, tmp_path: Path, fails: bool) -> None:
    with contextlib.suppress(RuntimeError), kept(tmp_path) as keeper, keeper.standing(STOP):
        assert (qemu.status, notes(tmp_path)) == ("paused", ["web1"])
        if fails:
            raise RuntimeError
    assert (qemu.status, notes(tmp_path)) == ("running", [])
    assert qemu.commands[:4] == ["qmp_capabilities", "query-status", "query-migrate", "stop"]
    assert qemu.commands[-1] == "cont"


def test_a_guest_whose_cut_takes_too_long_goes_on_and_the_cut_is_none(qemu: Qemu, tmp_path: Path) -> None:
    went_on = threading.Event()

    def answer(order: Order) -> object:
        answered = qemu.behave(order)
        if order["execute"] == "cont":
            went_on.set()
        return answered

    qemu.answer = answer
    with (
        pytest.raises(PeerError, match="took more than"),
        kept(tmp_path, limit_s=0.2) as keeper,
        keeper.standing(STOP),
    ):
        assert went_on.wait(10)
    assert qemu.status == "running"


def test_a_guest_that_somebody_paused_stays_paused_and_is_not_frozen(qemu: Qemu, agent: Agent, tmp_path: Path) -> None:
    qemu.status = "paused"
    with kept(tmp_path) as keeper, keeper.standing(BOTH):
        assert not keeper.stood.stopped
    assert qemu.commands == ["qmp_capabilities", "query-status", "query-migrate"]
    assert agent.commands == []


def test_a_guest_that_was_migrated_away_while_it_stood_still_does_not_go_on_here(qemu: Qemu, tmp_path: Path) -> None:
    with kept(tmp_path) as keeper, keeper.standing(STOP):
        qemu.status = "postmigrate"
    assert "cont" not in qemu.commands


@pytest.mark.parametrize(
    ("status", "migration"),
    [("running", {"status": "active"}), ("inmigrate", {}), ("postmigrate", {"status": "completed"})],
)
def test_a_guest_that_is_being_migrated_is_left_alone(
    qemu: Qemu, tmp_path: Path, status: str, migration: dict[str, object]
) -> None:
    qemu.status, qemu.migration = status, migration
    with kept(tmp_path) as keeper, pytest.raises(PeerError, match="migrated"), keeper.standing(STOP):
        pytest.fail("it stood still")
    assert "stop" not in qemu.commands


def test_who_does_not_run_here_is_told_apart(tmp_path: Path) -> None:
    with kept(tmp_path) as keeper, pytest.raises(NotRunning), keeper.standing(STOP):
        pytest.fail("it stood still")


def test_file_systems_are_frozen_before_the_processors_stop_and_thawed_after_they_go_on(
    qemu: Qemu, agent: Agent, tmp_path: Path
) -> None:
    seen: list[object] = []

    def note(player: Qemu | Agent) -> None:
        def answer(order: Order) -> object:
            seen.append(order["execute"])
            return player.behave(order)

        player.answer = answer

    note(qemu)
    note(agent)
    with kept(tmp_path) as keeper, keeper.standing(BOTH):
        seen.append("cut")
    acts = ["guest-fsfreeze-freeze", "stop", "cut", "cont", "guest-fsfreeze-thaw"]
    assert [one for one in seen if one in acts] == acts
    assert (keeper.stood.frozen, keeper.went.thawed, keeper.stood.unfrozen) == (3, 3, "")


def test_without_an_agent_the_cut_is_made_and_the_reason_told(
    qemu: Qemu, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_extstorage.standstill.PRESENCE_S", 0.2)
    agent.alive = False
    with kept(tmp_path) as keeper, keeper.standing(FREEZE):
        pass
    assert "did not answer within 0.2 s" in keeper.stood.unfrozen
    assert qemu.status == "running"


def test_an_agent_that_refuses_is_told_of_and_thawed_all_the_same(qemu: Qemu, agent: Agent, tmp_path: Path) -> None:
    refusal = {"error": {"class": "GenericError", "desc": "failed to freeze /x"}}
    agent.answer = lambda o: refusal if o["execute"] == "guest-fsfreeze-freeze" else agent.behave(o)
    with kept(tmp_path) as keeper, keeper.standing(FREEZE):
        pass
    assert "failed to freeze /x" in keeper.stood.unfrozen
    assert agent.commands[-1] == "guest-fsfreeze-thaw"


def test_an_agent_that_freezes_for_too_long_is_thawed_when_it_answers_again(
    qemu: Qemu, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_extstorage.agent.FREEZE_S", 0.3)
    agent.answer = lambda o: None if o["execute"] == "guest-fsfreeze-freeze" else agent.behave(o)
    agent.frozen = 3
    with kept(tmp_path) as keeper, keeper.standing(FREEZE):
        assert "did not answer" in keeper.stood.unfrozen
    assert agent.frozen == 0
    assert notes(tmp_path) == []


def test_what_two_killed_processes_left_goes_on_with_the_next_upkeep(qemu: Qemu, agent: Agent, tmp_path: Path) -> None:
    standstill = Standstill(BOTH, notes=tmp_path / "notes", sockets=tmp_path)
    standstill.begin()
    note = tmp_path / "notes" / "web1"
    with open(note) as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(let_go_forgotten(tmp_path / "notes", sockets=tmp_path)) == []  # somebody minds it
    standstill.end()
    qemu.status, agent.frozen = "paused", 3
    note.write_bytes(dump_json(BOTH))
    assert list(let_go_forgotten(tmp_path / "notes", sockets=tmp_path)) == ["web1"]
    assert (qemu.status, agent.frozen, notes(tmp_path)) == ("running", 0, [])


def test_what_cannot_be_let_go_is_tried_again_and_given_up_in_the_end(
    qemu: Qemu, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_extstorage.standstill.FREEZE_S", 0.2)
    agent.alive = False
    (tmp_path / "notes").mkdir()
    for wish in (FREEZE, Wish(instance="web0", stop=True, freeze=True)):  # web0 is gone
        (tmp_path / "notes" / wish.instance).write_bytes(dump_json(wish))
    assert list(let_go_forgotten(tmp_path / "notes", sockets=tmp_path)) == ["web0"]
    assert notes(tmp_path) == ["web1"]
    os.utime(tmp_path / "notes" / "web1", (0, 0))
    assert list(let_go_forgotten(tmp_path / "notes", sockets=tmp_path)) == []
    assert notes(tmp_path) == []


def test_a_keeper_that_was_killed_before_it_did_anything_leaves_a_paused_guest_paused(
    qemu: Qemu, tmp_path: Path
) -> None:
    qemu.status = "paused"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper = Keeper(ours, notes=tmp_path / "notes", sockets=tmp_path)

    def die() -> None:
        theirs.recv(4096)
        theirs.close()

    dying = threading.Thread(target=die)
    dying.start()
    with ours, pytest.raises(PeerError, match="was killed"), keeper.standing(STOP):
        pytest.fail("it stood still")
    dying.join(5)
    assert qemu.commands == []


def test_two_cuts_of_one_instance_do_not_let_go_each_other(qemu: Qemu, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with open(tmp_path / "notes" / "web1", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with kept(tmp_path) as keeper, pytest.raises(PeerError, match="another cut"), keeper.standing(STOP):
            pytest.fail("it stood still")
    assert "cont" not in qemu.commands


DEEP = b"[" * 200_000
#: Nothing of it is an answer: too deep for a stack, too deep to be printed, a key that stands twice after 60 KB.
HOSTILE = (
    DEEP,
    b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"error": {"desc": ' + b"[" * 60 + b"]" * 60 + b"}}",
    b"{" + b"".join(b'"%d":1,' % n for n in range(6000)) + b'"0":1}',
)


@pytest.mark.parametrize("said", HOSTILE, ids=["deep", "repr", "shown", "doubled"])
def test_an_agent_that_answers_with_anything_at_all_is_only_an_agent_that_does_not_answer(
    qemu: Qemu, agent: Agent, tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_extstorage.standstill.let_go.__kwdefaults__", {"sockets": tmp_path, "patience_s": 0.2})
    agent.raw = said
    with pytest.raises(PeerError, match="upkeep"), kept(tmp_path) as keeper, keeper.standing(BOTH):
        assert keeper.stood.unfrozen
    assert qemu.status == "running"
    (tmp_path / "notes" / "web0").write_bytes(dump_json(Wish(instance="web0", stop=True, freeze=False)))
    other = Qemu(tmp_path, "web2")
    other.status = "paused"
    (tmp_path / "notes" / "web2").write_bytes(dump_json(Wish(instance="web2", stop=True, freeze=False)))
    try:
        assert list(let_go_forgotten(tmp_path / "notes", sockets=tmp_path)) == ["web0", "web2"]
    finally:
        other.close()
    assert (other.status, notes(tmp_path)) == ("running", ["web1"])


def test_a_migrations_speed_is_no_whole_number_and_no_reason_to_give_up(qemu: Qemu, tmp_path: Path) -> None:
    qemu.migration = {"status": "completed", "ram": {"mbps": 268.44}}
    with kept(tmp_path) as keeper, keeper.standing(STOP):
        assert keeper.stood.stopped


def test_a_note_over_which_we_stumble_keeps_no_other_guest_standing_and_is_told(
    qemu: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes" / "web0").mkdir(parents=True)  # nothing that we would write
    (tmp_path / "notes" / "web1").write_bytes(dump_json(STOP))
    qemu.status = "paused"
    went: list[str] = []
    with pytest.raises(EnvironmentFault, match="web0"):
        went.extend(let_go_forgotten(tmp_path / "notes", sockets=tmp_path))
    assert (went, qemu.status) == (["web1"], "running")


def test_an_act_of_upkeep_that_breaks_keeps_no_other_from_being_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> Iterator[str]:
        raise RecursionError

    (tmp_path / "FORMAT").touch()
    monkeypatch.setattr(upkeep, "open_volumes", lambda settings: None)
    monkeypatch.setattr(upkeep, "_forgotten", breaks)
    monkeypatch.setattr(upkeep, "_level", lambda settings, volumes: iter(["level"]))
    monkeypatch.setattr(upkeep, "_resumed", lambda settings, volumes: iter(["resumed"]))
    told: list[str] = []
    code = upkeep.run(Settings(folder=tmp_path), argparse.Namespace(commit=False), told.append)
    assert (told, code) == (["level", "resumed"], EXIT_BUG)


def test_a_note_that_went_while_it_was_opened_is_not_the_one_that_is_held(
    qemu: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the standstill before ends between our open and our lock."""
    note = tmp_path / "notes" / "web1"
    note.parent.mkdir()
    real, locked = fcntl.flock, list[int]()

    def flock(fd: int, how: int) -> None:
        if not locked:
            note.unlink()
        locked.append(fd)
        real(fd, how)

    monkeypatch.setattr("snf_extstorage.standstill.fcntl.flock", flock)
    standstill = Standstill(STOP, notes=note.parent, sockets=tmp_path)
    standstill.begin()
    assert parse_json(note.read_bytes(), Wish, limit=4096) == STOP
    standstill.end()
    assert (qemu.status, notes(tmp_path)) == ("running", [])
