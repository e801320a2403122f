"""Extents shared between volumes and blocks, on a real XFS; filefrag(8) and statvfs(3) say whether they are."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from synnefo_light.store import copying, fsck, maps, names, scrub
from synnefo_light.store.backend import Kind
from synnefo_light.store.commit import Commit
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.directory_batch import DirectoryBatch
from synnefo_light.store.identity import BLOCK_SIZE, block_id
from synnefo_light.store.store import open_store
from tests.real.store import operations
from tests.real.store.contents import block, entry

FICLONERANGE = 0x4020940D


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    for tool in ("mkfs.xfs", "filefrag"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")
    if not Path("/dev/loop-control").exists():
        pytest.skip("/dev/loop-control is missing")
    folder = tmp_path_factory.mktemp("xfs")
    image, mount = folder / "image", folder / "mount"
    with open(image, "wb") as file:
        file.truncate(1 << 30)
    mount.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True, timeout=60)
    for number in range(64):  # a container's /dev lacks the nodes of devices that were added since
        if not Path(f"/dev/loop{number}").exists() and Path(f"/sys/block/loop{number}").exists():
            os.mknod(f"/dev/loop{number}", 0o660 | stat.S_IFBLK, os.makedev(7, number))
    subprocess.run(["mount", "-o", "loop", image, mount], check=True, timeout=60)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True, timeout=60)


def flags(path: Path) -> str:
    return subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True, timeout=60).stdout


def used(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_frsize * (found.f_blocks - found.f_bfree)


def test_a_volume_is_committed_and_composed_without_copying(xfs: Path) -> None:
    count = 32
    store = open_store(make_directory(xfs / "store", operations.FORM))
    assert isinstance(store.backend, Directory)
    volume = xfs / "volume"
    volume.write_bytes(
        b"".join(block(n + 1, BLOCK_SIZE - 4096 * (n % 3)).ljust(BLOCK_SIZE, b"\0") for n in range(count))
    )
    with open(volume, "ab") as file:
        file.write(block(99, 5000))
    size = volume.stat().st_size
    os.sync()
    before = used(xfs)
    with open(volume, "rb") as file, Commit(store, size=size, owner="volume") as commit:
        copying.take_file(commit, file.fileno(), size)
        map_id = commit.finish()
        assert isinstance(commit._batch, DirectoryBatch)
        assert (commit._batch.shared, commit._batch.copied) == (count + 1, 0)
        names.publish(store, "volume", entry(map_id, size), under=commit.held)
    os.sync()
    assert used(xfs) - before < 2 << 20
    opened = maps.open_map(store, map_id)
    first = block_id(block(1, BLOCK_SIZE))
    assert opened.block(0) == first
    assert "shared" in flags(store.backend.final(Kind.BLOCK, first.hex()))
    assert scrub.scrub(store, bytes_per_s=1e12).damaged == []

    composed = xfs / "composed"
    with open(composed, "wb") as file:
        for index, found in opened.blocks():
            source = store.backend.open_block(found)
            fcntl.ioctl(file, FICLONERANGE, struct.pack("=qQQQ", source, 0, 0, index * BLOCK_SIZE))
            os.close(source)
        file.truncate(size)
    os.sync()
    assert used(xfs) - before < 4 << 20
    assert subprocess.run(["cmp", volume, composed], check=False, timeout=60).returncode == 0
    volume.unlink()
    composed.unlink()
    assert opened.read(count).startswith(block(99, 5000))
    assert fsck.check(store).problems == []


def test_what_is_committed_does_not_change_with_the_volume(xfs: Path) -> None:
    store = open_store(make_directory(xfs / "store-2", operations.FORM))
    volume = xfs / "volume-2"
    volume.write_bytes(block(1, BLOCK_SIZE))
    with open(volume, "r+b", buffering=0) as file, Commit(store, size=BLOCK_SIZE, owner="volume") as commit:
        taken = commit.take(0, file.fileno(), 0)
        file.write(b"the guest goes on writing")
        os.fsync(file.fileno())
        map_id = commit.finish()
        assert taken == block_id(block(1, BLOCK_SIZE))
        assert maps.open_map(store, map_id).read(0) == block(1, BLOCK_SIZE)
