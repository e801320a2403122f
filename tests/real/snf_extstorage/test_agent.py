"""The real guest agent: what it freezes cannot be written until it is thawed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.standstill import Standstill, Wish

from synnefo_light.units import MIB
from tests.guest_sockets import Qemu
from tests.real.snf_extstorage import lone_agent
from tests.real.snf_extstorage.machine import until
from tests.real.snf_extstorage.places import make_loop_nodes


@dataclass
class Guest:
    name: str
    sockets: Path
    folder: Path  # on its file system

    def writing(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["touch", self.folder / uuid4().hex])


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    if os.geteuid() != 0 or not Path(lone_agent.AGENT).exists() or shutil.which("mkfs.xfs") is None:
        pytest.skip("a frozen file system needs root, qemu-ga and mkfs.xfs")
    image, root = tmp_path / "guest.img", tmp_path / "root"
    root.mkdir()
    with open(image, "wb") as file:
        file.truncate(320 * MIB)
    subprocess.run(["mkfs.xfs", "-q", image], check=True, timeout=60)
    make_loop_nodes()
    qemu = Qemu(tmp_path, "real")
    with subprocess.Popen([sys.executable, lone_agent.__file__, root, image]) as process:
        there = Path(f"/proc/{process.pid}/root")
        try:
            until(lambda: (there / lone_agent.SOCKET[1:]).exists() or process.poll() is not None)
            assert process.poll() is None
            (tmp_path / "real.qga").symlink_to(there / lone_agent.SOCKET[1:])
            yield Guest(name="real", sockets=tmp_path, folder=there / "frozen")
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", there / "frozen"], check=False, capture_output=True)
            process.kill()
            qemu.close()


def test_what_the_agent_froze_is_written_after_the_cut_and_not_before(guest: Guest, tmp_path: Path) -> None:
    with guest.writing() as free:
        assert free.wait(30) == 0
    wish = Wish(instance=guest.name, stop=True, freeze=True)
    standstill = Standstill(wish, notes=tmp_path / "notes", sockets=guest.sockets)
    try:
        standstill.begin()
        assert (standstill.stood.frozen, standstill.stood.unfrozen) == (1, "")
        held = guest.writing()
        with pytest.raises(subprocess.TimeoutExpired):
            held.wait(0.5)
    finally:
        went = standstill.end()
    assert went.thawed == 1
    assert held.wait(30) == 0
