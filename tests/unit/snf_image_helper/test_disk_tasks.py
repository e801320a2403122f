"""What the tasks below files plan: partitions, LVM, mounts, file systems, the seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from snf_image_helper.actions import (
    GrowMounted,
    GrowVolume,
    MakeFolder,
    MakeSeed,
    MakeSwap,
    MountBelow,
    MountRoot,
    Warn,
    WriteTable,
)
from snf_image_helper.image import (
    Block,
    Content,
    Filesystem,
    FilesystemKind,
    Image,
    ImageError,
    NoFiles,
    Place,
    RootPath,
    Skipped,
    SwapSpace,
    VolumeGroup,
)
from snf_image_helper.partitions import DATA_GPT, FREEBSD_GPT, SWAP_MBR, Partition, TableError, parse_table

from synnefo_light.tasks import OsFamily
from tests.unit.snf_image_helper.fake_image import Link, fake_image, linux
from tests.unit.snf_image_helper.test_partitions import gpt_disk
from tests.unit.snf_image_helper.test_tasks import mbr, planned


def test_swap_behind_the_root_is_made_anew_with_its_names_at_the_end() -> None:
    root, behind = linux(1, 2048, 20480), Partition(number=2, start=22528, sectors=4096, kind=SWAP_MBR, where=0)
    swap = Block(place=Place(partition=2), size=2 << 20, content=SwapSpace(uuid="u-u", label="swap0"), partition=behind)
    image = replace(fake_image(table=mbr(root, behind), partition=root), blocks=(swap,))
    table, made = planned("partition_table", image)
    assert isinstance(table, WriteTable)
    assert made == MakeSwap(disk=0, partition=2, uuid="u-u", label="swap0")


@pytest.mark.parametrize("content", [None, Content.HIBERNATED, Filesystem(kind=FilesystemKind.EXT4, size=1 << 20)])
def test_what_only_has_the_type_of_swap_stays_where_it_is(content: Content | Filesystem | None) -> None:
    root, behind = linux(1, 2048, 20480), Partition(number=2, start=22528, sectors=4096, kind=SWAP_MBR, where=0)
    block = Block(place=Place(partition=2), size=2 << 20, content=content, partition=behind)
    image = replace(fake_image(table=mbr(root, behind), partition=root), blocks=(block,))
    (warning,) = planned("partition_table", image)
    assert warning == Warn(text="partition 1 (root) was not grown, because partition 2 is behind it")


def on_lvm(*numbers: int) -> Image:
    partitions = [linux(n, 2048 + 8192 * n, 8192) for n in numbers]
    blocks = [
        Block(place=Place(partition=p.number), size=4 << 20, content=Content.LVM, partition=p) for p in partitions
    ]
    image = fake_image(table=mbr(*partitions))
    group = VolumeGroup(name="vg", partitions=tuple(numbers), free_extents=0, extent_size=4 << 20)
    return replace(image, blocks=tuple(blocks), group=group, root=replace(image.root, volume="vg/root"))


def test_the_last_physical_volume_grows_and_then_the_roots_volume() -> None:
    image = on_lvm(1, 2)
    assert image.growing == 2
    (write,) = planned("partition_table", image)
    assert isinstance(write, WriteTable)
    assert planned("lvm", image) == [GrowVolume(volume="vg/root", partitions=(1, 2))]
    assert planned("mount", image) == [MountRoot(place=Place(volume="vg/root"), kind=FilesystemKind.EXT4)]


def test_lvm_is_left_alone_where_the_root_is_not_on_it() -> None:
    with pytest.raises(Skipped, match="not on a logical volume"):
        planned("lvm", fake_image())


@pytest.mark.parametrize("kind", [FilesystemKind.XFS, FilesystemKind.BTRFS])
@pytest.mark.parametrize(("size", "grows"), [(48, True), (512, False)])
def test_xfs_and_btrfs_grow_mounted_if_there_is_room(kind: FilesystemKind, size: int, grows: bool) -> None:
    image = fake_image(kind=kind, filesystem_mib=size)
    actions = planned("filesystem_grow_mounted", replace(image, root=replace(image.root, size=512 << 20)))
    assert actions == ([GrowMounted(kind=kind)] if grows else [])


def test_a_btrfs_that_linux_cannot_resize_keeps_its_size_with_a_warning() -> None:
    (warning,) = planned("filesystem_grow_mounted", fake_image(kind=FilesystemKind.BTRFS, filesystem_mib=48))
    assert isinstance(warning, Warn) and "256 MiB" in warning.text


def test_only_what_is_mounted_grows_mounted() -> None:
    with pytest.raises(Skipped, match="ext4 is not grown while"):
        planned("filesystem_grow_mounted", fake_image())
    with pytest.raises(Skipped, match="not mounted"):
        planned("filesystem_grow_mounted", replace(fake_image(kind=FilesystemKind.XFS), files=NoFiles()))


def test_others_are_mounted_as_fstab_says_and_the_missing_are_named() -> None:
    fstab = "LABEL=boot /boot ext4 defaults 0 0\nLABEL=x /home ext4 defaults 0 0\nLABEL=y /srv ext4 nofail 0 0\n"
    found = Filesystem(kind=FilesystemKind.EXT4, size=1 << 20, label="boot")
    boot = Block(place=Place(partition=2), size=1 << 20, content=found)
    image = replace(fake_image({"etc/fstab": fstab, "boot": None}), blocks=(boot,))
    assert planned("mount_others", image) == [
        MountBelow(point=RootPath("/boot"), place=Place(partition=2), kind=FilesystemKind.EXT4, needed=False),
        Warn(text="what the image's fstab mounts at /home (LABEL=x) was not found on its disk"),
    ]
    assert planned("mount_others", fake_image({})) == []


@pytest.mark.parametrize(
    ("point", "options", "asked", "needed"),
    [
        ("/var", "defaults", {}, True),
        ("/var", "nofail", {}, False),
        ("/srv", "defaults", {}, False),
        ("/srv", "nofail", {"custom_task": ""}, False),
        ("/srv", "defaults", {"custom_task": ""}, True),
        ("/srv", "defaults", {"files": [{"path": "/srv/x", "contents": ""}]}, True),
        ("/srv", "defaults", {"files": [{"path": "/srv2/x", "contents": ""}]}, False),
        ("/home", "defaults", {"authorized_keys": "ssh-ed25519 A"}, True),
        ("/boot", "defaults", {"authorized_keys": "ssh-ed25519 A"}, False),
    ],
)
def test_a_mount_is_needed_where_something_is_written_and_fstab_does_not_say_nofail(
    point: str, options: str, asked: dict[str, object], needed: bool
) -> None:
    found = Filesystem(kind=FilesystemKind.EXT4, size=1 << 20, label="x")
    block = Block(place=Place(partition=2), size=1 << 20, content=found)
    image = fake_image({"etc/fstab": f"LABEL=x {point} ext4 {options} 0 0\n", point: None})
    assert planned("mount_others", replace(image, blocks=(block,)), **asked) == [
        MountBelow(point=RootPath(point), place=Place(partition=2), kind=FilesystemKind.EXT4, needed=needed)
    ]


def test_a_mount_point_that_is_missing_is_made_unless_it_is_of_another_mount_or_a_link() -> None:
    fstab = "".join(f"LABEL={n} {point} ext4 x\n" for n, point in enumerate(("/opt", "/boot", "/boot/efi", "/srv"), 1))
    blocks = tuple(
        Block(
            place=Place(partition=n),
            size=1 << 20,
            content=Filesystem(kind=FilesystemKind.EXT4, size=1 << 20, label=str(n)),
        )
        for n in range(1, 5)
    )
    tree: dict[str, str | bytes | Link | None] = {"etc/fstab": fstab, "boot": None, "srv": Link("nowhere")}
    actions = planned("mount_others", replace(fake_image(tree), blocks=blocks))
    assert [a.path for a in actions if isinstance(a, MakeFolder)] == ["/opt"]
    assert [a.point for a in actions if isinstance(a, MountBelow)] == ["/boot", "/opt", "/srv", "/boot/efi"]


def freebsd(*names: str) -> Image:
    """A GPT with a partition of UFS and, by `names`, others behind it."""
    disk = gpt_disk(
        {n: (2048 * n, 2048 * n + 2047) for n in range(1, len(names) + 2)},
        kinds={1: FREEBSD_GPT, **dict.fromkeys(range(2, len(names) + 2), DATA_GPT)},
        names=dict(enumerate(names, 2)),
    )
    table = parse_table(disk.read, disk_sectors=disk.sectors)
    assert table is not None
    image = fake_image(table=table, partition=table.partitions[0], kind=FilesystemKind.UFS)
    return replace(image, family=OsFamily.FREEBSD, disk_size=256 << 20)


def test_freebsd_gets_a_seed_behind_its_larger_root() -> None:
    (write,) = planned("partition_table", freebsd())
    assert isinstance(write, WriteTable)
    (made,) = planned("seed", freebsd("cidata"))
    assert isinstance(made, MakeSeed) and made.partition == 2
    assert [name for name, _ in made.files] == ["meta-data", "user-data"]
    with pytest.raises(ImageError, match="no partition cidata"):
        planned("seed", freebsd())


def test_the_seed_needs_a_gpt() -> None:
    root = linux(1, 2048, 20480)
    with pytest.raises(TableError, match="needs a GPT"):
        planned("seed", replace(fake_image(table=mbr(root), partition=root), family=OsFamily.FREEBSD))
