"""export and import: whole disks through pipes, compared by cmp(1)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.real.snf_image_host.node import Fake

MIB = 1 << 20


def a_disk(node: Fake, size_mib: int = 12) -> Path:
    """Data, a hole, written zeros, data at the very end."""
    path = node.folder / "source"
    with open(path, "wb") as file:
        file.write(os.urandom(MIB + 4096))
        file.seek(5 * MIB)
        file.write(bytes(MIB))
        file.seek(size_mib * MIB - 4096)
        file.write(os.urandom(4096))
    return path


def exported(node: Fake, disk: Path, archive: Path) -> tuple[int, str, str]:
    """(exit code, what came over EXP_SIZE_FD, what was said)."""
    read, write = os.pipe()
    env = node.environment("export", disk, EXPORT_DEVICE=str(disk), EXPORT_INDEX="0", EXP_SIZE_FD=str(write))
    with open(archive, "wb") as out:
        process = node.start("export", env, stdout=out, stderr=subprocess.PIPE, pass_fds=(write,))
        os.close(write)
        _, said = process.communicate(timeout=60)
    with os.fdopen(read) as told:
        return process.returncode, told.read(), said.decode()


def imported(node: Fake, disk: Path, archive: Path, *, count: int | None = None) -> tuple[int, str]:
    env = node.environment("import", disk, IMPORT_DEVICE=str(disk), IMPORT_INDEX="0")
    process = node.start("import", env, stdin=subprocess.PIPE)
    out, _ = process.communicate(archive.read_bytes()[:count], timeout=60)
    return process.returncode, out.decode()


def test_a_disk_comes_back_as_it_was(node: Fake, tmp_path: Path) -> None:
    disk, archive = a_disk(node), tmp_path / "archive"
    code, size, said = exported(node, disk, archive)
    assert (code, size) == (0, "12"), said
    subprocess.run(["cmp", str(disk), str(archive)], check=True, timeout=20)
    back = node.disk(12, pattern=b"old ", name="back")
    code, said = imported(node, back, archive)
    assert code == 0, said
    subprocess.run(["cmp", str(disk), str(back)], check=True, timeout=20)
    assert back.stat().st_blocks * 512 < 3 * MIB, "zeros are holes again"


def test_a_block_device_comes_back_as_it_was(node: Fake, tmp_path: Path) -> None:
    """LVM, DRBD and volumes: such a disk cannot say where it has holes."""
    disk, archive = a_disk(node), tmp_path / "archive"
    shown = subprocess.run(["losetup", "--find", "--show", str(disk)], check=True, capture_output=True, text=True)
    device = Path(shown.stdout.strip())
    try:
        code, size, said = exported(node, device, archive)
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True, timeout=10)
    assert (code, size) == (0, "12"), said
    subprocess.run(["cmp", str(disk), str(archive)], check=True, timeout=20)


def test_a_larger_disk_is_zeros_after_the_archive(node: Fake, tmp_path: Path) -> None:
    disk, archive = a_disk(node), tmp_path / "archive"
    assert exported(node, disk, archive)[0] == 0
    back = node.disk(16, pattern=b"old ", name="back")
    assert imported(node, back, archive)[0] == 0
    subprocess.run(["cmp", "--bytes=12582912", str(disk), str(back)], check=True, timeout=20)
    with open(back, "rb") as file:
        file.seek(12 * MIB)
        assert file.read() == bytes(4 * MIB)


def test_an_archive_that_does_not_fit_is_refused_and_the_disk_wiped(node: Fake, tmp_path: Path) -> None:
    disk, archive = a_disk(node), tmp_path / "archive"
    assert exported(node, disk, archive)[0] == 0
    back = node.disk(8, pattern=b"old ", name="back")
    code, said = imported(node, back, archive)
    assert code == 2
    assert said.splitlines()[-1] == (
        "snf-image: the export holds more than the 8 MiB of the disk; import onto a larger disk"
    )
    with open(back, "rb") as file:
        assert file.read(MIB) == bytes(MIB)


def test_an_empty_stream_is_a_failure(node: Fake, tmp_path: Path) -> None:
    disk, archive = a_disk(node), tmp_path / "archive"
    assert exported(node, disk, archive)[0] == 0
    code, said = imported(node, node.disk(12, name="back"), archive, count=0)
    assert code == 4 and "the other side sent nothing" in said


def test_a_receiver_that_goes_away_is_a_failure(node: Fake) -> None:
    disk = a_disk(node)
    env = node.environment("export", disk, EXPORT_DEVICE=str(disk), EXPORT_INDEX="0")
    read, write = os.pipe()
    process = node.start("export", env, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    os.read(read, 4096)
    os.close(read)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 4 and b"the receiver of the export is gone" in said


def test_what_ganeti_would_never_pass_is_refused_by_name(node: Fake) -> None:
    disk = a_disk(node)
    for changed, sentence in (
        ({"EXPORT_DEVICE": ""}, "EXPORT_DEVICE=''"),
        ({"EXPORT_DEVICE": "disk"}, "EXPORT_DEVICE='disk'"),
        ({"EXPORT_DEVICE": "/d", "EXPORT_INDEX": "x"}, "EXPORT_INDEX='x'"),
        ({"EXPORT_DEVICE": "/d", "EXP_SIZE_FD": "-1"}, "EXP_SIZE_FD='-1'"),
    ):
        process = node.start("export", node.environment("export", disk, **changed))
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 5 and sentence in out.decode()
