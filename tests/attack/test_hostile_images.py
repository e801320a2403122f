"""Images made to lead the deployment out of themselves (threats A7, A8, A9).

Each is deployed by the real helper in its VM, and some of them through the real create script, then the disk is read
back with debugfs. Positive control: test_rootfs_attacks.py of the helper room shows that a plain open() follows every
one of these links.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployments import MAC, Outcome, call, images, new_disk
from tests.disk_images import Device, Fifo, File, Folder, Link, Tree, list_back, make_disk, read_back, stat_back
from tests.real.snf_image_helper import virtual_machine

PARAMETERS = {
    "img_format": "diskdump",
    "img_passwd": "correct horse",
    "auth_keys": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK test",
    "img_personality": '[{"path": "/etc/injected/motd", "contents": "aGVsbG8K", "mode": 416}]',
}
#: A node of its own may be configured for these tests; otherwise it is the installed one.
CONFIGURATION = {key: os.environ[key] for key in ("SNF_IMAGE_CONFIG",) if key in os.environ}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    instance: str
    disk: Path
    outcome: Outcome


class Deploy:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, tree: Tree, **parameters: str) -> Deployed:
        name = f"attack-{uuid.uuid4().hex[:8]}.raw"
        image = make_disk(self.folder / name, tree=tree)
        shutil.copy(image, images() / name)
        disk = new_disk(self.folder / f"{name}.disk", size_mib=96)
        instance = name.removesuffix(".raw")
        try:
            outcome = call(
                "create",
                instance=instance,
                disk=disk,
                parameters={**PARAMETERS, "img_id": name, **parameters},
                NIC_0_IP="10.0.0.5",
                **CONFIGURATION,
            )
        finally:
            (images() / name).unlink()
        return Deployed(instance=instance, disk=disk, outcome=outcome)


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    yield Deploy(tmp_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """What a task writes, replaced by something that leads elsewhere; and what must come of it.

    `refused`: how the sentence goes on behind "the task "; None when the deployment succeeds *inside the image*.
    `kept`: of a success, files and what they must still hold.
    """

    tree: Tree
    refused: str | None = None
    kept: tuple[tuple[str, bytes], ...] = ()


TRAPS = {
    "hostname-absolute": Trap(tree={"etc/hostname": Link(target="/dev/ttyS1")}),
    "hostname-host-looking": Trap(tree={"etc/hostname": Link(target="/run/snf-image-escape")}),
    "hostname-dotdot": Trap(tree={"etc/hostname": Link(target="../../../../../../../../tmp/escape")}),
    "hostname-proc-magic": Trap(tree={"etc/hostname": Link(target="/proc/self/root/tmp/escape")}),
    "hostname-fifo": Trap(
        tree={"etc/hostname": Fifo()}, refused="hostname failed: /etc/hostname of the image is a fifo"
    ),
    "hostname-device": Trap(
        tree={"etc/hostname": Device(kind="b", major=254, minor=0)},
        refused="hostname failed: /etc/hostname of the image is a block device",
    ),
    "hostname-folder": Trap(
        tree={"etc/hostname": Folder()}, refused="hostname failed: /etc/hostname of the image is a folder"
    ),
    "hostname-loop": Trap(
        tree={"etc/hostname": Link(target="hostname")},
        refused="hostname failed: /etc/hostname of the image is a chain of links without an end",
    ),
    "passwd-absolute": Trap(
        tree={"etc/passwd": Link(target="/dev/zero")},
        refused="password failed: user root is not in the image's /etc/passwd, which has none",
    ),
    "passwd-fifo": Trap(tree={"etc/passwd": Fifo()}, refused="password failed: /etc/passwd of the image is a fifo"),
    "shadow-device": Trap(
        tree={"etc/shadow": Device(kind="c", major=1, minor=5)},
        refused="password failed: /etc/shadow of the image is a character device",
    ),
    "shadow-absolute": Trap(
        tree={"etc/shadow": Link(target="/run/escape")},
        refused="password failed: the image has no /etc/shadow",
    ),
    "etc-ssh-absolute": Trap(
        tree={
            "usr/sbin/sshd": File(mode=0o755),
            "etc/ssh": Link(target="/run"),
            "etc/ssh/sshd_config": None,
            "etc/ssh/ssh_host_ed25519_key": None,
            "etc/ssh/ssh_host_ed25519_key.pub": None,
        },
        refused="ssh_host_keys failed: /etc/ssh/ssh_host_ed25519_key of the image leads to /run",
    ),
    "root-ssh-absolute": Trap(
        tree={"root/.ssh": Link(target="/tmp")},
        refused="password failed: /root/.ssh/authorized_keys of the image leads to /tmp",
    ),
    "root-ssh-dotdot": Trap(
        tree={"root/.ssh": Link(target="../../../../run")},
        refused="password failed: /root/.ssh/authorized_keys of the image leads to /run",
    ),
    "authorized-keys-device": Trap(
        tree={"root/.ssh": Folder(), "root/.ssh/authorized_keys": Device(kind="c", major=4, minor=65)},
        refused="password failed: /root/.ssh/authorized_keys of the image is a character device",
    ),
    "personality-parent": Trap(
        tree={"etc/injected": Link(target="/dev")},
        refused="personality failed: /etc/injected/motd of the image leads to /dev",
    ),
    "personality-fifo": Trap(
        tree={"etc/injected": Folder(), "etc/injected/motd": Fifo()},
        refused="personality failed: /etc/injected/motd of the image is a fifo",
    ),
    "machine-id-device": Trap(
        tree={"etc/machine-id": Device(kind="c", major=1, minor=3)},
        refused="machine_id failed: /etc/machine-id of the image is a character device",
    ),
    "interfaces-absolute": Trap(tree={"etc/network/interfaces": Link(target="/sys/escape")}),
    "interfaces-folder": Trap(tree={"etc/network/interfaces.d": Link(target="/sys")}),
    "shadow-huge-line": Trap(
        tree={"etc/shadow": File(content="root:" + "A" * 3_000_000 + ":1:2:3:4:::\n")},
        refused="password failed: /etc/shadow of the image has over 1048576 bytes",
    ),
    "passwd-binary": Trap(
        tree={"etc/passwd": File(content=bytes(range(256)) * 64)},
        refused="password failed: user root is not in the image's /etc/passwd",
    ),
    "hosts-odd-bytes": Trap(
        tree={"etc/hosts": File(content=b"127.0.1.1\t\xff\xfe\x00\n10.0.0.1\t\xff\xfe\x00\n")},
        kept=(("/etc/hosts", b"10.0.0.1\t\xff\xfe\x00\n"),),
    ),
    "os-release-shell": Trap(
        tree={"etc/os-release": File(content='ID="$(touch /run/escape)"\nVERSION_ID=`reboot`\n')},
        kept=(("/etc/os-release", b'ID="$(touch /run/escape)"\nVERSION_ID=`reboot`\n'),),
    ),
}
#: Through the script too, where the host tells of what the VM did: a success, a link, a device, a fifo, and too many
#: bytes. The others are for `./lab test long`, as what differs between them is in the VM.
SHORT = ("hostname-proc-magic", "root-ssh-dotdot", "authorized-keys-device", "passwd-fifo", "shadow-huge-line")
#: What the host makes of PARAMETERS.
ASKED = {
    "passwords": [{"user": "root", "clear": PARAMETERS["img_passwd"]}],
    "authorized_keys": PARAMETERS["auth_keys"],
    "users": ["root"],
    "nics": [{"mac": MAC, "ipv4": "static", "ipv4_address": "10.0.0.5/24"}],
    "files": [{"path": "/etc/injected/motd", "contents": "aGVsbG8K", "mode": 0o640}],
}
#: Where a link could lead that the booted system, or the helper VM, has something else.
ELSEWHERE = ("/dev", "/proc", "/run", "/sys", "/tmp")


def assert_all_is_inside(disk: Path, instance: str) -> None:
    """Whatever the tasks write stands in the image as a regular file at its own path, and nothing anywhere else."""
    name = instance.encode()
    for path, mode, content in (
        ("/etc/hostname", "0644", name + rb"\n"),
        ("/etc/hosts", "0644", rb"(?s).*127\.0\.1\.1\t" + name + rb"\n.*"),
        ("/etc/machine-id", "0444", rb""),
        ("/etc/shadow", "0640", rb"root:\$[^:*!]+:[0-9]+:0:99999:7:::\ndaemon:\*:(?s:.*)"),
        ("/root/.ssh/authorized_keys", "0600", re.escape(PARAMETERS["auth_keys"].encode()) + rb"\n"),
        ("/etc/ssh/ssh_host_ed25519_key", "0600", rb"-----BEGIN OPENSSH PRIVATE KEY-----\n(?s:.*)"),
        ("/etc/network/interfaces", "0644", rb"(?s).*" + MAC.encode() + rb".*"),
        ("/etc/injected/motd", "0640", rb"hello\n"),
    ):
        described = " ".join(stat_back(disk, path).split())
        assert f"Type: regular Mode: {mode} " in described, f"{path}: {described}"
        assert re.fullmatch(content, read_back(disk, path)), f"{path}: {read_back(disk, path)[:200]!r}"
    assert {folder: list_back(disk, folder) for folder in ELSEWHERE} == {folder: [] for folder in ELSEWHERE}


@pytest.mark.vm
def test_the_same_tree_without_a_trap_is_deployed(deploy: Deploy) -> None:
    """The control: nothing else about these images stops a deployment."""
    done = deploy({})
    assert done.outcome.returncode == 0, done.outcome.output
    assert_all_is_inside(done.disk, done.instance)


@pytest.mark.vm
@pytest.mark.parametrize("name", TRAPS)
def test_no_trap_leads_out_of_the_image(tmp_path: Path, name: str) -> None:
    """Either the helper succeeds inside the image, or it fails with a sentence that names the task. Nothing is left in
    the VM's own /dev, /run or /tmp, and no process, mount or device."""
    trap = TRAPS[name]
    disk = make_disk(tmp_path / "disk", tree=trap.tree)
    os.truncate(disk, 96 << 20)
    outcome = virtual_machine.run(disk, asked={**ASKED, "hostname": "attacked"})
    assert "correct horse" not in outcome.console
    assert outcome.in_order and outcome.left == (), outcome.console
    if trap.refused is None:
        assert outcome.finished, outcome.console
        assert "Traceback" not in outcome.console
        assert_all_is_inside(disk, "attacked")
        for path, content in trap.kept:
            assert content in read_back(disk, path), path
    else:
        assert outcome.failed is not None, outcome.console
        assert f"{outcome.failed.task} failed: {outcome.failed.reason}".startswith(trap.refused)
        assert "the helper broke" not in outcome.failed.reason
        # The log of a refusal goes down to its cause; of nothing else there is one.
        causes = outcome.console.count("was the direct cause of the following exception")
        assert outcome.console.count("Traceback") == 1 + causes, outcome.console


