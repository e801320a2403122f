"""A person at the serial console of an instance, as far as a program can be one.

Ganeti gives QEMU's first serial port a Unix socket on the node. Nobody keeps what the guest printed before somebody
connected, so waiting for a prompt includes asking for one: an empty line makes getty, and a shell, print it again.
The clock and the socket are given from outside; what waits and what it understands is tested without a guest.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from synnefo_light.errors import PeerError
from synnefo_light.log import escape

CONTROL_FOLDER = "/run/ganeti/kvm-hypervisor/ctrl"
KEEP = 64 << 10
NUDGE_S = 3.0

_TERMINAL_SEQUENCE = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|[()][A-Z0-9]|\][^\x07\x1b]*(\x07|\x1b\\)|[=>78cDEHM])")


class Line(Protocol):
    """A serial line: what came within a moment (b"" when nothing did), and sending."""

    def receive(self, *, wait_s: float) -> bytes: ...

    def send(self, content: bytes) -> None: ...


class SocketLine:
    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def receive(self, *, wait_s: float) -> bytes:
        self._socket.settimeout(wait_s)
        try:
            content = self._socket.recv(65536)
        except TimeoutError:
            return b""
        if not content:
            raise PeerError("the serial console was closed: the instance has stopped")
        return content

    def send(self, content: bytes) -> None:
        self._socket.settimeout(30)
        self._socket.sendall(content)


@contextlib.contextmanager
def connected(*, node_pid: int, instance: str) -> Iterator[SocketLine]:
    """The instance's serial port, reached from the host through the node's own root.

    Raises PeerError when there is none: the instance is not running.
    """
    path = Path(f"/proc/{node_pid}/root{CONTROL_FOLDER}/{instance}.serial")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(str(path))
        except OSError as e:
            raise PeerError(f"{instance} has no serial console on its node ({e.strerror}); is it running?") from e
        yield SocketLine(line)


class Console:
    def __init__(
        self,
        line: Line,
        *,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`told` is given each last line that the guest prints, made fit for a terminal."""
        self._line = line
        self._clock = clock
        self._told = told
        self._seen = b""

    def log_in(self, *, user: str, password: str, timeout_s: float) -> None:
        """Wait for the login prompt, answer it, and wait for the shell.

        Raises PeerError when the guest refuses the password, or says nothing of the sort in time.
        """
        deadline = self._clock() + timeout_s
        self.wait_for(rb"login: $", until=deadline, nudge=b"\r")
        self._line.send(user.encode() + b"\r")
        self.wait_for(rb"[Pp]assword: $", until=deadline)
        self._line.send(password.encode() + b"\r")
        answer = self.wait_for(rb"(Login incorrect|[#$] $)", until=deadline)
        if b"Login incorrect" in answer:
            raise PeerError(f"the guest refused the password of {user} at its serial console")

    def ask(self, command: str, *, timeout_s: float) -> str:
        """What a shell command prints, without the echo of the command. It must print less than a screen."""
        # The mark is put together by the shell, so that the echo of this line is not taken for the answer.
        self._line.send(f"{command}; echo '<''end''>'\r".encode())
        seen = self.wait_for(rb"<end>\r?\n", until=self._clock() + timeout_s)
        lines = seen.decode("utf-8", "replace").replace("\r", "").split("\n")
        return "\n".join(lines[1 : [n for n, line in enumerate(lines) if line.endswith("<end>")][-1]]).strip()

    def wait_for(self, pattern: bytes, *, until: float, nudge: bytes = b"") -> bytes:
        """Everything up to and with the first match of `pattern`, which is then forgotten.

        With `nudge`, that is sent after each while of silence. Raises PeerError at `until`, with the last line seen.
        """
        wanted = re.compile(pattern)
        nudged = self._clock()
        while True:
            found = wanted.search(self._seen)
            if found:
                taken, self._seen = self._seen[: found.end()], self._seen[found.end() :]
                return taken
            now = self._clock()
            if now >= until:
                last = escape(last_line(self._seen)) or "nothing"
                raise PeerError(
                    f"the serial console did not come to {pattern.decode()!r} in time; it last said: {last}"
                )
            content = self._line.receive(wait_s=0.2)
            if content:
                nudged = now
                self._seen = strip_terminal(self._seen + content)[-KEEP:]
                self._told(escape(last_line(self._seen)))
            elif nudge and now - nudged >= NUDGE_S:
                nudged = now
                self._line.send(nudge)


def strip_terminal(content: bytes) -> bytes:
    """Without the sequences that colour text and move cursors; an unfinished one at the end is left for later."""
    return _TERMINAL_SEQUENCE.sub(b"", content)


def last_line(content: bytes) -> str:
    lines = content.decode("utf-8", "replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
