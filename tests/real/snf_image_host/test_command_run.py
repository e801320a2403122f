"""`snf-image plan` and `snf-image run`: the same code as create, without Ganeti; what is in use is refused."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.real.snf_image_host.node import COMMAND, Fake
from tests.real.snf_image_host.test_create import compare

GIVEN = ("-O", "img_id=small.raw", "-O", "img_format=diskdump")


def test_run_deploys_as_create_does_and_leaves_the_same_traces(node: Fake) -> None:
    image, disk = node.image(), node.disk()
    done = node.command("run", "--disk", str(disk), "--hostname", "web1", *GIVEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("web1: deployed in ")
    compare(image, disk)
    by_create = node.disk(name="other")
    assert node.create(by_create).returncode == 0
    subprocess.run(["cmp", str(disk), str(by_create)], check=True, timeout=30)
    assert node.command("report", "web1").returncode == 0


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_plan_changes_nothing(node: Fake, command: str) -> None:
    node.image()
    disk = node.disk(pattern=b"old")
    before = hashlib.sha256(disk.read_bytes()).digest()
    where = ["--disk-size", "16M"] if command == "plan" else ["--dry-run", "--disk", str(disk)]
    done = node.command(command, *where, *GIVEN, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["size"] == 8 << 20 and shown["disks"] == [16 << 20] and shown["accel"] == "tcg"
    assert hashlib.sha256(disk.read_bytes()).digest() == before
    assert list((node.folder / "run").iterdir()) == list((node.folder / "spool").iterdir()) == []
    assert not (node.folder / "log").exists()


def test_a_plan_needs_not_be_root_and_a_run_says_that_it_must(node: Fake) -> None:
    node.image().chmod(0o644)
    disk = node.disk()
    disk.chmod(0o666)

    def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
        env = {"SNF_IMAGE_CONFIG": str(node.folder / "snf-image.toml"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        lower = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--", str(COMMAND)]
        return subprocess.run(
            [*lower, *words], env=env, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )

    planned = as_nobody("plan", "--disk-size", "16M", *GIVEN)
    assert planned.returncode == 0 and "copied byte by byte" in planned.stdout, planned.stderr
    ran = as_nobody("run", "--disk", str(disk), *GIVEN)
    assert ran.returncode == 3 and "run this as root" in ran.stderr
    assert as_nobody("run", "--dry-run", "--disk", str(disk), *GIVEN).returncode == 0


def test_a_failure_says_what_to_do_without_naming_ganetis_commands(node: Fake) -> None:
    done = node.command("run", "--disk", str(node.disk()), "-O", "img_id=absent.raw", "-O", "img_format=diskdump")
    assert done.returncode == 2 and "gnt-instance" not in done.stderr
    assert done.stderr.rstrip().endswith("its disk was not touched; mend that and run this again")


def test_an_image_that_does_not_fit_is_seen_by_the_plan(node: Fake) -> None:
    node.image()
    done = node.command("plan", "--disk-size", "7M", *GIVEN)
    assert done.returncode == 2 and "needs 8 MiB" in done.stderr


def test_a_file_that_qemu_has_locked_is_refused(node: Fake) -> None:
    disk = node.disk()
    fd = os.open(disk, os.O_RDWR)
    # As QEMU does (file-posix.c): read locks on bytes from 100 on.
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhxxxxqqixxxx", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0))
    try:
        done = node.command("run", "--disk", str(disk), *GIVEN)
        assert done.returncode == 3 and "is in use" in done.stderr and "QEMU" in done.stderr
    finally:
        os.close(fd)


def test_a_file_behind_a_loop_device_and_a_mounted_device_are_refused(node: Fake) -> None:
    node.image()
    disk = node.disk(32)
    subprocess.run(["mke2fs", "-q", "-F", str(disk)], check=True, timeout=60)
    shown = subprocess.run(["losetup", "--find", "--show", str(disk)], check=True, capture_output=True, text=True)
    loop, folder = shown.stdout.strip(), node.folder / "mounted"
    try:
        done = node.command("run", "--disk", str(disk), *GIVEN)
        assert done.returncode == 3 and f"the loop device {Path(loop).name} shows it" in done.stderr, done.stderr
        folder.mkdir()
        subprocess.run(["mount", loop, str(folder)], check=True, timeout=30)
        try:
            done = node.command("run", "--disk", loop, *GIVEN)
            assert done.returncode == 3 and "is in use: mounted" in done.stderr
        finally:
            subprocess.run(["umount", str(folder)], check=True, timeout=30)
        done = node.command("run", "--disk", loop, *GIVEN)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True, timeout=30)


@pytest.mark.parametrize("path", ["/nonexistent", "/tmp", "/dev/null"])
def test_what_is_no_disk_is_refused(node: Fake, path: str) -> None:
    done = node.command("run", "--disk", path, *GIVEN)
    assert done.returncode == 2 and "--disk" in done.stderr
