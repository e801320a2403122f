"""The guest image as data: where things lie on the disk, and that one recipe has one name."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from snf_lab.guest_filesystems import logical_volume, plan_fill_root
from snf_lab.guest_layout import MIB, SECTOR, Firmware, Table, plan_layout
from snf_lab.guest_recipe import STALE_MACHINE_ID, GuestRecipe, NetworkStack, Release, RootKind, plan_guest

RELEASES: tuple[Release, ...] = ("bookworm", "trixie")
TABLES: tuple[Table, ...] = ("gpt", "mbr")
STACKS: tuple[NetworkStack, ...] = ("ifupdown", "networkd", "netplan")
ALL = [GuestRecipe(release=r, table=t, network=n) for r, t, n in itertools.product(RELEASES, TABLES, STACKS)]


@pytest.mark.parametrize("recipe", ALL, ids=str)
def test_the_root_is_last_ends_before_the_backup_table_and_does_not_meet_grub(recipe: GuestRecipe) -> None:
    plan = plan_guest(recipe)
    root, core = plan.layout.root, plan.layout.core
    assert core is not None and core.end <= root.start
    assert root.end <= plan.disk_size // SECTOR - (33 if recipe.table == "gpt" else 0)
    assert root.offset % MIB == 0
    assert f"offset={root.offset}," in " ".join(plan.filesystem_options)


@pytest.mark.parametrize("table", ["gpt", "logical"])
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_parts_of_a_disk_follow_each_other_and_the_root_is_last(table: Table, firmware: Firmware) -> None:
    if table == "logical" and firmware == "uefi":
        with pytest.raises(ValueError, match="UEFI"):
            plan_layout(table=table, firmware=firmware, apart=True, size_mib=1280)
        return
    layout = plan_layout(table=table, firmware=firmware, apart=True, size_mib=1280)
    parts = [part for part in (layout.core, layout.esp, layout.boot, layout.root) if part is not None]
    assert all(one.end <= other.start for one, other in itertools.pairwise(parts))
    assert len(parts) == 3 and parts[-1] == layout.root


def test_a_logical_volume_is_in_whole_extents_behind_its_groups_metadata() -> None:
    root = plan_guest(GuestRecipe(root="lvm", boot_apart=True)).layout.root
    volume = logical_volume(root)
    assert volume.start == root.start + 2048
    assert volume.size % (4 * MIB) == 0 and 0 <= root.end - volume.end < 8192


@pytest.mark.parametrize(("kind", "says"), [("xfs", "mkfs.xfs"), ("btrfs", "subvolume create"), ("lvm", "lvcreate")])
def test_each_kind_of_root_is_filled_by_its_own_tools_in_a_namespace(kind: RootKind, says: str) -> None:
    plan = plan_guest(GuestRecipe(root=kind))
    first = plan_fill_root(plan, disk=Path("/d"), tree=Path("/t"), mount_point=Path("/m"))[0]
    assert first[:3] == ["unshare", "--mount", "--propagation"] and says in str(first[-1])


def test_a_recipe_has_the_same_name_each_time_and_no_two_share_one() -> None:
    keys = [plan_guest(recipe).key for recipe in ALL]
    assert keys == [plan_guest(recipe).key for recipe in ALL]
    assert len(set(keys)) == len(ALL)
    assert plan_guest(GuestRecipe(size_mib=1281)).key not in keys


def test_a_gpt_script_has_the_root_as_1_and_the_boot_partition_as_14() -> None:
    lines = plan_guest(GuestRecipe(size_mib=1280)).partition_script.splitlines()
    assert lines[0] == "label: gpt"
    assert [line.split(" : ")[0] for line in lines[2:]] == ["disk1", "disk14"]
    assert "start=8192, size=2611200" in lines[2] and "start=2048, size=6144" in lines[3]


def test_an_mbr_script_has_one_bootable_partition() -> None:
    lines = plan_guest(GuestRecipe(table="mbr")).partition_script.splitlines()
    assert lines[0] == "label: dos" and lines[2].endswith("type=83, bootable")


def test_grub_finds_the_root_that_mke2fs_makes_and_fstab_mounts() -> None:
    plan = plan_guest(GuestRecipe())
    assert plan.root_uuid in plan.filesystem_options
    for text in (plan.grub_embedded, plan.late_files["boot/grub/grub.cfg"], plan.late_files["etc/fstab"]):
        assert plan.root_uuid in text
    assert "console=ttyS0,115200" in plan.late_files["boot/grub/grub.cfg"]


def test_the_file_system_has_nothing_that_grub_cannot_read() -> None:
    options = plan_guest(GuestRecipe()).filesystem_options
    assert options[options.index("-O") + 1] == "^metadata_csum_seed,^orphan_file"


def test_the_image_is_stale_and_its_root_is_locked() -> None:
    plan = plan_guest(GuestRecipe())
    assert plan.late_files["etc/machine-id"] == f"{STALE_MACHINE_ID}\n"
    assert plan.late_files["etc/hostname"] == "image\n"
    assert ("usermod", "--password", "!", "root") in plan.chroot_commands
    assert ("ssh-keygen", "-A") in plan.chroot_commands


@pytest.mark.parametrize(
    ("network", "package", "unit"),
    [("ifupdown", "ifupdown", None), ("networkd", None, "systemd-networkd.service"), ("netplan", "netplan.io", None)],
)
def test_each_stack_brings_its_package_and_its_unit(
    network: NetworkStack, package: str | None, unit: str | None
) -> None:
    plan = plan_guest(GuestRecipe(network=network))
    assert package is None or package in plan.packages
    assert unit is None or unit in plan.chroot_commands[0]
