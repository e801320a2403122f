"""QEMU's monitor, played by a thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from snf_extstorage.guests import drive_of, instance_of, tell_size
from snf_extstorage.monitor import NotRunning, monitor

from synnefo_light.errors import PeerError, ProtocolError
from tests.guest_sockets import Order, Qemu

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"


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
    def answer(order: Order) -> object:
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
    monkeypatch.setattr("snf_extstorage.monitor.LIMIT_S", 0.3)
    qemu.greeting = b""
    with pytest.raises(PeerError, match="did not answer"), monitor("web1", sockets=tmp_path):
        pass


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(
    qemu: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu.answer = lambda order: {"return": {"to": order["execute"]}}
    with monitor("web1", sockets=tmp_path) as speaking:
        assert speaking.execute("query-name") == {"to": "query-name"}
