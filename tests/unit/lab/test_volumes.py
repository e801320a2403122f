"""The lab's folder of volumes: how large its image is, and whose loop devices are on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snf_extstorage.directory.loops import Loops
from snf_lab import volumes
from snf_lab.mounts import Loop
from snf_lab.state import State

from synnefo_light.errors import EnvironmentFault


@pytest.mark.parametrize(("free", "size"), [(1 << 40, 64 << 30), (20 << 30, 18 << 30), (5 << 30, 9 << 29)])
def test_the_image_leaves_a_tenth_of_the_disk(free: int, size: int) -> None:
    assert volumes.plan_size(free) == size


def test_a_disk_that_is_nearly_full_gets_no_image() -> None:
    with pytest.raises(EnvironmentFault, match="need 4 GiB of disk, but 2048 MiB are free"):
        volumes.plan_size(2 << 30)


def test_a_nodes_loop_devices_are_known_by_the_tag_that_its_scripts_give_them() -> None:
    given = Loops("node2.lab.test", hints=Path("/nowhere"))._tag("a-volume")
    assert volumes.parse_tag(given.ljust(64, b"\0")) == volumes.tag(2)
    assert volumes.tag(2) != volumes.tag(1)


@pytest.mark.parametrize("name", [b"", b"/srv/disk.img", b"snf:", b"snf:a", b"other:a:b"])
def test_other_loop_devices_have_no_tag(name: bytes) -> None:
    assert volumes.parse_tag(name.ljust(64, b"\0")) == ""


def loop(number: int, file: str, device: tuple[int, int], inode: int) -> Loop:
    return Loop(device=Path(f"/dev/loop{number}"), file=file, file_device=device, file_inode=inode)


def test_a_loop_device_of_another_lab_is_not_ours_though_its_node_has_the_same_name(tmp_path: Path) -> None:
    state = State(tmp_path)
    disk = state.volumes / "volumes" / "v" / "disk"
    disk.parent.mkdir(parents=True)
    disk.write_bytes(b"")
    found = disk.stat()
    here = (os.major(found.st_dev), os.minor(found.st_dev))
    ours = loop(1, "/srv/snf-store/volumes/v/disk", here, found.st_ino)
    lost = loop(2, "/srv/snf-store/volumes/v/disk (deleted)", here, 2)
    others = loop(3, "/srv/snf-store/volumes/v/disk", here, found.st_ino + 1_000_000)
    elsewhere = loop(4, "/srv/snf-store/volumes/v/disk", (here[0], here[1] + 1), found.st_ino)
    assert volumes.loops_on(state, [ours, lost, others, elsewhere]) == [ours, lost]
    assert volumes.loops_on(State(tmp_path / "none"), [ours]) == []
