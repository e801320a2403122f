"""QEMU's monitor and a guest's agent, played by threads that listen where Ganeti would have them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

Order = dict[str, object]
Answer = Callable[[Order], object]
GREETING = b'{"QMP": {"version": {}}}\r\n'


class Player:
    """Listens at `path` and takes one client after the other; `asked` has what they said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Order] = []
        self.answer: Answer = lambda order: {"return": {}}
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen(5)
        self._closing = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closing:
            connection, _ = self._server.accept()
            with connection, contextlib.suppress(OSError):
                self.talk(connection)

    def talk(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._closing = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as poke:
            poke.settimeout(1)
            poke.connect(str(self.path))
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._server.close()
        self.path.unlink()

    @property
    def commands(self) -> list[object]:
        return [order["execute"] for order in self.asked]


class Qemu(Player):
    """A guest that runs, stops and goes on; `status` as QEMU's."""

    def __init__(self, folder: Path, instance: str = "web1") -> None:
        self.greeting = GREETING
        self.status = "running"
        self.migration: dict[str, object] = {}
        super().__init__(folder / f"{instance}.qmp")
        self.answer = self.behave

    def behave(self, order: Order) -> object:
        command = order["execute"]
        if command == "query-status":
            return {"return": {"status": self.status, "running": self.status == "running"}}
        if command == "query-migrate":
            return {"return": self.migration}
        if command in ("stop", "cont"):
            self.status = "paused" if command == "stop" else "running"
        return {"return": {}}

    def talk(self, connection: socket.socket) -> None:
        connection.sendall(self.greeting)
        with connection.makefile("rwb") as file:
            for line in file:
                order = json.loads(line)
                number = order.pop("id", None)
                self.asked.append(order)
                answer = self.answer(order)
                if isinstance(answer, dict):
                    # Events come in between, and an answer to an order that was given up.
                    file.write(b'{"event": "RTC_CHANGE"}\r\n{"return": {"old": 1}, "id": 0}\r\n')
                    file.write(json.dumps({**answer, "id": number}).encode() + b"\r\n")
                    file.flush()


class Agent(Player):
    """A guest with three file systems. Without `alive` nobody reads, as when the guest has no agent."""

    def __init__(self, folder: Path, instance: str = "web1") -> None:
        self.alive = True
        self.stale = b'{"return": 17}\n'
        self.frozen = 0
        self.raw = b""  # said instead of an answer to whatever is not a sync
        super().__init__(folder / f"{instance}.qga")
        self.answer = self.behave

    def behave(self, order: Order) -> object:
        before = self.frozen
        if order["execute"] == "guest-fsfreeze-freeze":
            self.frozen = 3
            return {"return": 3}
        if order["execute"] == "guest-fsfreeze-thaw":
            self.frozen = 0
            return {"return": before}
        return {"return": "frozen" if before else "thawed"}

    def talk(self, connection: socket.socket) -> None:
        if not self.alive:
            while connection.recv(4096):
                pass
            return
        connection.sendall(self.stale)
        with connection.makefile("rwb") as file:
            for line in file:
                order = json.loads(line.lstrip(b"\xff"))
                if order["execute"] == "guest-sync-delimited":
                    assert line.startswith(b"\xff")
                    file.write(b"\xff" + json.dumps({"return": order["arguments"]["id"]}).encode() + b"\n")
                elif self.raw:
                    file.write(self.raw + b"\n")
                else:
                    self.asked.append(order)
                    answer = self.answer(order)
                    if answer is not None:
                        file.write(json.dumps(answer).encode() + b"\n")
                file.flush()
