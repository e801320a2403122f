"""One deployment for each distribution: its fixture on the file system it uses, read back without the kernel.

The trees are those of tests/guests: real layouts, empty programs. What boots for real is in the lab.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.disk_images import Entry, File, Folder
from tests.disk_images import Link as DiskLink
from tests.filesystem_images import Kind, check_clean, cut_out, make_filesystem, read_file
from tests.guests.trees import GUESTS, LinkTo, Tree
from tests.layouts import Part, lay_out
from tests.real.snf_image_helper import virtual_machine

pytestmark = pytest.mark.vm
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK admin"
ASKED: Mapping[str, object] = {
    "hostname": "web1.example.org",
    "passwords": [{"user": "root", "clear": "correct horse"}],
    "authorized_keys": KEY,
    "nics": [
        {
            "mac": "aa:00:00:00:00:01",
            "ipv4": "static",
            "ipv4_address": "10.0.0.5/24",
            "ipv4_gateway": "10.0.0.1",
            "nameservers": ["10.0.0.2"],
        }
    ],
}
FILE_SYSTEMS: Mapping[str, Kind] = {
    **dict.fromkeys(GUESTS, "ext4"),
    "fedora-41": "btrfs",
    "rhel-8": "xfs",
    "rhel-9": "xfs",
    "opensuse-15.6": "btrfs",
}
#: Where the address must stand, and no file with the image's own cards.
NETWORK: Mapping[str, tuple[str, str]] = {
    "debian-12": ("/etc/network/interfaces", "auto mac/aa:00:00:00:00:01=nic0"),
    "ubuntu-24.04": ("/etc/netplan/90-snf-image.yaml", '- "10.0.0.5/24"'),
    "fedora-41": ("/etc/NetworkManager/system-connections/snf-image-0.nmconnection", "address1=10.0.0.5/24"),
    "rhel-8": ("/etc/sysconfig/network-scripts/ifcfg-nic0", "IPADDR=10.0.0.5"),
    "rhel-9": ("/etc/NetworkManager/system-connections/snf-image-0.nmconnection", "address1=10.0.0.5/24"),
    "rhel-10": ("/etc/NetworkManager/system-connections/snf-image-0.nmconnection", "address1=10.0.0.5/24"),
    "opensuse-15.6": ("/etc/sysconfig/network/ifcfg-nic0", "IPADDR_0='10.0.0.5/24'"),
    "opensuse-16": ("/etc/NetworkManager/system-connections/snf-image-0.nmconnection", "address1=10.0.0.5/24"),
    "arch": ("/etc/systemd/network/0-snf-image-0.network", "Address=10.0.0.5/24"),
    "alpine-3.20": ("/etc/network/interfaces", "nameif $IFACE aa:00:00:00:00:01"),
    "gentoo": ("/etc/conf.d/net", 'config_nic0="10.0.0.5/24"'),
}
GONE: Mapping[str, str] = {
    "ubuntu-24.04": "/etc/netplan/50-cloud-init.yaml",
    "rhel-8": "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "rhel-9": "/etc/NetworkManager/system-connections/eth0.nmconnection",
    "opensuse-15.6": "/etc/sysconfig/network/ifcfg-eth0",
}
#: The kernel resizes no btrfs to less than 256 MiB.
MIB = {"xfs": 300, "btrfs": 256, "ext4": 48}


class Guest:
    """A fixture on a disk of one partition with room behind it."""

    def __init__(self, folder: Path, name: str, *, tree: Tree | None = None) -> None:
        self.kind = FILE_SYSTEMS[name]
        self.disk, self._folder = folder / "disk", folder
        entries: dict[str, Entry] = {path: _entry(path, what) for path, what in (tree or GUESTS[name]).items()}
        root = make_filesystem(folder / "root", self.kind, mib=MIB[self.kind], tree=entries)
        size = MIB[self.kind]
        lay_out(self.disk, (Part(mib=size, filesystem=root),), disk_mib=size + 100)

    def read(self, path: str) -> str:
        root = cut_out(self.disk, self._folder / "after", first_mib=1, mib=MIB[self.kind] + 98)
        return read_file(root, path, self.kind).decode()

    def check(self) -> None:
        check_clean(cut_out(self.disk, self._folder / "after", first_mib=1, mib=MIB[self.kind] + 98), self.kind)


def _mode(path: str) -> int:
    return 0o755 if path.startswith("bin/") else 0o600 if path == "etc/shadow" else 0o644


def _entry(path: str, what: str | bytes | LinkTo | None) -> Entry:
    if what is None:
        return Folder()
    if isinstance(what, LinkTo):
        return DiskLink(target=what.target)
    return File(content=what, mode=_mode(path))


@pytest.mark.parametrize("name", GUESTS)
def test_a_distribution_is_deployed_in_its_own_words(tmp_path: Path, name: str) -> None:
    guest = Guest(tmp_path, name)
    outcome = virtual_machine.run(guest.disk, asked=ASKED)
    assert outcome.finished, outcome.console
    guest.check()
    assert guest.read("/etc/hostname") == "web1.example.org\n"
    assert guest.read("/etc/shadow").startswith("root:$6$")
    assert guest.read("/root/.ssh/authorized_keys") == f"{KEY}\n"
    path, words = NETWORK[name]
    assert words in guest.read(path)
    assert (guest.read(GONE[name]) == "") if name in GONE else True
    assert ("selinux" in outcome.done) is ("etc/selinux/config" in GUESTS[name])
    assert "cloud_init" in outcome.skipped and "custom_task" in outcome.skipped


def test_cloud_init_is_seeded_and_the_system_left_to_it(tmp_path: Path) -> None:
    guest = Guest(tmp_path, "ubuntu-24.04")
    userdata = base64.b64encode(b"#!/bin/sh\necho mine\n").decode()
    outcome = virtual_machine.run(guest.disk, asked={**ASKED, "cloud_init": {"userdata": userdata}})
    assert outcome.finished, outcome.console
    guest.check()
    seed = "/var/lib/cloud/seed/nocloud"
    assert '"local-hostname": "web1.example.org"' in guest.read(f"{seed}/meta-data")
    assert guest.read(f"{seed}/user-data") == "#!/bin/sh\necho mine\n"
    assert '"password": "$6$' in guest.read(f"{seed}/vendor-data")
    assert "correct horse" not in guest.read(f"{seed}/vendor-data")
    assert 'macaddress: "aa:00:00:00:00:01"' in guest.read(f"{seed}/network-config")
    assert guest.read("/etc/hostname") == "localhost\n"
    assert guest.read("/etc/netplan/50-cloud-init.yaml") == "network: {version: 2}\n"
    assert {"hostname", "network", "password", "ssh_host_keys"} <= set(outcome.skipped)


@pytest.mark.parametrize("name", ["debian-12", "rhel-9", "opensuse-15.6"])
def test_a_swap_file_has_no_holes_and_is_swap(tmp_path: Path, name: str) -> None:
    guest = Guest(tmp_path, name)
    outcome = virtual_machine.run(guest.disk, asked={"swap": {"file_mib": 16}})
    assert outcome.finished, outcome.console
    guest.check()
    assert "/swapfile none swap sw 0 0\n" in guest.read("/etc/fstab")
    root = cut_out(guest.disk, tmp_path / "after", first_mib=1, mib=MIB[guest.kind] + 98)
    content = read_file(root, "/swapfile", guest.kind)
    assert len(content) == 16 << 20 and content[4086:4096] == b"SWAPSPACE2"


BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox")


@pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox-static is not installed")
def test_a_custom_task_runs_the_images_programs_and_reaches_nothing_else(tmp_path: Path) -> None:
    script = b"""\
