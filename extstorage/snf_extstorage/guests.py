"""Running instances of this node, spoken to through QEMU's monitor (QMP).

Ganeti's socket takes one client at a time and Ganeti opens it for each operation, so ours is brief: a busy socket is
tried again for a moment, and everything has one deadline. What QEMU says is bounded and parsed; a guest cannot reach
this socket.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from synnefo_light.errors import PeerError, ProtocolError
from synnefo_light.log import escape, logger

SOCKETS: Final = Path("/run/ganeti/kvm-hypervisor/ctrl")
LIMIT_S: Final = 5.0
_LINE_LIMIT: Final = 4 << 20
_NOTE: Final = re.compile(r"originstname\+([A-Za-z0-9][A-Za-z0-9.-]{0,252})")


class NotRunning(PeerError):
    """No QEMU of that instance on this node."""


def instance_of(note: str) -> str | None:
    """The instance in Ganeti's note on a volume; Ganeti sets it at creation and again when it renames."""
    match = _NOTE.fullmatch(note)
    return match[1] if match else None


def drive_of(uuid: str) -> str:
    """What Ganeti calls a disk in QEMU: ids have 30 characters, so the first three groups of its UUID."""
    return f"disk-{uuid.rsplit('-', 2)[0]}"


class Monitor:
    """One connection. Raises PeerError, ProtocolError."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._buffer = b""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """What the command returns. Raises PeerError with QEMU's sentence when it refuses."""
        order = {"execute": command, **({"arguments": dict(arguments)} if arguments else {})}
        self._connection.sendall(json.dumps(order).encode() + b"\n")
        while True:
            answer = self.read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                error = answer["error"]
                said = error.get("desc") if isinstance(error, dict) else error
                raise PeerError(f"QEMU refused {command}: {escape(str(said))}")

    def extend(self) -> None:
        """A new deadline: for what must be said however long the work in between took."""
        self._deadline = time.monotonic() + LIMIT_S

    def read(self) -> dict[str, object]:
        while b"\n" not in self._buffer:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise PeerError(f"QEMU did not answer within {LIMIT_S:g} s")
            self._connection.settimeout(left)
            try:
                data = self._connection.recv(65536)
            except TimeoutError:
                continue
            except OSError as e:
                raise PeerError(f"QEMU's monitor: {e.strerror}") from e
            if not data or len(self._buffer) > _LINE_LIMIT:
                raise ProtocolError("QEMU's monitor ended, or sent a line without an end")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise ProtocolError("QEMU's monitor sent something that is not a JSON object")
        return said


@contextlib.contextmanager
def monitor(instance: str, *, sockets: Path = SOCKETS) -> Iterator[Monitor]:
    """Speak to an instance's QEMU. Raises NotRunning; PeerError when somebody else has the socket all the time."""
    path = sockets / f"{instance}.qmp"
    deadline = time.monotonic() + LIMIT_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(LIMIT_S)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(f"{instance} does not run on this node") from None
        except OSError as e:
            raise PeerError(f"{path}: {e.strerror or 'no answer'}") from e
        speaking = Monitor(connection, deadline)
        if "QMP" not in speaking.read():
            raise ProtocolError(f"{path} is not QEMU's monitor")
        speaking.execute("qmp_capabilities")
        yield speaking


def tell_size(instance: str, uuid: str, size: int, *, sockets: Path = SOCKETS) -> bool:
    """Have a running guest see that its disk has grown. False, and a line in the log, if that could not be done.

    Ganeti 3.0 does not; 3.1 does so too, which does no harm. A disk that was hot-added is found by the same name.
    """
    try:
        with monitor(instance, sockets=sockets) as qemu:
            try:
                qemu.execute("block_resize", {"device": drive_of(uuid), "size": size})
            except PeerError:  # Ganeti 3.1 has no drive of that name, but a node
                qemu.execute("block_resize", {"node-name": drive_of(uuid), "size": size})
    except NotRunning:
        return False
    except PeerError as e:
        logger.warning("instance=%s disk=%s the guest was not told of the new size: %s", instance, drive_of(uuid), e)
        return False
    return True


@contextlib.contextmanager
def stopped(instance: str, *, sockets: Path = SOCKETS) -> Iterator[None]:
    """The guest's processors stand still meanwhile, and go on whatever happens. Raises PeerError."""
    with monitor(instance, sockets=sockets) as qemu:
        status = qemu.execute("query-status")
        if not (isinstance(status, dict) and status.get("running")):
            yield  # paused by somebody else, who will want it to stay so
            return
        qemu.execute("stop")
        began = time.monotonic()
        try:
            yield
        finally:
            qemu.extend()
            qemu.execute("cont")
            logger.info("instance=%s was stopped for %.0f ms", instance, (time.monotonic() - began) * 1000)
