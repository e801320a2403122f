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
