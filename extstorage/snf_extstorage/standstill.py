"""A guest that stands still for a cut, and goes on whatever happens.

    note     what is about to be done, in /run, held with flock(2) as long as somebody minds it
    freeze   the guest's file systems, by its agent, where that was asked for
    stop     its processors, where there are several disks to cut
    ...      the cut
    cont     only if QEMU says "paused": a guest that was migrated away meanwhile must not go on here as well
    thaw
    unnote

This runs in a process of its own (keeper.py), which does the second half when the one that wanted the cut dies. Should
both die, the note is left, and `let_go_forgotten` does it: `snf-store upkeep` calls that each minute.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from snf_extstorage.agent import FREEZE_S, PRESENCE_S, Agent, agent
from snf_extstorage.monitor import SOCKETS, Monitor, NotRunning, monitor
from synnefo_light.errors import EnvironmentFault, PeerError
from synnefo_light.files import is_same_file, read_bounded
from synnefo_light.log import logger
from synnefo_light.records import RecordError, dump_json, parse_json

#: How long going on is tried before it is left to `let_go_forgotten`.
PATIENCE_S: Final = 60.0
#: A guest whose agent does not answer for so long was started anew, or has none any more.
FORGET_S: Final = 3600.0
_NOTE_LIMIT: Final = 4096
#: Where the processors run or are about to: on the other node.
_ELSEWHERE: Final = ("inmigrate", "postmigrate", "finish-migrate")
_NOT_MIGRATING: Final = ("none", "completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    instance: str
    stop: bool
    freeze: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """What came of a wish."""

    stopped: bool = False  # False also for a guest that somebody else had paused: it stays so
    frozen: int = 0  # file systems
    unfrozen: str = ""  # why none was, where it was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Went:
    """How it went on."""

    stopped_ms: int = 0
    thawed: int = 0  # file systems; fewer than were frozen: somebody else thawed them, perhaps before the cut


class Standstill:
    """`begin`, then `end`, whatever `begin` raised."""

    def __init__(self, wish: Wish, *, notes: Path, sockets: Path = SOCKETS) -> None:
        self._wish = wish
        self._notes = notes
        self._sockets = sockets
        self._note = contextlib.ExitStack()
        self._connections = contextlib.ExitStack()
        self._qemu: Monitor | None = None
        self._agent: Agent | None = None
        self._stopped_at: float | None = None
        self.stood = Stood()

    def begin(self) -> None:
        """Raises NotRunning, PeerError."""
        wish = self._wish
        self._qemu = self._connections.enter_context(monitor(wish.instance, sockets=self._sockets))
        if not _runs_here(self._qemu, wish.instance):
            return
        self._note.enter_context(_noted(self._notes, wish))
        if wish.freeze:
            self._freeze()
        if wish.stop:
            self._stopped_at = time.monotonic()
            self._qemu.extend()
            self._qemu.execute("stop")
            self.stood = replace(self.stood, stopped=True)

    def end(self) -> Went:
        """The guest goes on. Raises PeerError when that could not be done: then the note stays."""
        with self._note:
            with self._connections:
                left, went = self._go_on()
            if left.stop or left.freeze:
                let_go(left, sockets=self._sockets)
            return went

    def _freeze(self) -> None:
        try:
            speaking = self._connections.enter_context(agent(self._wish.instance, sockets=self._sockets))
            speaking.sync(limit_s=PRESENCE_S)
        except PeerError as e:
            self.stood = replace(self.stood, unfrozen=str(e))
            return
        self._agent = speaking
        try:
            self.stood = replace(self.stood, frozen=speaking.freeze())
        except PeerError as e:
            self.stood = replace(self.stood, unfrozen=str(e))

    def _go_on(self) -> tuple[Wish, Went]:
        """What is still to be done, and what came of it."""
        left = replace(self._wish, stop=self._stopped_at is not None, freeze=self._agent is not None)
        went = Went()
        try:
            if self._qemu is not None and self._stopped_at is not None:
                self._qemu.extend()
                _continue(self._qemu)
                went = replace(went, stopped_ms=round((time.monotonic() - self._stopped_at) * 1000))
                left = replace(left, stop=False)
            if self._agent is not None:
                went = replace(went, thawed=self._agent.thaw(limit_s=FREEZE_S))
                left = replace(left, freeze=False)
        except PeerError as e:
            logger.warning("instance=%s does not go on at once: %s", self._wish.instance, e)
        return left, went


def let_go(wish: Wish, *, sockets: Path = SOCKETS, patience_s: float = PATIENCE_S) -> None:
    """Continue and thaw, with connections of its own, again and again. Raises PeerError when `patience_s` is over.

    A guest that is gone, or was migrated away, needs nothing.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if wish.stop:
                with monitor(wish.instance, sockets=sockets) as qemu:
                    _continue(qemu)
                wish = replace(wish, stop=False)
            if wish.freeze:
                with agent(wish.instance, sockets=sockets) as speaking:
                    speaking.thaw(limit_s=FREEZE_S)
            return
        except NotRunning:
            return
        except PeerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def let_go_forgotten(notes: Path, *, sockets: Path = SOCKETS) -> Iterator[str]:
    """Let go what processes that died have stopped or frozen; the instances. What fails is tried by the next call.

    One after the other, whatever became of the one before. Raises EnvironmentFault at the end, where a note made us
    stumble over what is no answer of a guest.
    """
    stumbled = []
    for path in sorted(notes.iterdir()) if notes.is_dir() else ():
        try:
            instance = _let_go_noted(path, sockets)
        except Exception as e:
            logger.exception("instance=%s does not go on: %s", path.name, e)
            stumbled.append(path.name)
            continue
        if instance is not None:
            yield instance
    if stumbled:
        raise EnvironmentFault(f"{', '.join(stumbled)} stood still for a cut and may do so yet; the log says why")


