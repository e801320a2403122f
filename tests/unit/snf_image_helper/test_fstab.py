"""Which mounts an image's fstab asks for, and which of them are granted."""

from __future__ import annotations

import pytest
from snf_image_helper.fstab import FstabLine, Mount, parse_fstab, plan_mounts
from snf_image_helper.image import Block, Content, Filesystem, FilesystemKind, Place, RootPath, SwapSpace
from snf_image_helper.partitions import LINUX_GPT, Partition

ROOT = "11111111-2222-3333-4444-555555555555"


def block(
    number: int, kind: FilesystemKind, *, uuid: str = "", label: str = "", name: str = "", guid: str = ""
) -> Block:
    partition = Partition(number=number, start=2048, sectors=2048, kind=LINUX_GPT, where=0, name=name, guid=guid)
    content = Filesystem(kind=kind, size=1 << 20, uuid=uuid, label=label)
    return Block(place=Place(partition=number), size=1 << 20, content=content, partition=partition)


BLOCKS = (
    block(1, FilesystemKind.BTRFS, uuid=ROOT, label="root"),
    block(2, FilesystemKind.EXT4, uuid="aaaa-bbbb", label="boot", name="the boot", guid="0fc6-11"),
    block(3, FilesystemKind.VFAT, uuid="ABCD-0123", label="EFI"),
    block(4, FilesystemKind.NTFS, uuid="0011223344556677"),
    Block(place=Place(partition=5), size=1 << 20, content=SwapSpace(uuid="5555", label="swap")),
    Block(place=Place(partition=6), size=1 << 20, content=Content.LUKS),
    Block(
        place=Place(volume="vg-0/ho-me"),
        size=1 << 20,
        content=Filesystem(kind=FilesystemKind.XFS, size=1, label="home"),
    ),
    block(7, FilesystemKind.EXT4, label="twice"),
    block(8, FilesystemKind.EXT4, label="twice"),
)


def granted(*lines: str) -> tuple[Mount, ...]:
    return plan_mounts(parse_fstab("\n".join(lines)), BLOCKS).mounts


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ("UUID=aaaa-bbbb", Place(partition=2)),
        ('UUID="aaaa-bbbb"', Place(partition=2)),
        ("UUID=AAAA-BBBB", Place(partition=2)),
        ("LABEL=boot", Place(partition=2)),
        ("PARTUUID=0fc6-11", Place(partition=2)),
        ("PARTLABEL=the\\040boot", Place(partition=2)),
        ("UUID=ABCD-0123", Place(partition=3)),
        ("/dev/disk/by-uuid/aaaa-bbbb", Place(partition=2)),
        ("/dev/disk/by-label/boot", Place(partition=2)),
        ("/dev/disk/by-partuuid/0fc6-11", Place(partition=2)),
        ("/dev/vda2", Place(partition=2)),
        ("/dev/sda3", Place(partition=3)),
        ("/dev/xvda2", Place(partition=2)),
        ("/dev/mapper/vg--0-ho--me", Place(volume="vg-0/ho-me")),
        ("/dev/vg-0/ho-me", Place(volume="vg-0/ho-me")),
        ("LABEL=home", Place(volume="vg-0/ho-me")),
    ],
)
def test_a_device_is_found_by_each_of_its_names(device: str, place: Place) -> None:
    assert [m.place for m in granted(f"{device} /boot auto defaults 0 0")] == [place]


