"""The guest agent of an instance on this node: freezing the guest's file systems and thawing them.

Ganeti makes its socket when the hypervisor parameter `use_guest_agent` is set. Whoever is root in the guest says what
comes out of it: it is bounded, parsed and trusted with nothing but whether the cut is better than one after a power
cut. QEMU listens on the socket whether an agent runs or not, and hands the agent whatever clients before us left; so
a conversation begins with a byte that no JSON has and a number that must come back (guest-sync-delimited).
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from snf_extstorage.monitor import SOCKETS, Lines, NotRunning, connected
from synnefo_light.errors import PeerError, ProtocolError
from synnefo_light.log import escape
from synnefo_light.records import RecordError, load_json

#: For an agent to say that it is there.
PRESENCE_S: Final = 3.0
#: For the guest to write out its dirty data. Windows thaws by itself after 10.
FREEZE_S: Final = 10.0
_MARK: Final = b"\xff"
#: Lines of earlier answers that may come first.
_STALE_LIMIT: Final = 1000
#: What we ask for is answered with a number or a sentence.
_LINE_LIMIT: Final = 64 << 10


class Agent:
    """Raises PeerError, ProtocolError."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def sync(self, *, limit_s: float) -> None:
        """Be sure that an agent answers, and that the next answer is to what is asked next."""
        number = secrets.randbits(31)
        self._lines.extend(limit_s)
        self._lines.send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, before=_MARK)
        for _ in range(_STALE_LIMIT):
            _, mark, line = self._lines.read_line().rpartition(_MARK)
            if mark and _returned(line) == number:
                return
        raise ProtocolError("the guest agent sends one stale answer after another")

    def freeze(self) -> int:
        """Freeze all file systems; how many. It may happen later even if this raises: thaw in any case."""
        return self._count("guest-fsfreeze-freeze")

    def thaw(self, *, limit_s: float) -> int:
        """How many were frozen until now; 0 if something else thawed them before."""
        self.sync(limit_s=limit_s)
        return self._count("guest-fsfreeze-thaw")

    def _count(self, command: str) -> int:
        self._lines.extend(FREEZE_S)
        self._lines.send({"execute": command})
        answer = self._lines.read()
        if "error" in answer:
            error = answer["error"]
            said = error.get("desc") if isinstance(error, dict) else error
            raise PeerError(f"the guest agent refused {command}: {escape(str(said), limit=200)}")
        count = answer.get("return")
        if not isinstance(count, int) or not 0 <= count <= 1 << 20:
            raise ProtocolError(f"the guest agent did not say how many file systems {command} was for")
        return count


def _returned(line: bytes) -> object:
    try:
        answer = load_json(line, limit=_LINE_LIMIT)
    except RecordError:
        return None
    return answer.get("return") if isinstance(answer, dict) else None


@contextlib.contextmanager
def agent(instance: str, *, sockets: Path = SOCKETS) -> Iterator[Agent]:
    """Speak to an instance's agent. Raises NotRunning when it has none, PeerError when it does not answer."""
    try:
        path, who = sockets / f"{instance}.qga", f"the guest agent of {instance}"
        with connected(path, who, limit_s=PRESENCE_S, line_limit=_LINE_LIMIT) as lines:
            yield Agent(lines)
    except NotRunning:
        raise NotRunning(f"{instance} has no guest agent's socket; set its parameter use_guest_agent") from None