@pytest.mark.vm
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n not in SHORT)) for n in TRAPS])
def test_the_script_says_what_a_trap_did_and_no_failure_boots(deploy: Deploy, name: str) -> None:
    """The others are covered by the test above in the same helper."""
    trap = TRAPS[name]
    done = deploy(trap.tree)
    assert "correct horse" not in done.outcome.output
    assert "Traceback" not in done.outcome.output, done.outcome.output
    if trap.refused is None:
        assert done.outcome.returncode == 0, done.outcome.output
        assert_all_is_inside(done.disk, done.instance)
        for path, content in trap.kept:
            assert content in read_back(done.disk, path), path
    else:
        assert done.outcome.returncode == 4, done.outcome.output
        assert f"the task {trap.refused}" in done.outcome.sentence, done.outcome.output
        assert "gnt-instance reinstall" in done.outcome.sentence, done.outcome.output
        with open(done.disk, "rb") as disk:
            assert disk.read(1 << 20) == bytes(1 << 20), "a failed deployment must not boot"


@pytest.mark.vm
def test_a_link_inside_the_image_stays_inside(deploy: Deploy) -> None:
    """An absolute link to another file of the image means that file of the image, not the helper's."""
    done = deploy({"etc/hostname": Link(target="/etc/real-hostname"), "etc/real-hostname": File(content="image\n")})
    assert done.outcome.returncode == 0, done.outcome.output
    assert read_back(done.disk, "/etc/real-hostname") == f"{done.instance}\n".encode()
    assert "Type: symlink" in stat_back(done.disk, "/etc/hostname")
