"""Deployments with QEMU and the helper VM's real image, on disks that are files; read back with e2fsprogs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from snf_image_host.journal import Finished

from tests.disk_images import check_filesystem, filesystem_blocks, make_disk, read_back, stat_back
from tests.real.snf_image_host.node import Fake

MIB = 1 << 20
pytestmark = pytest.mark.vm


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_an_image_is_deployed_over_an_old_disk(real_node: Fake, table: str) -> None:
    node = real_node
    make_disk(node.images / "small.raw", table=table)  # type: ignore[arg-type]
    disk = node.disk(96, pattern=b"former tenant! ")
    done = node.create(
        disk,
        img_passwd="correct horse",
        auth_keys="ssh-ed25519 AAAATEST me",
        img_personality='[{"path": "/etc/motd", "contents": "aGk=", "owner": "user", "group": "adm", "mode": 416}]',
    )
    assert done.returncode == 0, done.output + node.log()
    check_filesystem(disk)
    blocks, size = filesystem_blocks(disk)
    assert 90 * MIB < blocks * size <= 95 * MIB
    assert read_back(disk, "/etc/hostname") == b"web1\n"
    assert b"AAAATEST" in read_back(disk, "/root/.ssh/authorized_keys")
    assert "Mode:  0640" in stat_back(disk, "/etc/motd")
    assert subprocess.run(["grep", "-c", "former tenant", str(disk)], capture_output=True, check=False).stdout == b"0\n"
    last = node.records()[-1]
    assert isinstance(last, Finished)
    assert last.host_peak_rss <= 64 * MIB and last.helper_peak_rss <= (256 + 96) * MIB
    assert node.alive() == []


def test_an_image_that_is_none_is_refused_and_wiped(real_node: Fake) -> None:
    node = real_node
    (node.images / "small.raw").write_bytes(os.urandom(8 * MIB))
    disk = node.disk(16)
    done = node.create(disk)
    assert done.returncode == 4 and "no partition of the image was recognised" in done.sentence, done.output
    with open(disk, "rb") as file:
        assert file.read(MIB) == bytes(MIB)
    assert "Traceback" not in done.output


def test_a_renamed_instance_has_the_new_name_and_nothing_else_changed(real_node: Fake) -> None:
    node = real_node
    disk = make_disk(node.folder / "disk")
    done = node.call("rename", disk, instance="web9", OLD_INSTANCE_NAME="web1")
    assert done.returncode == 0, done.output
    assert read_back(disk, "/etc/hostname") == b"web9\n"
    assert b"OLD HOST KEY" in read_back(disk, "/etc/ssh/ssh_host_ed25519_key")
    check_filesystem(disk)


def test_a_rename_that_fails_leaves_the_disk(real_node: Fake) -> None:
    node = real_node
    disk = node.folder / "disk"
    disk.write_bytes(os.urandom(8 * MIB))
    before = disk.read_bytes()
    done = node.call("rename", disk, instance="web9", OLD_INSTANCE_NAME="web1")
    assert done.returncode == 4 and "web1 is renamed to web9 in Ganeti, but" in done.sentence, done.output
    assert disk.read_bytes() == before


def test_kill_9_of_create_ends_the_vm_at_once(real_node: Fake) -> None:
    node = real_node
    make_disk(node.images / "small.raw")
    process = node.start("create", node.environment("create", node.disk(96)))
    deadline = time.monotonic() + 20
    while not any("qemu-system" in line for line in node.alive()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=10)
    node.wait_dead(2)


def test_accel_is_one_json_line_and_is_remembered(real_node: Fake) -> None:
    node = real_node
    node.configure(qemu=None, accel="auto", user=None)
    first = node.command("accel")
    assert first.returncode == 0, first
    choice = json.loads(first.stdout)
    assert set(choice) == {"accel", "reason"} and choice["accel"] in ("kvm", "tcg")
    begun = time.monotonic()
    assert json.loads(node.command("accel").stdout) == choice
    assert time.monotonic() - begun < 2
    if not Path("/dev/kvm").exists():
        assert choice == {"accel": "tcg", "reason": "there is no /dev/kvm"}


def test_the_versions_of_both_halves_are_told(real_node: Fake) -> None:
    shown = real_node.command("version")
    assert shown.returncode == 0 and shown.stdout.splitlines()[1].startswith("helper ")
