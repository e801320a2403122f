"""create, as Ganeti calls it: what it refuses, what it copies, what it leaves. The QEMU is the fake one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from snf_image_host.journal import CopyDone, Failed, Finished

from synnefo_light.events import ImageFailed
from tests.real.snf_image_host.node import Fake

MIB = 1 << 20
OLD = b"former tenant! "
REMEDY = "run `gnt-instance reinstall web1`, or give up with `gnt-instance remove web1`"


def compare(image: Path, disk: Path) -> None:
    """cmp(1): the image's bytes stand at the disk's begin. The fake helper writes at 2 MiB; that piece is left out."""
    size = image.stat().st_size
    for skip, count in ((0, 2 * MIB), (2 * MIB + 4096, size - 2 * MIB - 4096)):
        words = ["cmp", f"--ignore-initial={skip}", f"--bytes={count}", str(image), str(disk)]
        subprocess.run(words, check=True, timeout=60)


def test_a_reinstall_leaves_no_old_byte(node: Fake) -> None:
    image = node.image()
    disk = node.disk(16, pattern=OLD)
    done = node.create(disk, INSTANCE_REINSTALL="1")
    assert done.returncode == 0, done.output
    compare(image, disk)
    assert subprocess.run(["grep", "-c", "former tenant", str(disk)], capture_output=True, check=False).stdout == b"0\n"
    assert disk.stat().st_size == 16 * MIB
    (copied,) = [r for r in node.records() if isinstance(r, CopyDone)]
    assert copied.written == 3 * 65536, "holes are not written"
    assert disk.stat().st_blocks * 512 < MIB, "what was old and is a hole now takes no space"


def test_the_right_checksum_of_a_sparse_image_is_right(node: Fake) -> None:
    image = node.image()
    shown = subprocess.run(["sha256sum", str(image)], capture_output=True, text=True, check=True).stdout.split()[0]
    done = node.create(node.disk(), img_checksum=f"sha256:{shown}")
    assert done.returncode == 0, done.output
    sha512 = hashlib.sha512(image.read_bytes()).hexdigest()
    done = node.create(node.disk(), img_checksum=f"sha512:{sha512}")
    assert done.returncode == 0, done.output


def test_a_wrong_checksum_wipes_the_disk(node: Fake) -> None:
    node.image()
    disk = node.disk(pattern=OLD)
    done = node.create(disk, img_checksum="sha256:" + "0" * 64)
    assert done.returncode == 4 and "the image's SHA-256 is" in done.sentence and done.sentence.endswith(REMEDY)
    with open(disk, "rb") as file:
        assert file.read(MIB) == bytes(MIB)
    assert node.alive() == []


@pytest.mark.parametrize(
    ("parameters", "code", "sentence"),
    [
        ({"img_id": "absent.raw"}, 2, "the image 'absent.raw' of {images} is not there; put it into {images}"),
        ({"img_id": "big.raw"}, 2, "disk 0 of web1 is 16 MiB, but the image big.raw needs 17 MiB; ask for"),
        ({"img_id": "empty.raw"}, 2, "the image empty.raw is empty"),
        ({"img_id": "link.raw"}, 2, "goes through a symbolic link"),
        ({"img_id": "folder/link/small.raw"}, 2, "goes through a symbolic link"),
        ({"img_id": "folder"}, 2, "is not a regular file"),
        ({"img_id": "pipe"}, 2, "is not a regular file"),
        ({"img_id": "zero"}, 2, "is not a regular file"),
        ({"img_id": "small.raw/x"}, 2, "goes through a symbolic link or something that is not a folder"),
        ({"img_id": "file:///etc/passwd"}, 2, "is not below the image folder"),
        ({"img_id": "../x"}, 2, "would lead out of the image folder"),
        ({"img_properties": '{"SWAP": "c"}'}, 2, "SWAP names disk 2, but the instance has 1"),
        ({"img_colour": "red"}, 2, "the OS parameter 'img_colour' is not known"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_a_byte_is_written(
    node: Fake, parameters: dict[str, str], code: int, sentence: str
) -> None:
    node.image()
    (node.images / "big.raw").write_bytes(b"")
    os.truncate(node.images / "big.raw", 16 * MIB + 1)
    (node.images / "empty.raw").touch()
    (node.images / "link.raw").symlink_to("small.raw")
    (node.images / "folder").mkdir()
    (node.images / "folder" / "link").symlink_to("..")
    os.mkfifo(node.images / "pipe")
    os.mknod(node.images / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    disk = node.disk(pattern=OLD)
    before = hashlib.sha256(disk.read_bytes()).digest()
    done = node.create(disk, INSTANCE_REINSTALL="1", **parameters)
    assert done.returncode == code, done.output
    assert sentence.format(images=node.images) in done.sentence, done.output
    assert "its disk was not touched" in done.sentence and done.sentence.endswith(REMEDY)
    assert hashlib.sha256(disk.read_bytes()).digest() == before


def test_a_new_instance_that_fails_before_the_copy_cannot_boot_what_its_volume_held(node: Fake) -> None:
    disk = node.disk(pattern=OLD)
    done = node.create(disk, img_id="absent.raw")
    assert done.returncode == 2 and "both ends of its disk were wiped" in done.sentence, done.output
    subprocess.run(["cmp", "--bytes=1048576", str(disk), "/dev/zero"], check=True, timeout=10)
    subprocess.run(["cmp", f"--ignore-initial={15 * MIB}:0", f"--bytes={MIB}", str(disk), "/dev/zero"], check=True)


def test_a_reinstall_without_the_keyring_that_it_needs_leaves_the_old_system(node: Fake) -> None:
    node.image()
    (node.images / "small.raw.sig").write_bytes(b"no signature")
    node.configure(signature_keyrings=["/nonexistent/keyring.gpg"])
    disk = node.disk(pattern=OLD)
    before = hashlib.sha256(disk.read_bytes()).digest()
    done = node.create(disk, INSTANCE_REINSTALL="1", img_signature="small.raw.sig")
    assert done.returncode == 3 and "/nonexistent/keyring.gpg" in done.sentence, done.output
    assert "its disk was not touched" in done.sentence
    assert hashlib.sha256(disk.read_bytes()).digest() == before


def test_a_reinstall_from_a_wrong_file_leaves_the_old_system(node: Fake) -> None:
    image = node.image()
    disk = node.disk(pattern=OLD)
    before = hashlib.sha256(disk.read_bytes()).digest()
    done = node.create(disk, INSTANCE_REINSTALL="1", img_checksum="sha256:" + "0" * 64)
    assert done.returncode == 4 and "the image's SHA-256 is" in done.sentence, done.output
    assert "its disk was not touched" in done.sentence
    assert hashlib.sha256(disk.read_bytes()).digest() == before
    right = hashlib.sha256(image.read_bytes()).hexdigest()
    done = node.create(disk, INSTANCE_REINSTALL="1", img_checksum=f"sha256:{right}")
    assert done.returncode == 0, done.output
    compare(image, disk)


def test_a_reinstall_that_fails_after_the_copy_began_cannot_boot(node: Fake) -> None:
    node.image()
    disk = node.disk(pattern=OLD)
    node.behave("early-exit")
    done = node.create(disk, INSTANCE_REINSTALL="1")
    assert done.returncode == 4 and "both ends of its disk were wiped" in done.sentence, done.output
    subprocess.run(["cmp", "--bytes=1048576", str(disk), "/dev/zero"], check=True, timeout=10)


@pytest.mark.parametrize("reinstall", ["0", "1"])
def test_null_that_fails_wipes_nothing(node: Fake, reinstall: str) -> None:
    disk = node.disk(pattern=OLD)
    node.behave("early-exit")
    done = node.create(disk, img_id="null", INSTANCE_REINSTALL=reinstall)
    assert done.returncode != 0 and "its disk may be changed in part and was not wiped" in done.sentence, done.output
    assert disk.read_bytes()[: len(OLD)] == OLD and disk.read_bytes()[-MIB:] != bytes(MIB)


def test_without_the_checks_a_link_would_be_followed(node: Fake) -> None:
    """The positive control of the links above."""
    node.image()
    (node.images / "link.raw").symlink_to("small.raw")
    assert (node.images / "link.raw").read_bytes()


def test_an_image_in_a_folder_of_the_image_folder_is_deployed(node: Fake) -> None:
    (node.images / "debian").mkdir()
    node.image("debian/12.raw")
    assert node.create(node.disk(), img_id="debian/12.raw").returncode == 0
    assert node.create(node.disk(), img_id="local://debian/12.raw").returncode == 0
    old = node.create(node.disk(), img_id=f"file://{node.images}/debian/12.raw")
    assert old.returncode == 0 and "file: is deprecated; say local://NAME" in old.output


def test_null_copies_nothing_and_customises_what_is_there(node: Fake) -> None:
    disk = node.disk(pattern=OLD)
    done = node.create(disk, img_id="null")
    assert done.returncode == 0, done.output
    with open(disk, "rb") as file:
        assert file.read(len(OLD)) == OLD
        file.seek(2 * MIB)
        assert file.read(7) == b"written"


def test_an_image_of_the_disks_size_keeps_its_last_mib(node: Fake) -> None:
    image = node.image(size_mib=16)
    disk = node.disk(16, pattern=OLD)
    assert node.create(disk).returncode == 0
    compare(image, disk)


def test_the_last_mib_is_zeros_beyond_the_image(node: Fake) -> None:
    image = node.images / "small.raw"
    image.write_bytes(os.urandom(15 * MIB + 512))
    disk = node.disk(16, pattern=OLD)
    assert node.create(disk).returncode == 0
    compare(image, disk)
    with open(disk, "rb") as file:
        file.seek(15 * MIB + 512)
        assert file.read() == bytes(MIB - 512)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"DISK_0_PATH": "", "DISK_0_URI": "gluster://g/v/1"}, "only the address 'gluster://g/v/1', which is not rbd:"),
        ({"DISK_0_SIZE": "17"}, "though Ganeti says 17 MiB"),
        ({"DISK_0_PATH": "/dev/null"}, "is neither a file nor a block device"),
        ({"DISK_0_PATH": "/nonexistent/disk"}, "cannot be opened: No such file or directory"),
        ({"DISK_0_ACCESS": "ro"}, "has mode=ro"),
        ({"DISK_COUNT": "0"}, "the instance has no disk"),
        ({"OS_VARIANT": "beta"}, "the variant 'beta' has no file"),
        ({"OS_VARIANT": "../beta"}, "the variant '../beta' has no file"),
    ],
)
def test_disks_and_variants_that_cannot_be_used(node: Fake, changed: dict[str, str], sentence: str) -> None:
    node.image()
    env = node.environment("create", node.disk()) | changed
    process = node.start("create", env)
    out, _ = process.communicate(timeout=60)
    assert process.returncode in (2, 3)
    assert sentence in out.decode().splitlines()[-1], out.decode()


def test_a_variants_file_presets_parameters(node: Fake) -> None:
    node.image("preset.raw")
    (node.folder / "variants" / "mine.toml").write_text(
        '[parameters]\nimg_id = "preset.raw"\nimg_format = "diskdump"\n'
    )
    env = node.environment("create", node.disk(), img_id="-", img_format="-") | {"OS_VARIANT": "mine"}
    process = node.start("create", env)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out.decode()


def test_a_key_that_the_configuration_does_not_have_is_refused_by_name(node: Fake) -> None:
    (node.folder / "snf-image.toml").write_text("image_dirr = '/x'\n")
    done = node.create(node.disk())
    assert done.returncode == 78 and "image_dirr: this key is not known" in done.sentence


@pytest.mark.parametrize("parameters", [{}, {"img_id": "http://127.0.0.1:1/x"}, {"img_properties": '{"USERS": "a b"}'}])
def test_verify_says_nothing_when_all_is_well(node: Fake, parameters: dict[str, str]) -> None:
    done = node.call("verify", node.disk(), **parameters)
    assert (done.returncode, done.output) == (0, "")


def test_verify_refuses_in_one_line(node: Fake) -> None:
    done = node.call("verify", node.disk(), img_properties='{"COLOUR": "red"}')
    assert (done.returncode, done.output) == (2, "snf-image: img_properties: the property 'COLOUR' is not known\n")


def test_no_secret_is_logged_and_the_log_is_private(node: Fake) -> None:
    node.image()
    for _ in range(2):
        done = node.create(node.disk(), img_passwd="correct horse", DEBUG_LEVEL="1")
        assert done.returncode == 0
        assert "correct horse" not in done.output + node.log() + repr(node.events()) + repr(node.records())
    assert (node.folder / "log" / "web1.log").stat().st_mode & 0o777 == 0o640
    assert (node.folder / "log" / "web1.log.1").exists()


def test_a_full_spool_and_no_log_folder_do_not_fail_a_deployment(node: Fake) -> None:
    node.image()
    (node.folder / "spool").rmdir()
    (node.folder / "log").write_text("not a folder")
    done = node.create(node.disk())
    assert done.returncode == 0, done.output
    assert done.output.count("the event spool cannot be written") == 1


def test_the_same_instance_twice_is_refused_and_its_disk_left_alone(node: Fake) -> None:
    node.image()
    disk = node.disk(pattern=OLD)
    with open(node.folder / "run" / "web1.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = node.create(disk)
    assert done.returncode == 3
    assert "another deployment of web1 is running" in done.sentence and "was not touched" in done.sentence
    with open(disk, "rb") as file:
        assert file.read(len(OLD)) == OLD


def test_two_instances_at_once(node: Fake) -> None:
    node.image()
    node.behave("slow:0.5")
    disks = {name: node.disk(name=name) for name in ("web1", "web2")}
    running = [node.start("create", node.environment("create", d, instance=n)) for n, d in disks.items()]
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out.decode()


def test_watch_follows_to_success_and_to_failure(node: Fake) -> None:
    node.image()
    assert node.create(node.disk()).returncode == 0
    watched = node.command("watch", "web1")
    assert watched.returncode == 0 and "task     hostname done" in watched.stdout, watched
    assert node.create(node.disk(), img_checksum="sha256:" + "0" * 64).returncode == 4
    watched = node.command("watch", "web1")
    assert watched.returncode == 1 and "SHA-256" in watched.stdout.splitlines()[-1]
    assert isinstance(node.records()[-1], Failed)


def test_a_create_that_fails_at_its_parameters_replaces_the_journal_and_drops_an_event(node: Fake) -> None:
    node.image()
    assert node.create(node.disk()).returncode == 0
    assert node.create(node.disk(), img_id="a\x1b[2J/../b").returncode == 2
    watched = node.command("watch", "web1")
    assert watched.returncode == 1, watched
    assert watched.stdout.startswith("   0.0 s  failed   web1 was not deployed: img_id: "), watched
    last = node.events()[-1].detail
    assert isinstance(last, ImageFailed) and (last.instance, last.image) == ("web1", "a\\x1b[2J/../b")
    (only,) = node.records()
    assert isinstance(only, Failed) and only.reason == last.reason


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_failure_with_a_wiped_disk(node: Fake, number: signal.Signals) -> None:
    node.image()
    node.behave("hang-in:hostname")
    disk = node.disk()
    process = node.start("create", node.environment("create", disk))
    _wait_for_step(node, "hostname")
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 3, out.decode()
    last = out.decode().splitlines()[-1]
    assert f"was interrupted by {number.name}" in last and "were wiped" in last
    with open(disk, "rb") as file:
        assert file.read(MIB) == bytes(MIB)
    assert node.alive() == []


STEPS = ("start", "copy", "helper", "partition_table", "hostname", "umount")


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_leaves_no_process_and_the_next_deployment_succeeds(node: Fake, step: str) -> None:
    image = node.image()
    if step in ("start", "copy"):
        # A pipe that never ends holds the deployment where its image is opened or read.
        image.write_bytes(os.urandom(8 * MIB))
        node.behave("hang")
    else:
        node.behave("hang" if step == "helper" else f"hang-in:{step}")
    disk = node.disk()
    process = node.start("create", node.environment("create", disk))
    if step in ("start", "copy"):
        time.sleep(0.12 if step == "start" else 0.2)
    else:
        _wait_for_step(node, step)
    process.kill()
    process.communicate(timeout=20)
    node.wait_dead()
    watched = node.command("watch", "web1")
    assert watched.returncode in (1, 2), watched
    node.behave("good")
    image.unlink()
    node.image()
    done = node.create(disk)
    assert done.returncode == 0, done.output
    compare(image, disk)
    assert isinstance(node.records()[-1], Finished)
    assert {p.name for p in (node.folder / "run").iterdir()} == {"web1.jsonl", "web1.lock"}


@pytest.mark.parametrize("delay_ms", range(100, 420, 20))
def test_kill_9_at_any_moment_leaves_no_process(node: Fake, delay_ms: int) -> None:
    """Also in the instants in which the chain before QEMU is being made: the gate does not open."""
    node.image()
    node.behave("hang")
    process = node.start("create", node.environment("create", node.disk()))
    time.sleep(delay_ms / 1000)
    process.kill()
    process.communicate(timeout=20)
    node.wait_dead(3)


def _wait_for_step(node: Fake, step: str) -> None:
    wanted = '"type":"helper-started"' if step == "helper" else f'"task":"{step}","type":"task-started"'
    path = node.folder / "run" / "web1.jsonl"
    deadline = time.monotonic() + 20
    while not (path.exists() and wanted in path.read_text()):
        assert time.monotonic() < deadline, f"{step} was not reached"
        time.sleep(0.02)


def test_a_full_node_disk_fails_with_its_reason_and_a_wiped_disk(node: Fake) -> None:
    (node.images / "small.raw").write_bytes(os.urandom(8 * MIB))
    small = node.folder / "small"
    small.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True, timeout=10)
    try:
        done = node.create(node.disk(16, name="small/disk"))
        assert done.returncode == 3 and "No space left on device" in done.sentence, done.output
        assert "were wiped" in done.sentence
        subprocess.run(["cmp", "--bytes=1048576", str(small / "disk"), "/dev/zero"], check=True, timeout=10)
    finally:
        subprocess.run(["umount", str(small)], check=True, timeout=10)
