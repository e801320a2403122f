"""QEMU's monitor, played by a thread."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from snf_extstorage.guests import NotRunning, drive_of, instance_of, monitor, stopped, tell_size

from synnefo_light.errors import PeerError, ProtocolError

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
Answer = Callable[[dict[str, object]], object]
GREETING = b'{"QMP": {"version": {}}}\r\n'


class Qemu:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "web1.qmp"
        self.asked: list[dict[str, object]] = []
        self.answer: Answer = lambda order: {"return": {}}
        self.greeting = GREETING
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(self.path))
        self._server.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, connection.makefile("rwb") as file:
            file.write(self.greeting)
            file.flush()
            for line in file:
                order = json.loads(line)
                self.asked.append(order)
                file.write(b'{"event": "RTC_CHANGE"}\r\n' + json.dumps(self.answer(order)).encode() + b"\r\n")
                file.flush()

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as poke:  # in case nobody called
            poke.settimeout(1)
            poke.connect(str(self.path))
        self._thread.join(5)
        self._server.close()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    made = Qemu(tmp_path)
    yield made
    made.close()


def test_the_instance_and_the_drive_are_known_by_what_ganeti_calls_them() -> None:
    assert instance_of("originstname+web1.example.org") == "web1.example.org"
    assert [instance_of(note) for note in ("", "x", "originstname+", "originstname+../x", "originstname+a/b")] == [
        None
    ] * 5
    assert drive_of(UUID) == "disk-efa8d6e0-c062-4b14"


def test_a_grown_disk_is_told_to_the_guest(qemu: Qemu, tmp_path: Path) -> None:
    assert tell_size("web1", UUID, 1 << 30, sockets=tmp_path)
    assert qemu.asked == [
        {"execute": "qmp_capabilities"},
        {"execute": "block_resize", "arguments": {"device": "disk-efa8d6e0-c062-4b14", "size": 1 << 30}},
    ]


def test_of_ganeti_3_1_the_node_is_resized(qemu: Qemu, tmp_path: Path) -> None:
    def answer(order: dict[str, object]) -> object:
        named = order.get("arguments")
        if isinstance(named, dict) and "device" in named:
            return {"error": {"class": "DeviceNotFound", "desc": "Cannot find device"}}
        return {"return": {}}

    qemu.answer = answer
    assert tell_size("web1", UUID, 5, sockets=tmp_path)
    assert qemu.asked[-1]["arguments"] == {"node-name": "disk-efa8d6e0-c062-4b14", "size": 5}


def test_a_refusal_is_no_failure_of_growing(qemu: Qemu, tmp_path: Path) -> None:
    qemu.answer = lambda order: {"error": {"desc": "no"}} if order["execute"] == "block_resize" else {"return": {}}
    assert not tell_size("web1", UUID, 5, sockets=tmp_path)


def test_who_does_not_run_here_is_told_nothing(tmp_path: Path) -> None:
    assert not tell_size("web1", UUID, 5, sockets=tmp_path)
    with pytest.raises(NotRunning), monitor("web1", sockets=tmp_path):
        pass


@pytest.mark.parametrize("greeting", [b"hello\n", b'{"x": 1}\n', b"[1]\n"])
def test_what_is_not_qemu_is_refused(qemu: Qemu, tmp_path: Path, greeting: bytes) -> None:
    qemu.greeting = greeting
    with pytest.raises(ProtocolError), monitor("web1", sockets=tmp_path):
        pass


def test_a_silent_qemu_costs_no_more_than_the_limit(
    qemu: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snf_extstorage.guests.LIMIT_S", 0.3)
    qemu.greeting = b""
    with pytest.raises(PeerError, match="did not answer"), monitor("web1", sockets=tmp_path):
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_a_stopped_guest_always_goes_on(qemu: Qemu, tmp_path: Path, fails: bool) -> None:
    qemu.answer = lambda order: {"return": {"running": True} if order["execute"] == "query-status" else {}}
    try:
        with stopped("web1", sockets=tmp_path):
            assert qemu.asked[-1] == {"execute": "stop"}
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert qemu.asked[-1] == {"execute": "cont"}


def test_a_guest_that_somebody_paused_stays_paused(qemu: Qemu, tmp_path: Path) -> None:
    qemu.answer = lambda order: {"return": {"running": False} if order["execute"] == "query-status" else {}}
    with stopped("web1", sockets=tmp_path):
        pass
    assert [order["execute"] for order in qemu.asked] == ["qmp_capabilities", "query-status"]
