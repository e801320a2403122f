"""Positive controls: what the images of the corpus do to a host that mounts, scans or asks about them.

Each is done in a mount namespace of its own, on a loop device that is taken away again. What is seen here (kernel log,
uevents, LVM's volume groups, files outside of the image) is what the deployments of the same images are watched for.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.attack.corpus import links, mutations, signatures
from tests.attack.host import Changes, tree_hash, watched
from tests.attack.trace import Allowed, trace
from tests.disk_images import MIB, Link, make_disk

LVM = "devices {use_devicesfile=0 obtain_device_list_from_udev=0} activation {udev_sync=0 udev_rules=0}"
MOUNT_AND = 'mount -t {kind} "$1" "$2" 2>/dev/null && {{ {then}; umount "$2"; }}; true'


@contextmanager
def loop(image: Path, *, offset: int = MIB) -> Iterator[str]:
    argv = ["losetup", "--find", "--show", f"--offset={offset}", str(image)]
    device = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True, timeout=10)


def naive_mount(image: Path, folder: Path, *, kind: str, then: str) -> Changes:
    """A deployment as it should not be: the host's kernel mounts the image, and a program works in it as root."""
    folder.mkdir(exist_ok=True)
    script = MOUNT_AND.format(kind=kind, then=then)
    with watched([folder.parent / "outside"]) as changes, loop(image) as device:
        subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", device, folder], check=True, timeout=60)
    changes.log = [line for line in changes.log if Path(device).name in line]
    changes.uevents = [event for event in changes.uevents if Path(device).name in event]
    return changes


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_naive_mount_of_a_damaged_file_system_is_seen_in_log_and_uevents(tmp_path: Path, kind: str) -> None:
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
        kind = "ext4"  # the one that every kernel here has: a weaker control, but never none
    image = tmp_path / "image"
    mutations.mutated(image, kind=kind, region="superblock", seed=f"{kind}-superblock-0")
    changes = naive_mount(image, tmp_path / "mnt", kind=kind, then='ls -lR "$2" >/dev/null 2>&1')
    assert any(kind[:4].lower() in line.lower() for line in changes.log), changes
    assert any(event.startswith("block ") for event in changes.uevents), changes


@pytest.mark.parametrize("kind", ["absolute", "dotdot", "proc-root"])
def test_a_naive_deployment_writes_outside_of_the_image(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside\n")
    places = {"file": outside / "file", "folder": outside, "new": outside / "new"}
    image = make_disk(tmp_path / "image", tree={"etc/hostname": Link(target=links.LINKS[kind].format(**places))})
    before = tree_hash([outside])
    changes = naive_mount(image, tmp_path / "mnt", kind="ext4", then='echo attacked > "$2/etc/hostname"')
    assert (outside / "file").read_text() == "attacked\n"
    assert changes.folders == [str(outside)] and tree_hash([outside]) != before


def test_the_hosts_lvm_sees_a_volume_group_of_its_own_name_in_an_image(tmp_path: Path) -> None:
    volume = signatures.lvm_volume(tmp_path / "volume")
    with loop(volume, offset=0) as device:
        argv = ["lvm", "pvs", "--config", LVM, "--devices", device, "--noheadings", "-o", "vg_name,lv_name"]
        seen = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    assert {signatures.VOLUME_GROUP, "root"} <= set(seen.stdout.split()), seen


@pytest.mark.parametrize("name", signatures.KNOWN_AS)
def test_blkid_takes_each_signature_for_what_it_imitates(tmp_path: Path, name: str) -> None:
    signatures.SIGNATURES[name](tmp_path / "volume")
    argv = ["blkid", "-p", "-o", "value", "-s", "TYPE", str(tmp_path / "volume")]
    found = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == signatures.KNOWN_AS[name]


@pytest.mark.parametrize(
    "naive",
    [
        "blkid {disk}",
        "fdisk -l {disk}",
        "losetup -Pf {disk}",
        'python3 -c \'open("{disk}", "rb").read(512)\'',
        "unshare -m mount -o loop,offset=1048576 {disk} /mnt",
    ],
)
def test_a_naive_deployment_is_caught(tmp_path: Path, naive: str) -> None:
    """The positive control of test_host_reads_nothing.py: its check does see what it is there to see."""
    disk = make_disk(tmp_path / "disk")
    script = shutil.which("sh") or "/bin/sh"
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    argv = [script, "-c", naive.format(disk=disk)]
    seen, done = trace(argv, env=env, allowed=Allowed(disk=disk), log=tmp_path / "trace")
    made = subprocess.run(["losetup", "-j", str(disk)], check=True, capture_output=True, text=True, timeout=10)
    for line in made.stdout.splitlines():
        subprocess.run(["losetup", "-d", line.split(":")[0]], check=True, timeout=10)
    assert done.returncode == 0, done.stdout
    found = " ".join(v for v in seen.violations() if " executed sh" not in v)
    program = naive.split(maxsplit=1)[0]
    wanted = {"python3": "read the disk", "unshare": "changed what is mounted", "losetup": "asked a device LOOP_"}
    assert wanted.get(program, f"executed {program}") in found, f"{naive} went unseen: {found}"
