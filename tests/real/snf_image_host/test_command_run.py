"""`snf-image plan` and `snf-image run`: the same code as create, without Ganeti; what is in use is refused."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from synnefo_light.events import ImageProgressed
from tests.disk_images import make_disk, read_back
from tests.real.snf_image_host.node import COMMAND, Fake
from tests.real.snf_image_host.test_create import compare

GIVEN = ("-O", "img_id=small.raw", "-O", "img_format=diskdump")


@contextmanager
def locked_as_qemu_does(path: Path) -> Iterator[None]:
    """Read locks on bytes from 100 on (block/file-posix.c)."""
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhxxxxqqixxxx", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0))
    try:
        yield
    finally:
        os.close(fd)


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
    with locked_as_qemu_does(disk):
        done = node.command("run", "--disk", str(disk), *GIVEN)
        assert done.returncode == 3 and "is in use" in done.stderr and "QEMU" in done.stderr


@pytest.mark.parametrize("driver", ["file", "host_device"])
def test_a_disk_that_a_real_qemu_has_open_is_refused(node: Fake, driver: str) -> None:
    disk = node.disk()
    shown = subprocess.run(["losetup", "--find", "--show", str(disk)], check=True, capture_output=True, text=True)
    loop = shown.stdout.strip()
    used = str(disk) if driver == "file" else loop
    words = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-S", "-blockdev"]
    words += [f"driver=raw,node-name=d,file.driver={driver},file.filename={used}", "-device", "virtio-blk-pci,drive=d"]
    try:
        if driver == "file":
            subprocess.run(["losetup", "--detach", loop], check=True, timeout=30)
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as qemu:
            try:
                deadline = time.monotonic() + 20
                while not any(os.path.realpath(f) == used for f in Path(f"/proc/{qemu.pid}/fd").iterdir()):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                time.sleep(0.5)
                done = node.command("run", "--disk", used, *GIVEN)
                assert done.returncode == 3 and "is in use" in done.stderr and "QEMU" in done.stderr, done.stderr
            finally:
                qemu.kill()
    finally:
        if driver != "file":
            subprocess.run(["losetup", "--detach", loop], check=True, timeout=30)


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
        with locked_as_qemu_does(Path(loop)):
            done = node.command("run", "--disk", loop, *GIVEN)
            assert done.returncode == 3 and "QEMU" in done.stderr
        done = node.command("run", "--disk", loop, *GIVEN)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True, timeout=30)


@pytest.mark.parametrize("path", ["/nonexistent", "/tmp", "/dev/null"])
def test_what_is_no_disk_is_refused(node: Fake, path: str) -> None:
    done = node.command("run", "--disk", path, *GIVEN)
    assert done.returncode == 2 and "--disk" in done.stderr


@pytest.mark.vm
def test_a_conversion_in_the_helper_vm_is_run_watched_and_reported(real_node: Fake) -> None:
    """By the real QEMU and helper: debugfs finds the name, `watch` showed percentages, the report has figures."""
    raw = make_disk(real_node.folder / "small.raw")
    image = real_node.images / "small.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)], check=True, timeout=60)
    disk = real_node.disk(96)
    given = ("-O", "img_id=small.qcow2", "-O", "img_format=diskdump", "--nic", "ip=192.0.2.5,subnet=192.0.2.0/24")
    words = [str(COMMAND), "run", "--disk", str(disk), "--hostname", "web1", *given]
    env = {"SNF_IMAGE_CONFIG": str(real_node.folder / "snf-image.toml"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr
    assert read_back(disk, "etc/hostname") == b"web1\n"
    watched = real_node.command("watch", "web1")
    assert watched.returncode == 0 and re.search(r"task     convert \[#+\.*\] +\d+% of ", watched.stdout), (
        watched.stdout
    )
    reported = json.loads(real_node.command("report", "--json", "web1").stdout)
    assert reported["outcome"] == "deployed" and reported["figures"]["helper_cpu_ms"] > 0
    assert {"convert", "hostname"} <= {step["name"] for step in reported["steps"] if step["state"] == "done"}
    told = [e.detail for e in real_node.events() if e.type == "image-progressed"]
    assert any(isinstance(d, ImageProgressed) and d.task == "convert" and d.done == d.total > 0 for d in told)


def test_a_disk_that_stands_twice_and_a_link_to_itself_are_refused(node: Fake) -> None:
    node.image()
    disk = node.disk(pattern=b"old")
    (node.folder / "same").symlink_to(disk)
    (node.folder / "hard").hardlink_to(disk)
    (node.folder / "loop").symlink_to(node.folder / "loop")
    before = hashlib.sha256(disk.read_bytes()).digest()
    for name in ("disk", "same", "hard"):
        swap = ("-O", 'img_properties={"SWAP": "b"}')
        done = node.command("run", "--disk", str(disk), "--disk", str(node.folder / name), *GIVEN, *swap)
        assert done.returncode == 2 and "is given twice" in done.stderr
    done = node.command("run", "--disk", str(node.folder / "loop"), *GIVEN)
    assert done.returncode == 2 and "--disk" in done.stderr.splitlines()[-1], done.stderr
    assert hashlib.sha256(disk.read_bytes()).digest() == before


def test_a_plan_refuses_a_signature_that_is_not_there(node: Fake) -> None:
    node.image()
    node.configure(signature_keyrings=["/usr/share/keyrings/debian-archive-keyring.gpg"])
    done = node.command("plan", "--disk-size", "16M", *GIVEN, "-O", "img_signature=absent.sig")
    assert done.returncode == 2 and "absent.sig" in done.stderr
