"""The helper VM's command line, word by word: a change of the sandbox is a change of a file that people read.

SNF_GOLDEN=write renews the files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from snf_image_host.vm import GATE, HelperImage, Vm, VmDisk, plan_command

HERE = Path(__file__).parent
IMAGE = HelperImage(folder=Path("/usr/lib/snf-image-helper"), version="0.1.0")
ROOT = VmDisk(serial="snf-root", fd=7, readonly=True)
MANIFEST = VmDisk(serial="snf-manifest", fd=8, readonly=True)


def vm(**given: Any) -> Vm:
    fields: dict[str, Any] = {
        **{"image": IMAGE, "accel": "tcg", "mode": "run", "qemu": "qemu-system-x86_64", "memory_mib": 256},
        **{"limit_s": 600, "file_limit": 10 << 30, "uid": 998, "gid": 997, "groups": ()},
    }
    return Vm(**fields | given)


CASES = {
    "tcg-file": (vm(), [ROOT, MANIFEST, VmDisk(serial="snf-disk0", fd=9, readonly=False)]),
    "kvm-block-swap-disk": (
        vm(accel="kvm", limit_s=120, groups=(108,)),
        [
            *(ROOT, MANIFEST, VmDisk(serial="snf-disk0", fd=9, readonly=False, block=True)),
            VmDisk(serial="snf-disk1", fd=10, readonly=True, block=True),
            VmDisk(serial="snf-disk2", fd=11, readonly=False, block=True),
        ],
    ),
    "tcg-source": (
        vm(limit_s=2400),
        [
            *(ROOT, MANIFEST, VmDisk(serial="snf-disk0", fd=9, readonly=False)),
            VmDisk(serial="snf-source", fd=10, readonly=True),
        ],
    ),
    "tcg-nbd": (vm(), [ROOT, MANIFEST, VmDisk(serial="snf-disk0", fd=9, readonly=False, nbd="disk")]),
    "kvm-selftest": (vm(accel="kvm", mode="selftest", limit_s=8, file_limit=1 << 20, groups=(108,)), [ROOT]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_is_the_one_on_file(name: str) -> None:
    planned, disks = CASES[name]
    rendered = "\n".join(plan_command(planned, disks, console=20, messages=21)) + "\n"
    path = HERE / f"command-{name}.txt"
    if os.environ.get("SNF_GOLDEN") == "write":
        path.write_text(rendered)
    assert rendered == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_the_vm_has_no_network_and_no_privilege(name: str) -> None:
    planned, disks = CASES[name]
    words = plan_command(planned, disks, console=20, messages=21)
    assert words[words.index("-nic") + 1] == "none"
    assert {"-nodefaults", "-no-user-config", "--no-new-privs", "--net", "--pid", "--mount", "--ipc", "--uts"} <= set(
        words
    )
    assert not [w for w in words if w in ("-netdev", "-net", "-fsdev", "-virtfs", "-usb", "-vnc", "-hda", "-drive")]
    assert "host" not in words[words.index("-cpu") + 1].split(",")
    sandbox = words[words.index("-sandbox") + 1]
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    # The user is changed last, so that nothing of the chain before it runs as the stranger.
    assert words[words.index("--reuid") - 1] == "setpriv"
    last = words.index("--", words.index("--reuid")) + 1
    assert words[last : last + 5] == ("sh", "-c", GATE, "gate", "qemu-system-x86_64")


def test_a_writable_disk_is_the_only_thing_that_is_writable() -> None:
    planned, disks = CASES["kvm-block-swap-disk"]
    words = plan_command(planned, disks, console=20, messages=21)
    drives = [w for w in words if w.startswith("driver=raw")]
    assert ["read-only=off" in d for d in drives] == [False, False, True, False, True]
    assert all("file.filename=/dev/fdset/" in d for d in drives), "no disk is named by a path"
