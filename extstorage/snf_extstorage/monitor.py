"""QEMU's monitor (QMP) of an instance on this node: objects of JSON, one a line, over a Unix socket.

Ganeti's socket takes one client at a time and Ganeti opens it for each operation, so ours is brief: a busy socket is
tried again for a moment, and everything has one deadline. What QEMU says is bounded and parsed; a guest cannot reach
this socket.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from synnefo_light.errors import PeerError, ProtocolError
from synnefo_light.log import escape
from synnefo_light.records import RecordError, load_json

SOCKETS: Final = Path("/run/ganeti/kvm-hypervisor/ctrl")
LIMIT_S: Final = 5.0
_LINE_LIMIT: Final = 4 << 20


class NotRunning(PeerError):
    """No QEMU of that instance on this node."""


class Lines:
    """One connection. `who` is for messages. Raises PeerError, ProtocolError."""

    def __init__(self, connection: socket.socket, who: str, *, limit_s: float, line_limit: int = _LINE_LIMIT) -> None:
        self._connection = connection
        self._line_limit = line_limit
        self._who = who
        self._buffer = b""
        self.extend(limit_s)

    def extend(self, limit_s: float) -> None:
        """A new deadline: for what must be said however long the work in between took."""
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s

    def send(self, order: Mapping[str, object], *, before: bytes = b"") -> None:
        try:
            self._connection.settimeout(max(0.01, self._deadline - time.monotonic()))
            self._connection.sendall(before + json.dumps(order).encode() + b"\n")
        except OSError as e:
            raise PeerError(f"{self._who}: {e.strerror or 'takes nothing'}") from e

    def read(self) -> dict[str, object]:
        try:
            # QEMU has floats: the speed of a migration.
            said = load_json(self.read_line(), limit=self._line_limit, floats=True)
        except RecordError:
            said = None
        if not isinstance(said, dict):
            raise ProtocolError(f"{self._who} sent something that is not a JSON object")
        return said

    def read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise PeerError(f"{self._who} did not answer within {self._limit_s:g} s")
            self._connection.settimeout(left)
            try:
                data = self._connection.recv(65536)
            except TimeoutError:
                continue
            except OSError as e:
                raise PeerError(f"{self._who}: {e.strerror}") from e
            if not data or len(self._buffer) > self._line_limit:
                raise ProtocolError(f"{self._who} ended, or sent a line without an end")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class Monitor:
    """Orders are numbered, so that the answer to one that was given up is not taken for that to the next."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._numbers = itertools.count(1)

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """What the command returns. Raises PeerError with QEMU's sentence when it refuses."""
        number = next(self._numbers)
        self._lines.send({"execute": command, "id": number, **({"arguments": dict(arguments)} if arguments else {})})
        while True:
            answer = self._lines.read()
            if answer.get("id") != number:
                continue
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                error = answer["error"]
                said = error.get("desc") if isinstance(error, dict) else error
                raise PeerError(f"QEMU refused {command}: {escape(str(said))}")

    def extend(self) -> None:
        self._lines.extend(LIMIT_S)

    def status(self) -> str:
        """QEMU's RunState: "running", "paused", "io-error", "inmigrate", ..."""
        found = self.execute("query-status")
        status = found.get("status") if isinstance(found, dict) else None
        if not isinstance(status, str):
            raise ProtocolError("QEMU's monitor does not say whether the guest runs")
        return status


@contextlib.contextmanager
def connected(path: Path, who: str, *, limit_s: float, line_limit: int = _LINE_LIMIT) -> Iterator[Lines]:
    """Raises NotRunning when nobody listens there; PeerError when somebody else has the socket all the time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(limit_s)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(f"{who} is not there: nothing listens at {path}") from None
        except OSError as e:
            raise PeerError(f"{path}: {e.strerror or 'no answer'}") from e
        yield Lines(connection, who, limit_s=limit_s, line_limit=line_limit)


@contextlib.contextmanager
def monitor(instance: str, *, sockets: Path = SOCKETS) -> Iterator[Monitor]:
    """Speak to an instance's QEMU. Raises NotRunning; PeerError when somebody else has the socket all the time."""
    path = sockets / f"{instance}.qmp"
    with connected(path, f"the monitor of {instance}", limit_s=LIMIT_S) as lines:
        if "QMP" not in lines.read():
            raise ProtocolError(f"{path} is not QEMU's monitor")
        speaking = Monitor(lines)
        speaking.execute("qmp_capabilities")
        yield speaking
