"""Images made to lead the deployment out of themselves (threats A7, A8, A9).

Each deploys through the real create script and the real helper VM, then the disk is read back with debugfs. Positive
control: test_rootfs_attacks.py of the helper room shows that a plain open() follows every one of these links.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployments import Outcome, call, images, new_disk
from tests.disk_images import Device, Entry, Fifo, File, Folder, Link, Tree, make_disk, read_back, stat_back

PARAMETERS = {
    "img_format": "diskdump",
    "img_passwd": "correct horse",
    "auth_keys": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK test",
    "img_personality": '[{"path": "/etc/injected/motd", "contents": "aGVsbG8K", "mode": 416}]',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
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
        try:
            outcome = call(
                "create",
                instance=name.split(".", maxsplit=1)[0],
                disk=disk,
                parameters={**PARAMETERS, "img_id": name, **parameters},
            )
        finally:
            (images() / name).unlink()
        return Deployed(disk=disk, outcome=outcome)


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    yield Deploy(tmp_path)


@pytest.mark.vm
def test_the_same_tree_without_a_trap_is_deployed(deploy: Deploy) -> None:
    """The control: nothing else about these images stops a deployment."""
    done = deploy({})
    assert done.outcome.returncode == 0, done.outcome.output
    assert read_back(done.disk, "/etc/injected/motd") == b"hello\n"
    assert read_back(done.disk, "/etc/hostname").startswith(b"attack-")


#: What a task writes, replaced by something that leads elsewhere. None of these may be followed out of the image.
TRAPS: dict[str, dict[str, Entry | None]] = {
    "hostname-absolute": {"etc/hostname": Link(target="/dev/ttyS1")},
    "hostname-host-looking": {"etc/hostname": Link(target="/run/snf-image-escape")},
    "hostname-dotdot": {"etc/hostname": Link(target="../../../../../../../../tmp/escape")},
    "hostname-proc-magic": {"etc/hostname": Link(target="/proc/self/root/tmp/escape")},
    "hostname-fifo": {"etc/hostname": Fifo()},
    "hostname-device": {"etc/hostname": Device(kind="b", major=254, minor=0)},
    "hostname-folder": {"etc/hostname": Folder()},
    "hostname-loop": {"etc/hostname": Link(target="hostname")},
    "passwd-absolute": {"etc/passwd": Link(target="/dev/zero")},
    "passwd-fifo": {"etc/passwd": Fifo()},
    "shadow-device": {"etc/shadow": Device(kind="c", major=1, minor=5)},
    "shadow-absolute": {"etc/shadow": Link(target="/run/escape")},
    "etc-ssh-absolute": {
        "etc/ssh": Link(target="/run"),
        "etc/ssh/sshd_config": None,
        "etc/ssh/ssh_host_ed25519_key": None,
        "etc/ssh/ssh_host_ed25519_key.pub": None,
    },
    "root-ssh-absolute": {"root/.ssh": Link(target="/tmp")},
    "root-ssh-dotdot": {"root/.ssh": Link(target="../../../../run")},
    "authorized-keys-device": {"root/.ssh": Folder(), "root/.ssh/authorized_keys": Device(kind="c", major=4, minor=65)},
    "personality-parent": {"etc/injected": Link(target="/dev")},
    "personality-fifo": {"etc/injected": Folder(), "etc/injected/motd": Fifo()},
    "machine-id-device": {"etc/machine-id": Device(kind="c", major=1, minor=3)},
    "interfaces-absolute": {"etc/network/interfaces.d": Link(target="/sys")},
    "shadow-huge-line": {"etc/shadow": File(content="root:" + "A" * 3_000_000 + ":1:2:3:4:::\n")},
    "passwd-binary": {"etc/passwd": File(content=bytes(range(256)) * 64)},
    "hosts-odd-bytes": {"etc/hosts": File(content=b"127.0.1.1\t\xff\xfe\x00\n")},
    "os-release-shell": {"etc/os-release": File(content='ID="$(touch /run/escape)"\nVERSION_ID=`reboot`\n')},
}


@pytest.mark.vm
@pytest.mark.parametrize("name", TRAPS)
def test_no_trap_leads_out_of_the_image(deploy: Deploy, name: str) -> None:
    """Either the deployment succeeds inside the image, or it fails with a sentence that names the task."""
    done = deploy(TRAPS[name])
    if done.outcome.returncode == 0:
        assert read_back(done.disk, "/etc/injected/motd") == b"hello\n" or name.startswith("personality")
    else:
        assert done.outcome.returncode in (4, 5), done.outcome.output
        assert "gnt-instance reinstall" in done.outcome.sentence, done.outcome.output
        with open(done.disk, "rb") as disk:
            assert disk.read(1 << 20) == bytes(1 << 20), "a failed deployment must not boot"
    assert "correct horse" not in done.outcome.output
    assert "Traceback" not in done.outcome.output, done.outcome.output


@pytest.mark.vm
def test_a_link_inside_the_image_stays_inside(deploy: Deploy) -> None:
    """An absolute link to another file of the image means that file of the image, not the helper's."""
    done = deploy({"etc/hostname": Link(target="/etc/real-hostname"), "etc/real-hostname": File(content="image\n")})
    assert done.outcome.returncode == 0, done.outcome.output
    written = read_back(done.disk, "/etc/real-hostname") + read_back(done.disk, "/etc/hostname")
    assert b"attack-" in written
    assert "Type: directory" not in stat_back(done.disk, "/etc/hostname")
