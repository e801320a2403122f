"""The whole helper in its VM on real disks; what it did is read back by debugfs, dumpe2fs, sgdisk and ssh-keygen."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from synnefo_light import __version__
from synnefo_light.manifest import Hello
from tests import disk_images
from tests.disk_images import File, Link, Table, Tree, make_disk, read_back, stat_back
from tests.real.snf_image_helper import virtual_machine
from tests.task_list import NAMES

pytestmark = pytest.mark.vm
MIB = 1 << 20
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK admin"
ASKED: dict[str, object] = {
    "hostname": "web1.example.org",
    "passwords": [{"user": "root", "clear": "correct horse"}, {"user": "user", "hashed": "$6$salt$hash"}],
    "authorized_keys": KEY,
    "users": ["root", "user"],
    "nics": [{"mac": "aa:00:00:00:00:01", "ipv4": "static", "ipv4_address": "10.0.0.5/24", "ipv4_gateway": "10.0.0.1"}],
    "files": [
        {
            "path": "/etc/injected/motd",
            "contents": base64.b64encode(b"hello\n").decode(),
            "owner": "user",
            "group": "adm",
            "mode": 0o640,
        }
    ],
}
FIRST = {"gpt": 1, "mbr": 1, "logical": 2, "none": 0}


def disk_of(folder: Path, table: Table = "gpt", *, mib: int = 192, tree: Tree | None = None) -> Path:
    disk = make_disk(folder / "disk", table=table, tree=tree)
    with open(disk, "r+b") as file:
        file.truncate(mib * MIB)
    return disk


def blocks_mib(disk: Path, first: int) -> float:
    count, size = disk_images.filesystem_blocks(disk, first_mib=first)
    return count * size / MIB


@pytest.mark.parametrize(
    ("table", "deploy"),
    [("gpt", virtual_machine.boot), *((table, virtual_machine.run) for table in FIRST)],
    ids=["gpt-booted", *FIRST],
)
def test_an_image_becomes_the_instance_that_was_asked_for(
    tmp_path: Path, table: Table, deploy: Callable[..., virtual_machine.Outcome]
) -> None:
    """In a VM that was booted for it and in one that stands ready: what holds for one holds for the other."""
    first = FIRST[table]
    disk = disk_of(tmp_path, table)
    before = blocks_mib(disk, first)
    outcome = deploy(disk, asked=ASKED)
    assert outcome.finished, outcome.console
    assert outcome.messages[0] == Hello(helper_version=__version__, mode="run")
    assert set(outcome.done) | set(outcome.skipped) == set(NAMES)
    due = {"filesystem_check_grow", "mount", "hostname", "machine_id", "ssh_host_keys", "password", "network", "umount"}
    assert due <= set(outcome.done)
    assert ("partition_table" in outcome.skipped) is (table == "none")

    disk_images.check_filesystem(disk, first_mib=first)
    assert before == 48 and blocks_mib(disk, first) >= 192 - first - 1

    def content(name: str) -> str:
        return read_back(disk, name, first_mib=first).decode()

    assert content("/etc/hostname") == "web1.example.org\n"
    assert "127.0.1.1\tweb1.example.org web1\n" in content("/etc/hosts")
    assert "Size: 0" in stat_back(disk, "/etc/machine-id", first_mib=first)
    assert 'Fast link dest: "/etc/machine-id"' in stat_back(disk, "/var/lib/dbus/machine-id", first_mib=first)
    assert "auto mac/aa:00:00:00:00:01=nic0\niface nic0 inet static\n    address 10.0.0.5/24" in content(
        "/etc/network/interfaces"
    )
    for name, owner in (("/root", 0), ("/home/user", 1000)):
        assert content(f"{name}/.ssh/authorized_keys") == f"{KEY}\n"
        _is(disk, f"{name}/.ssh", first, mode="0700", user=owner, group=owner)
        _is(disk, f"{name}/.ssh/authorized_keys", first, mode="0600", user=owner, group=owner)
    assert content("/etc/injected/motd") == "hello\n"
    _is(disk, "/etc/injected/motd", first, mode="0640", user=1000, group=4)
    _is(disk, "/etc/injected", first, mode="0755", user=0, group=0)
    _passwords_are_set(content("/etc/shadow"))
    _is(disk, "/etc/shadow", first, mode="0640", user=0, group=42)
    _host_key_is_new(disk, first, tmp_path)


def _is(disk: Path, name: str, first: int, *, mode: str, user: int, group: int) -> None:
    shown = stat_back(disk, name, first_mib=first)
    found = re.search(r"Mode:\s+0?(\d+).*?User:\s+(\d+)\s+Group:\s+(\d+)", shown, re.S)
    assert found is not None, shown
    assert (found[1].lstrip("0"), int(found[2]), int(found[3])) == (mode.lstrip("0"), user, group)


def _passwords_are_set(shadow: str) -> None:
    lines = {line.split(":")[0]: line.split(":") for line in shadow.splitlines()}
    assert lines["user"] == ["user", "$6$salt$hash", lines["user"][2], "1", "90", "7", "", "", ""]
    assert lines["daemon"][1:3] == ["*", "19000"]
    _, method, salt, _ = lines["root"][1].split("$")
    assert method == "6"
    made = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", salt, "correct horse"], capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == lines["root"][1]
    days = int(subprocess.run(["date", "+%s"], capture_output=True, check=True).stdout) // 86400
    assert abs(int(lines["root"][2]) - days) <= 1


def _host_key_is_new(disk: Path, first: int, folder: Path) -> None:
    key = folder / "key"
    key.write_bytes(read_back(disk, "/etc/ssh/ssh_host_ed25519_key", first_mib=first))
    key.chmod(0o600)
    shown = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout
    public = read_back(disk, "/etc/ssh/ssh_host_ed25519_key.pub", first_mib=first).decode()
    assert shown.split()[:2] == public.split()[:2]
    assert public.split()[2] == "root@web1.example.org"


def test_a_second_run_changes_nothing_that_the_first_did(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    asked = {
        **ASKED,
        "passwords": [{"user": "root", "hashed": "$6$salt$hash"}],
        "swap": {"partition": 2, "size_mib": 16},
    }
    assert virtual_machine.run(disk, asked=asked).finished
    names = ["/etc/hostname", "/etc/hosts", "/etc/shadow", "/etc/fstab", "/etc/network/interfaces"]
    names += ["/etc/network/interfaces.before-snf-image", "/root/.ssh/authorized_keys", "/etc/injected/motd"]
    table, before = disk.read_bytes()[: 34 * 512], {name: read_back(disk, name) for name in names}
    assert all(before.values())
    outcome = virtual_machine.run(disk, asked=asked)
    assert outcome.finished, outcome.console
    assert "write" not in "".join(line for line in outcome.console.splitlines() if "task=partition_table" in line)
    assert disk.read_bytes()[: 34 * 512] == table
    assert {name: read_back(disk, name) for name in names} == before
    disk_images.check_filesystem(disk)


@pytest.mark.parametrize(("table", "number"), [("gpt", 2), ("mbr", 5), ("logical", 6)])
def test_swap_is_made_and_named_in_fstab(tmp_path: Path, table: Table, number: int) -> None:
    disk = disk_of(tmp_path, table)
    outcome = virtual_machine.run(disk, asked={"swap": {"partition": number, "size_mib": 16}})
    assert outcome.finished, outcome.console
    fstab = read_back(disk, "/etc/fstab", first_mib=FIRST[table]).decode()
    end = 191 if table == "gpt" else 192
    shown = subprocess.run(
        ["blkid", "-p", "-O", str((end - 16) * MIB), "-o", "export", disk], capture_output=True, text=True, check=True
    ).stdout
    assert "TYPE=swap" in shown
    (identity,) = re.findall(r"^UUID=(\S+)$", shown, re.M)
    assert f"UUID={identity} none swap sw 0 0\n" in fstab
    disk_images.check_filesystem(disk, first_mib=FIRST[table])


def test_swap_on_a_second_disk(tmp_path: Path) -> None:
    disk, second = disk_of(tmp_path), tmp_path / "second"
    with open(second, "wb") as file:
        file.truncate(32 * MIB)
    outcome = virtual_machine.run(disk, second, asked={"swap": {"disk": 1}})
    assert outcome.finished, outcome.console
    assert (
        "TYPE=swap"
        in subprocess.run(["blkid", "-p", "-o", "export", second], capture_output=True, text=True, check=True).stdout
    )


def test_what_is_excluded_is_not_done(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    outcome = virtual_machine.run(disk, asked={**ASKED, "skip": ["hostname", "partition_table"]})
    assert outcome.finished, outcome.console
    assert {"hostname", "partition_table"} <= set(outcome.skipped) and "machine_id" in outcome.done
    assert read_back(disk, "/etc/hostname") == b"image\n"
    assert blocks_mib(disk, 1) == 48


def test_without_mount_no_file_is_touched(tmp_path: Path) -> None:
    outcome = virtual_machine.run(disk_of(tmp_path), asked={**ASKED, "skip": ["mount"]})
    assert outcome.finished, outcome.console
    assert outcome.skipped["hostname"] == "the image is not mounted"
    assert outcome.done == ["partition_table", "filesystem_check_grow", "umount"]
    assert outcome.skipped["mount_others"] == "the image is not mounted"


@pytest.mark.parametrize(
    ("tree", "fields", "task", "reason"),
    [
        ({}, {"passwords": [{"user": "stranger", "clear": "x"}]}, "password", "user stranger is not in the image's"),
        (
            {"etc/shadow": Link(target="/dev/vda")},
            {"passwords": [{"user": "root", "clear": "x"}]},
            "password",
            "shadow",
        ),
        ({"etc/fstab": File(content="#" * (2 << 20))}, {}, "mount_others", "/etc/fstab of the image has over"),
        ({}, {"root_partition": 7}, None, "ROOT_PARTITION is 7, but the image has the partitions 1"),
        ({}, {"helper_version": "9.9"}, None, "the host speaks to helper 9.9"),
        ({}, {"os_family": "windows"}, None, "family windows"),
    ],
)
def test_a_failure_names_the_task_and_the_reason(
    tmp_path: Path, tree: Tree, fields: dict[str, object], task: str | None, reason: str
) -> None:
    disk = disk_of(tmp_path, tree=tree)
    outcome = virtual_machine.run(disk, asked=fields)
    assert not outcome.finished
    assert outcome.failed is not None, outcome.console
    assert outcome.failed.task == task and reason in outcome.failed.reason
    assert outcome.failed.changed is (task is not None)
    disk_images.check_filesystem(disk)  # unmounted, not torn off


@pytest.mark.parametrize("flaw", ["no-table", "half-gpt", "no-manifest"])
def test_a_disk_that_is_not_an_image_fails_with_a_sentence_and_stays_as_it_was(tmp_path: Path, flaw: str) -> None:
    disk = disk_of(tmp_path)
    with open(disk, "r+b") as file:
        if flaw == "no-table":
            file.write(bytes(8 * MIB))
        elif flaw == "half-gpt":
            file.seek(512)
            file.write(b"\xff" * 512)
    before = disk.read_bytes()
    raw = b"\xff" * 512 if flaw == "no-manifest" else None
    outcome = virtual_machine.boot(disk, raw_manifest=raw)
    assert outcome.failed is not None and not outcome.failed.changed
    assert outcome.failed.reason
    assert disk.read_bytes() == before


def test_a_dirty_journal_is_replayed_before_anything_else(tmp_path: Path) -> None:
    """An image taken of a running machine: e2fsck mends what it may, and the deployment goes on."""
    disk = disk_of(tmp_path)
    offset = f"{disk}?offset={MIB}"
    subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", offset], check=True, capture_output=True)
    outcome = virtual_machine.run(disk)
    assert outcome.finished, outcome.console
    disk_images.check_filesystem(disk)


def test_of_two_linux_partitions_the_one_with_a_system_is_the_root(tmp_path: Path) -> None:
    disk = disk_of(tmp_path, mib=192)
    subprocess.run(
        ["sfdisk", "-q", "--append", disk], input="start=100MiB, size=16MiB, type=linux\n", text=True, check=True
    )
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-E", f"offset={100 * MIB}", disk, "16M"], check=True, capture_output=True
    )
    outcome = virtual_machine.run(disk)
    assert outcome.finished, outcome.console
    assert read_back(disk, "/etc/hostname") == b"web1\n"
    assert outcome.warnings == ["partition 1 (root) was not grown, because partition 2 is behind it"]


def test_a_selftest_says_hello_and_nothing_else_without_a_disk_or_a_manifest() -> None:
    outcome = virtual_machine.boot(raw_manifest=bytes(512), mode="selftest")
    assert outcome.messages == (Hello(helper_version=__version__, mode="selftest"),)
    assert outcome.in_order and virtual_machine.uptime(outcome.console) > 0
