"""The lab's folder of volumes: how large its image is, and whose loop devices are on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_extstorage.directory.loops import Loops
from snf_lab import volumes

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