def _let_go_noted(path: Path, sockets: Path) -> str | None:
    """The instance of a note, if it goes on now. The note is gone then, or is forgotten when it is old."""
    with contextlib.ExitStack() as opened:
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_same_file(fd, path):
                return None
            wish = parse_json(read_bounded(path, limit=_NOTE_LIMIT), Wish, limit=_NOTE_LIMIT)
        except (FileNotFoundError, BlockingIOError):
            return None  # somebody minds it
        except RecordError as e:
            logger.warning("%s is no note of ours, and goes: %s", path, e)
            path.unlink(missing_ok=True)
            return None
        gone_on: str | None = None
        try:
            let_go(wish, sockets=sockets, patience_s=0.0)
            gone_on = wish.instance
        except PeerError as e:
            logger.warning("instance=%s does not go on: %s", wish.instance, e)
            if time.time() - os.fstat(fd).st_mtime < FORGET_S:
                return None
        path.unlink(missing_ok=True)
        return gone_on


@contextlib.contextmanager
def _noted(notes: Path, wish: Wish) -> Iterator[None]:
    """One standstill of an instance at a time. Raises PeerError while there is another. An error leaves the note."""
    notes.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = notes / wish.instance
    fd = _held_note(path, wish.instance)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, dump_json(wish), 0)
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _held_note(path: Path, instance: str) -> int:
    """A note that is locked, and that who held it before has not taken away while we opened it. Raises PeerError."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_same_file(fd, path):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise PeerError(f"another cut of {instance} is being made; try again after it") from None
        os.close(fd)


def _runs_here(qemu: Monitor, instance: str) -> bool:
    """False for a guest that somebody else has paused. Raises PeerError when it runs elsewhere, or soon will."""
    status = qemu.status()
    moving = qemu.execute("query-migrate")
    progress = moving.get("status", "none") if isinstance(moving, dict) else "none"
    if status in _ELSEWHERE or progress not in _NOT_MIGRATING:
        raise PeerError(f"{instance} is being migrated; try again afterwards, on the node where it is then")
    return status == "running"


def _continue(qemu: Monitor) -> None:
    if qemu.status() == "paused":
        qemu.execute("cont")
