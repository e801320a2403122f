"""What is unmounted, and in which order; and the search for a root that goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from snf_image_helper import inspection, mount_points, mounting
from snf_image_helper.apply import Machine
from snf_image_helper.image import Block, Filesystem, FilesystemKind, ImageError, Place
from snf_image_helper.partitions import TableError
from snf_image_helper.rootfs import RootFs

from synnefo_light.errors import EnvironmentFault
from synnefo_light.tasks import OsFamily
from tests.unit.snf_image_helper.fake_image import manifest

MOUNTINFO = """\
20 1 0:18 / / ro,relatime - squashfs /dev/vdc ro
21 20 0:5 / /dev rw - devtmpfs none rw
30 20 254:18 / /mnt rw,nosuid,nodev,noexec - ext4 /dev/vdb2 rw
31 30 254:19 / /mnt/var\\040old/lib rw,nosuid - ext4 /dev/vdb3 rw
32 31 254:20 / /mnt/var\\040old/lib/\\377\r rw,nosuid - ext4 /dev/vdb4 rw
33 20 254:21 / /mnt2 rw - ext4 /dev/vdb5 rw
"""


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(MOUNTINFO.encode())
    monkeypatch.setattr(mount_points, "MOUNTINFO", tmp_path / "mountinfo")


POINTS = ["/mnt", "/mnt/var old/lib", "/mnt/var old/lib/\udcff\r"]


@pytest.mark.usefixtures("mounted")
def test_mount_points_are_those_at_and_below_a_folder() -> None:
    assert mount_points.mount_points("/mnt") == POINTS


@pytest.mark.usefixtures("mounted")
def test_what_is_mounted_is_unmounted_where_it_is_now_inner_ones_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmounted: list[str] = []
    monkeypatch.setattr(mounting, "umount", unmounted.append)
    stack = mounting.MountStack()
    stack.root = RootFs(str(tmp_path))
    assert stack.umount() and unmounted == POINTS[::-1]
    assert not stack.umount()


@pytest.mark.usefixtures("mounted")
def test_an_image_that_cannot_be_unmounted_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(target: str) -> None:
        raise OSError(16, "Device or resource busy", target)

    monkeypatch.setattr(mounting, "umount", busy)
    stack = mounting.MountStack()
    stack.root = RootFs(str(tmp_path))
    with pytest.raises(EnvironmentFault, match="the image cannot be unmounted: Device or resource busy"):
        stack.umount()


def place(number: int) -> Block:
    content = Filesystem(kind=FilesystemKind.EXT4, size=1 << 20)
    return Block(place=Place(partition=number), size=1 << 20, content=content)


def looking(
    *answers: tuple[OsFamily, str] | Exception | None,
) -> Callable[[Machine, Block], tuple[OsFamily, str] | None]:
    def look(machine: Machine, block: Block) -> tuple[OsFamily, str] | None:
        answer = answers[(block.place.partition or 0) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return look


BROKEN = ImageError("/etc/os-release of the image is a chain of links without an end")
UNMOUNTABLE = EnvironmentFault("the image's ext4 file system cannot be mounted: Structure needs cleaning")


def test_a_place_that_cannot_be_looked_at_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_system_on", looking(UNMOUNTABLE, BROKEN, (OsFamily.LINUX, "")))
    found = inspection._choose(None, [place(1), place(2), place(3)], manifest())  # type: ignore[arg-type]
    assert found.place == Place(partition=3)


def test_where_no_system_is_found_the_place_that_could_not_be_looked_at_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inspection, "_system_on", looking(None, BROKEN, None))
    with pytest.raises(TableError, match="; partition 2 could not be looked at: /etc/os-release of the image is a"):
        inspection._choose(None, [place(1), place(2), place(3)], manifest())  # type: ignore[arg-type]
