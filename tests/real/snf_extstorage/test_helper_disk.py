"""A disk that is only an address, on a real Ceph: written through a daemon, seen by a QEMU that has no network."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest
from snf_image_host import userspace
from snf_image_host.transfer import export_disk, import_disk, parse_transfer
from snf_image_host.userspace import open_address, parse_address
from snf_lab.ceph import Ceph

from synnefo_light.errors import EnvironmentFault
from tests.disk_images import check_filesystem, make_disk, read_back
from tests.real.snf_extstorage.rados_site import MIB, POOL, RadosSite
from tests.real.snf_image_host.node import fake_node, real_helper

SIZE = 16 * MIB


@pytest.fixture
def image(ceph: Ceph) -> str:
    name = f"disk-{uuid4()}"
    ceph.run(["rbd", "create", "--size", str(SIZE // MIB), f"{POOL}/{name}"])
    return name


def users(ceph: Ceph, image: str) -> str:
    return ceph.run(["rbd", "status", f"{POOL}/{image}"]).text


def daemons() -> list[str]:
    words = ["pgrep", "--full", "--list-full", "^qemu-storage-daemon"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()


def test_what_is_written_is_there_when_it_is_synced_and_nothing_is_left_running(rados: RadosSite, image: str) -> None:
    with open_address(parse_address(rados.qemu_uri(image)), size=SIZE) as disk:
        assert disk.size == SIZE
        disk.write(memoryview(b"A" * SIZE), 0)
        disk.zero(MIB + 1, 2 * MIB)
        disk.sync()
        assert "watcher=" in users(rados.ceph, image)
    wanted = bytearray(b"A" * SIZE)
    wanted[MIB + 1 : 2 * MIB] = bytes(MIB - 1)
    assert rados.read(image, count=SIZE + 1) == bytes(wanted)
    assert "watcher=" not in users(rados.ceph, image)
    assert daemons() == []
    with open_address(parse_address(rados.qemu_uri(image)), size=SIZE) as disk:
        disk.erase()
        disk.sync()
    assert rados.read(image, count=SIZE + 1) == bytes(SIZE)


def test_a_qemu_without_a_network_reads_and_writes_through_the_socket_alone(rados: RadosSite, image: str) -> None:
    with open_address(parse_address(rados.qemu_uri(image)), size=SIZE) as disk:
        disk.write(memoryview(b"A" * 4096), 0)
        fd = disk.connect()
        drive = f"driver=raw,file.driver=nbd,file.server.type=fd,file.server.str={fd},file.export=disk"
        commands = ["-c", "read -P 65 0 4096", "-c", "write -P 66 4096 4096", "-c", "flush"]
        words = ["unshare", "--net", "qemu-io", *commands, "--image-opts", drive]
        done = subprocess.run(words, pass_fds=[fd], capture_output=True, text=True, timeout=60, check=False)
        os.close(fd)
        assert (done.returncode, done.stdout.count("4096/4096"), done.stderr) == (0, 2, ""), done
        disk.sync()
    assert rados.read(image, count=8192) == b"A" * 4096 + b"B" * 4096


def test_without_its_socket_such_a_qemu_reaches_nothing(rados: RadosSite, image: str) -> None:
    """The control: the same QEMU with the address, the configuration and the key, but without a network."""
    words = ["timeout", "4", "unshare", "--net", "qemu-io", "-f", "raw", "-c", "read 0 4096", rados.qemu_uri(image)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "4096/4096" not in done.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("/disk-", "/none-"), "No such file or directory"),
        ((f"rbd:{POOL}/", "rbd:nopool/"), "No such file or directory"),
        ((":id=ganeti", ":id=nobody"), "cannot be opened: qemu-storage-daemon exited with 1"),
    ],
)
def test_a_disk_that_cannot_be_opened_is_named_with_the_reason(
    rados: RadosSite, image: str, change: tuple[str, str], words: str
) -> None:
    address = parse_address(rados.qemu_uri(image).replace(*change))
    with pytest.raises(EnvironmentFault, match=words), open_address(address, size=SIZE):
        pass
    assert daemons() == []


def test_a_disk_that_is_too_small_is_refused(rados: RadosSite, image: str) -> None:
    address = parse_address(rados.qemu_uri(image))
    with pytest.raises(EnvironmentFault, match="though Ganeti says"), open_address(address, size=SIZE + 1):
        pass


def test_a_ceph_that_does_not_answer_is_told_in_time(
    rados: RadosSite, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userspace, "START_S", 3)
    monkeypatch.setattr(userspace, "ANSWER_S", 3)
    address = parse_address(rados.qemu_uri(image))
    osd, mon = rados.ceph.pids()["osd.0"], rados.ceph.pids()["mon.a"]
    os.kill(mon, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(EnvironmentFault, match="did not answer within 3 s"), open_address(address, size=SIZE):
            pass
        assert time.monotonic() - began < 30
    finally:
        os.kill(mon, signal.SIGCONT)
    with open_address(address, size=SIZE) as disk:
        os.kill(osd, signal.SIGSTOP)
        try:
            with pytest.raises(EnvironmentFault, match="did not answer within 3 s"):
                disk.write(memoryview(b"A" * 4096), 0)
                disk.sync()
        finally:
            os.kill(osd, signal.SIGCONT)
    assert daemons() == []


@pytest.mark.vm
def test_such_a_disk_is_exported_and_imported(rados: RadosSite, image: str, tmp_path: Path) -> None:
    """By the variables that Ganeti passes when a disk has no path."""
    wanted = os.urandom(MIB) + bytes(SIZE - 2 * MIB) + os.urandom(MIB)
    (tmp_path / "dump").write_bytes(wanted)
    env = {"IMPORT_DISK_URI": rados.qemu_uri(image), "IMPORT_INDEX": "0"}
    with open(tmp_path / "dump", "rb") as dump:
        import_disk(parse_transfer(env, prefix="IMPORT"), source=dump.fileno())
    assert rados.read(image, count=SIZE) == wanted
    env = {"EXPORT_DISK_URI": rados.qemu_uri(image), "EXPORT_INDEX": "0"}
    with open(tmp_path / "back", "wb") as back:
        assert export_disk(parse_transfer(env, prefix="EXPORT"), out=back.fileno()) == SIZE
    assert (tmp_path / "back").read_bytes() == wanted
    assert "watcher=" not in users(rados.ceph, image)


def test_an_instance_is_deployed_onto_a_disk_that_is_only_an_address(rados: RadosSite, tmp_path: Path) -> None:
    helper = real_helper()
    if helper is None:
        pytest.skip("the helper VM's image is not built; SNF_HELPER_IMAGE names the folder of one")
    name, size = f"disk-{uuid4()}", 96 * MIB
    rados.ceph.run(["rbd", "create", "--size", str(size // MIB), f"{POOL}/{name}"])
    with fake_node(helper=helper) as node:
        make_disk(node.images / "small.raw")
        env = node.environment("create", node.disk(size // MIB), img_passwd="correct horse")
        del env["DISK_0_PATH"]
        env["DISK_0_URI"] = rados.qemu_uri(name)
        process = node.start("create", env)
        out, _ = process.communicate(timeout=200)
        assert process.returncode == 0, out.decode() + node.log()
        assert node.alive() == []
    disk = tmp_path / "exported"
    disk.write_bytes(rados.read(name, count=size))
    check_filesystem(disk)
    assert read_back(disk, "/etc/hostname") == b"web1\n"
    assert "watcher=" not in users(rados.ceph, name)