set -e
echo "$SNF_IMAGE_HOSTNAME" > $SNF_IMAGE_TARGET/etc/by-custom-task
! mknod /etc/line c 4 65
! mount -t tmpfs x /tmp
! echo b > /proc/sysrq-trigger
ls /dev > /etc/devices
echo said
"""
    tree: Tree = {
        **GUESTS["debian-12"],
        **dict.fromkeys(("dev", "proc", "run"), None),
        "bin/busybox": BUSYBOX.read_bytes(),
        **{f"bin/{name}": LinkTo("busybox") for name in ("sh", "mknod", "mount", "ls")},
    }
    guest = Guest(tmp_path, "debian-12", tree=tree)
    outcome = virtual_machine.boot(guest.disk, asked={**ASKED, "custom_task": base64.b64encode(script).decode()})
    assert outcome.finished, outcome.console
    assert guest.read("/etc/by-custom-task") == "web1.example.org\n"
    assert guest.read("/etc/devices").split() == [
        *("fd", "full", "null", "random", "stderr", "stdin", "stdout", "urandom", "zero")
    ]
    assert guest.read("/etc/line") == ""
    assert "custom task: said" in outcome.console


def test_a_custom_task_that_fails_fails_the_deployment_in_its_words(tmp_path: Path) -> None:
    guest = Guest(tmp_path, "debian-12")
    outcome = virtual_machine.run(guest.disk, asked={"custom_task": base64.b64encode(b"#!/no/program\n").decode()})
    assert outcome.failed is not None and outcome.failed.task == "custom_task"
    assert "the custom task exited with 126" in outcome.failed.reason
