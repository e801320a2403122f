"""Copying onto a real block device: a loop device over a file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.snf_image_host.node import Fake

MIB = 1 << 20


@pytest.fixture
def device(node: Fake) -> Iterator[Path]:
    backing = node.disk(16, pattern=b"former tenant! ", name="backing")
    made = subprocess.run(["losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no loop device: {made.stderr}")
    path = Path(made.stdout.strip())
    yield path
    subprocess.run(["losetup", "--detach", str(path)], check=True, timeout=10)


def create(node: Fake, device: Path, **given: str) -> tuple[int, str]:
    process = node.start(
        "create", node.environment("create", node.folder / "backing", DISK_0_PATH=str(device), **given)
    )
    out, _ = process.communicate(timeout=60)
    return process.returncode, out.decode()


def test_a_block_device_gets_the_image_and_no_old_byte_within_it(node: Fake, device: Path) -> None:
    image = node.image()
    code, said = create(node, device, img_properties='{"EXCLUDE_ALL_TASKS": "yes"}')
    assert code == 0, said
    subprocess.run(["cmp", f"--bytes={image.stat().st_size}", str(image), str(device)], check=True, timeout=20)
    with open(device, "rb") as file:
        file.seek(-MIB, os.SEEK_END)
        assert file.read() == bytes(MIB)


def test_a_device_onto_which_an_image_is_converted_holds_no_old_byte_at_all(node: Fake, device: Path) -> None:
    (node.images / "tiny.qcow2").write_bytes(b"x" * 4096)
    code, said = create(node, device, img_id="tiny.qcow2", img_properties='{"EXCLUDE_ALL_TASKS": "yes"}')
    assert code == 0, said
    assert device.read_bytes() == (b"x" * 4096).ljust(16 * MIB, b"\0")


def test_a_device_gets_a_table_before_a_dump_of_one_file_system(node: Fake, device: Path) -> None:
    image = node.image("fs.img", size_mib=4)
    properties = '{"EXCLUDE_ALL_TASKS": "yes"}'
    code, said = create(node, device, img_id="fs.img", img_format="extdump", img_properties=properties)
    assert code == 0, said
    with open(device, "rb") as file:
        assert file.read(MIB)[512:] == bytes(MIB - 512), "nothing old between the table and the partition"
        assert file.read(4 * MIB) == image.read_bytes()
    shown = subprocess.run(["sfdisk", "--dump", str(device)], capture_output=True, check=True, text=True, timeout=10)
    assert "start=        2048, size=        8192, type=83, bootable" in shown.stdout


def test_the_helper_gets_the_device_by_its_descriptor(node: Fake, device: Path) -> None:
    node.image()
    code, said = create(node, device)
    assert code == 0, said
    with open(device, "rb") as file:
        file.seek(2 * MIB)
        assert file.read(26) == b"written by the fake helper"


def test_a_failure_wipes_both_ends(node: Fake, device: Path) -> None:
    node.image()
    node.behave("fails-at:mount")
    code, said = create(node, device)
    assert code == 4, said
    with open(device, "rb") as file:
        assert file.read(MIB) == bytes(MIB)
        file.seek(-MIB, os.SEEK_END)
        assert file.read() == bytes(MIB)


def test_a_device_in_use_is_refused_and_left_alone(node: Fake, device: Path) -> None:
    node.image()
    held = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        code, said = create(node, device)
    finally:
        os.close(held)
    assert code == 3 and "cannot be opened: it is mounted or in use" in said
    assert device.read_bytes()[:14] == b"former tenant!"
