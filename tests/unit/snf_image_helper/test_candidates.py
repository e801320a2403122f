"""Where the root may be, decided by what was seen on the disk."""

from __future__ import annotations

import pytest
from snf_image_helper.candidates import (
    candidates,
    must_be_looked_at,
    named_block,
    refusal,
    refuse_other_bsd,
    root_subvolume,
    system_of,
)
from snf_image_helper.image import Block, Content, Filesystem, FilesystemKind, Place, SwapSpace
from snf_image_helper.partitions import (
    BOOT_GPT,
    DATA_GPT,
    EFI_GPT,
    FREEBSD_GPT,
    LINUX_GPT,
    LINUX_ROOT_GPT,
    Mbr,
    Partition,
    TableError,
)

from synnefo_light.tasks import OsFamily
from tests.unit.snf_image_helper.fake_image import FakeFiles, Link

EXT4, XFS, BTRFS = FilesystemKind.EXT4, FilesystemKind.XFS, FilesystemKind.BTRFS
VFAT, NTFS, UFS = FilesystemKind.VFAT, FilesystemKind.NTFS, FilesystemKind.UFS


def at(number: int, kind: str | int, content: FilesystemKind | SwapSpace | Content | None) -> Block:
    partition = Partition(number=number, start=2048 * number, sectors=2048, kind=kind, where=0)
    seen = Filesystem(kind=content, size=1) if isinstance(content, FilesystemKind) else content
    return Block(place=Place(partition=number), size=1 << 20, content=seen, partition=partition)


def volume(name: str, kind: FilesystemKind) -> Block:
    return Block(place=Place(volume=name), size=1 << 20, content=Filesystem(kind=kind, size=1))


@pytest.mark.parametrize(
    ("blocks", "family", "places"),
    [
        ([at(1, LINUX_GPT, EXT4), at(2, LINUX_ROOT_GPT, XFS)], None, [2, 1]),
        ([at(1, EFI_GPT, VFAT), at(2, BOOT_GPT, EXT4), at(3, DATA_GPT, XFS)], None, [3]),
        ([at(1, DATA_GPT, EXT4), at(2, LINUX_GPT, EXT4)], None, [2, 1]),
        ([at(1, DATA_GPT, NTFS), at(2, LINUX_GPT, EXT4)], None, [2, 1]),
        ([at(1, DATA_GPT, NTFS), at(2, LINUX_GPT, EXT4)], OsFamily.WINDOWS, [1]),
        ([at(1, DATA_GPT, NTFS)], OsFamily.LINUX, []),
        ([at(1, EFI_GPT, VFAT), at(2, FREEBSD_GPT, UFS)], None, [2]),
        ([at(1, FREEBSD_GPT, UFS), at(2, LINUX_GPT, EXT4)], None, [2, 1]),
        ([at(1, 0x83, EXT4), at(2, 0x8E, Content.LVM), volume("vg/root", XFS)], None, ["vg/root", 1]),
        ([at(1, 0x82, SwapSpace(uuid="", label="")), at(2, 0x83, Content.LUKS), at(3, 0x83, None)], None, []),
    ],
)
def test_the_likeliest_place_comes_first(blocks: list[Block], family: OsFamily | None, places: list[int | str]) -> None:
    assert [b.place.partition or b.place.volume for b in candidates(blocks, family)] == places


def test_one_plain_candidate_needs_no_mount_and_others_do() -> None:
    assert not must_be_looked_at([at(1, LINUX_GPT, EXT4)])
    assert not must_be_looked_at([at(1, FREEBSD_GPT, UFS)])
    assert must_be_looked_at([at(1, LINUX_GPT, BTRFS)])
    assert must_be_looked_at([at(1, LINUX_GPT, EXT4), at(2, LINUX_GPT, EXT4)])


@pytest.mark.parametrize(
    ("tree", "subvolume"),
    [
        ({"etc/os-release": ""}, ""),
        ({"@rootfs/etc/debian_version": "12\n"}, "@rootfs"),
        ({"root/usr/lib/os-release": "", "home/user/x": ""}, "root"),
        ({"@/etc/fstab": "UUID=x / btrfs subvol=@ 0 0\n"}, "@"),
        ({"@/.snapshots/1/snapshot/etc/os-release": ""}, "@/.snapshots/1/snapshot"),
        ({"@/etc/os-release": "", "@/etc/fstab": "UUID=x / btrfs subvol=gone 0 0\n"}, "@"),
        ({"etc/os-release": "", "etc/fstab": "LABEL=x / btrfs subvol=/v2\n", "v2/etc/os-release": ""}, "v2"),
        ({"@home/user/x": ""}, None),
    ],
)
def test_the_subvolume_with_the_system_is_the_root(
    tree: dict[str, str | bytes | Link | None], subvolume: str | None
) -> None:
    assert root_subvolume(FakeFiles(tree)) == subvolume


def test_a_system_is_told_by_its_files() -> None:
    assert system_of(FakeFiles({"etc/os-release": ""}), EXT4) is OsFamily.LINUX
    assert system_of(FakeFiles({"Windows/System32/ntdll.dll": ""}), NTFS) is OsFamily.WINDOWS
    assert system_of(FakeFiles({"etc/os-release": ""}), NTFS) is None
    assert system_of(FakeFiles({"home/user/x": ""}), XFS) is None


def test_a_refusal_names_what_is_there() -> None:
    blocks = [
        at(1, EFI_GPT, VFAT),
        at(2, LINUX_GPT, Content.LUKS),
        at(3, 0x82, SwapSpace(uuid="", label="")),
        at(4, LINUX_GPT, None),
        at(5, 0xFD, Content.MD),
    ]
    assert refusal(blocks, OsFamily.LINUX) == (
        "no partition of the image was recognised as the root of a system of the family linux: partition 1 holds vfat; "
        "partition 2 holds an encrypted volume (LUKS); partition 3 holds swap space; partition 4 holds nothing that is "
        "known here; partition 5 holds a member of a RAID (md); give an image with a root that is not encrypted, or "
        "name it by ROOT_PARTITION"
    )


@pytest.mark.parametrize(
    ("kind", "family", "name"),
    [
        (0xA6, None, "OpenBSD"),
        (0xA9, None, "NetBSD"),
        (0xA5, None, "FreeBSD with an MBR"),
        ("49f48d5a-b10e-11dc-b99b-0019d1879648", None, "NetBSD"),
        (0x83, OsFamily.OPENBSD, "OpenBSD"),
        (0x83, OsFamily.NETBSD, "NetBSD"),
    ],
)
def test_the_bsds_that_cannot_be_customised_are_refused(kind: str | int, family: OsFamily | None, name: str) -> None:
    partition = Partition(number=1, start=2048, sectors=2048, kind=kind, where=0)
    table = Mbr(partitions=(partition,), extended=None, records=())
    with pytest.raises(TableError, match=f"the image is of {name}, .* EXCLUDE_ALL_TASKS=yes"):
        refuse_other_bsd(table, family)


def test_a_named_partition_must_be_there() -> None:
    table = Mbr(partitions=(), extended=None, records=())
    with pytest.raises(TableError, match="ROOT_PARTITION is 2, but the image has the partitions none at all"):
        named_block([at(1, 0x83, EXT4)], 2, table)
    with pytest.raises(TableError, match="ROOT_PARTITION is 2, but the image has no partition table"):
        named_block([], 2, None)