@pytest.mark.parametrize(
    "line",
    [
        "UUID=aaaa-bbbb /proc ext4 defaults 0 0",
        "UUID=aaaa-bbbb /dev ext4 defaults 0 0",
        "UUID=aaaa-bbbb / ext4 defaults 0 0",
        "UUID=aaaa-bbbb /boot/../dev ext4 defaults 0 0",
        "UUID=aaaa-bbbb boot ext4 defaults 0 0",
        "UUID=aaaa-bbbb /boot ext4 noauto 0 0",
        "#UUID=aaaa-bbbb /boot ext4 defaults 0 0",
        "UUID=aaaa-bbbb /boot",
        "UUID=0011223344556677 /boot ntfs defaults 0 0",
        "UUID=5555 /boot ext4 defaults 0 0",
        "/dev/sdb2 /boot ext4 defaults 0 0",
        "/dev/vda6 /boot ext4 defaults 0 0",
        "/dev/vda99 /boot ext4 defaults 0 0",
        "/etc/passwd /boot ext4 loop 0 0",
        "LABEL=twice /boot ext4 defaults 0 0",
        "LABEL= /boot ext4 defaults 0 0",
        "proc /boot proc defaults 0 0",
        "host:/export /home nfs defaults 0 0",
        "overlay /usr overlay lowerdir=/ 0 0",
    ],
)
def test_what_is_not_on_the_disk_or_not_of_the_list_is_not_mounted(line: str) -> None:
    assert granted(line) == ()


def test_outer_mounts_come_first_and_each_point_once() -> None:
    lines = (
        "LABEL=EFI /boot/efi vfat defaults 0 0",
        "LABEL=boot /boot/ ext4 defaults 0 0",
        "LABEL=home /boot xfs defaults 0 0",
    )
    assert [(m.point, m.kind.value) for m in granted(*lines)] == [("/boot", "ext4"), ("/boot/efi", "vfat")]


def test_a_subvolume_that_only_has_a_number_is_missing() -> None:
    line = f"UUID={ROOT} /home btrfs subvolid=257 0 0"
    assert granted(line) == () and granted(line.replace("=257", "=257,subvol=@home"))[0].subvolume == "@home"
    assert [m.point for m in plan_mounts(parse_fstab(line), BLOCKS).missing] == ["/home"]


@pytest.mark.parametrize(
    ("options", "subvolume"),
    [
        ("subvol=@home", "@home"),
        ("compress=zstd:1,subvol=/@/home,ro", "@/home"),
        ("subvol=../../etc", ""),
        ("subvol=a;b", ""),
        ("defaults", ""),
        ("subvol=@,subvol=@home", "@"),
    ],
)
def test_the_subvolume_is_the_only_option_that_counts(options: str, subvolume: str) -> None:
    expected = Mount(point=RootPath("/home"), place=Place(partition=1), kind=FilesystemKind.BTRFS, subvolume=subvolume)
    assert granted(f"UUID={ROOT} /home btrfs {options} 0 0") == (expected,)
    assert granted("LABEL=boot /home ext4 subvol=@home 0 0")[0].subvolume == ""


@pytest.mark.parametrize(
    ("line", "warned"),
    [
        ("tmpfs /var/log tmpfs size=10m 0 0", False),
        ("nas:/export /home nfs defaults 0 0", False),
        ("/data/home /home none bind 0 0", False),
        ("/dev/sdb1 /home ext4 defaults 0 0", True),
        ("PARTUUID=ffff /home ext4 defaults 0 0", True),
    ],
)
def test_only_what_should_be_on_a_disk_is_missing(line: str, warned: bool) -> None:
    assert bool(plan_mounts(parse_fstab(line), BLOCKS).missing) is warned


def test_a_line_with_nofail_is_remembered() -> None:
    lines = ("LABEL=boot /boot ext4 defaults,nofail 0 0", "LABEL=EFI /boot/efi vfat defaults 0 0")
    assert [m.nofail for m in granted(*lines)] == [True, False]


def test_a_file_of_noise_is_bounded_and_does_no_harm() -> None:
    noise = "\n".join(f"LABEL=x{n} /var auto \\777 0 0" for n in range(10_000)) + "\x00\xff \t\n"
    assert len(parse_fstab(noise)) == 512
    planned = plan_mounts(parse_fstab(noise), BLOCKS)
    assert planned.mounts == () and len(planned.missing) == 512


def test_octal_escapes_are_undone() -> None:
    (line,) = parse_fstab("LABEL=a\\040b /mnt/c\\011d auto")
    assert line == FstabLine(device="LABEL=a b", point="/mnt/c\td", kind="auto", options=())
