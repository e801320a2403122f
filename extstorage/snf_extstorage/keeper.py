"""The process that has a guest stand still, and lets it go when told to, or when who wanted it dies or takes too long.

It is forked before anything else is done and leaves the session, so a signal or `kill -9` for the command that makes a
cut does not reach it. The two speak over a socket: a Wish, what came of it, the end of what is said, how it went.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from snf_extstorage.monitor import SOCKETS, NotRunning
from snf_extstorage.standstill import Standstill, Stood, Went, Wish, let_go
from synnefo_light.errors import PeerError
from synnefo_light.records import dump_json, parse_json

#: Longer than this nobody stands still. A clone takes 25 us an extent, so this is 400 000 extents.
LIMIT_S: Final = 10.0
#: For the keeper's answer: its own limits for QEMU and the agent come before.
ANSWER_S: Final = 180.0
_MESSAGE_LIMIT: Final = 64 << 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    stood: Stood | None = None
    went: Went | None = None
    late: bool = False
    error: str = ""
    not_running: bool = False


def keep(pipe: socket.socket, *, notes: Path, sockets: Path = SOCKETS, limit_s: float = LIMIT_S) -> None:
    """The keeper's life: one wish."""
    raw = pipe.recv(_MESSAGE_LIMIT)
    if not raw:
        return
    standstill = Standstill(parse_json(raw, Wish, limit=_MESSAGE_LIMIT), notes=notes, sockets=sockets)
    late = False
    try:
        standstill.begin()
        _tell(pipe, Answer(stood=standstill.stood))
        late = not select.select([pipe], [], [], limit_s)[0]
    except PeerError as e:
        _tell(pipe, Answer(error=str(e), not_running=isinstance(e, NotRunning)))
    finally:
        try:
            went = standstill.end()
        except PeerError as e:
            _tell(pipe, Answer(error=f"{e}; `snf-store upkeep` tries again"))
        else:
            _tell(pipe, Answer(went=went, late=late))


def _tell(pipe: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):  # nobody is left to be told
        pipe.send(dump_json(answer))


class Keeper:
    """The side of who wants a cut: `with keeper.standing(wish):` once."""

    def __init__(self, pipe: socket.socket, *, notes: Path, sockets: Path = SOCKETS) -> None:
        self._pipe = pipe
        self._notes = notes
        self._sockets = sockets
        pipe.settimeout(ANSWER_S)
        self.stood = Stood()
        self.went = Went()

    @contextlib.contextmanager
    def standing(self, wish: Wish) -> Iterator[None]:
        """The guest stands still meanwhile. Raises NotRunning, and PeerError: then what was done is no cut."""
        try:
            self._pipe.send(dump_json(wish))
            self.stood = self._answer(wish).stood or self.stood
            yield
        except BaseException:
            self._pipe.close()  # whatever was wrong, the keeper lets go
            raise
        with contextlib.suppress(OSError):  # it has left already, and said why
            self._pipe.shutdown(socket.SHUT_WR)
        answer = self._answer(wish)
        self.went = answer.went or self.went
        if answer.late:
            raise PeerError(
                f"{wish.instance} was to stand still for a cut, which took more than {LIMIT_S:g} s; it went on and "
                "nothing was kept. Fewer extents make it quicker: see `snf-store volume show`"
            )

    def _answer(self, wish: Wish) -> Answer:
        try:
            raw = self._pipe.recv(_MESSAGE_LIMIT)
        except OSError as e:
            raise PeerError(f"the process that has {wish.instance} stand still does not answer: {e}") from e
        if not raw:
            note = self._notes / wish.instance
            if note.exists():  # without it, nothing was done yet, and who paused the guest wants it so
                let_go(wish, sockets=self._sockets)
                note.unlink(missing_ok=True)
            raise PeerError(f"what had {wish.instance} stand still was killed; the guest goes on, nothing was kept")
        answer = parse_json(raw, Answer, limit=_MESSAGE_LIMIT)
        if answer.error:
            raise (NotRunning if answer.not_running else PeerError)(answer.error)
        return answer


@contextlib.contextmanager
def keeper(notes: Path, *, sockets: Path = SOCKETS) -> Iterator[Keeper]:
    """A keeper that waits for its wish, and ends with this context at the latest when it had none.

    Call it before threads are started and connections are made: it takes no descriptor of ours along, but a lock that
    a thread holds would stay held.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        _become_keeper(theirs, notes=notes, sockets=sockets)
    theirs.close()
    os.waitpid(child, 0)
    with ours:
        yield Keeper(ours, notes=notes, sockets=sockets)


def _become_keeper(pipe: socket.socket, *, notes: Path, sockets: Path) -> None:
    """Never returns. Forks once more, so that the keeper is nobody's child."""
    code = 1
    try:
        os.setsid()
        if os.fork() != 0:
            code = 0
            return
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nothing, fd)
        own = pipe.fileno()
        os.closerange(3, own)
        os.closerange(own + 1, 1 << 16)
        keep(pipe, notes=notes, sockets=sockets)
        code = 0
    finally:
        os._exit(code)
