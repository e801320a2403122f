"""Fill the file systems of a guest image from a tree. Pure: each function gives commands, who runs them is the maker.

ext4 is filled by mke2fs at its offset in the file. XFS and btrfs have no such way (btrfs none with subvolumes), so they
are mounted, from a loop device, in a mount namespace that ends with the command. A logical volume needs no device
mapper to be made: one linear volume lies where its group's extents begin, and mke2fs is told that offset.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from snf_lab.guest_layout import MIB, SECTOR, Span
from snf_lab.guest_recipe import ROOT_LABEL, SUBVOLUME, VOLUME_GROUP, GuestPlan

EXTENT = 4 * MIB  # vgcreate(8): the default size of a physical extent
Command = list[str | Path]

LOOP = """\
set -eu
loop=$(losetup --find --show --offset {offset} --sizelimit {size} {disk})
trap 'losetup --detach "$loop"' EXIT
{rest}
"""


def plan_fill_root(plan: GuestPlan, *, disk: Path, tree: Path, mount_point: Path) -> list[Command]:
    root = plan.layout.root
    match plan.root:
        case "ext4":
            return [["mke2fs", "-q", "-F", *plan.filesystem_options, "-d", tree, disk, f"{root.size // 1024}k"]]
        case "lvm":
            volume = logical_volume(root)
            ours, its = f"offset={root.offset},", f"offset={volume.offset},"
            options = [option.replace(ours, its) for option in plan.filesystem_options]
            return [
                in_loop(disk, root, LVM_SCRIPT),
                ["mke2fs", "-q", "-F", *options, "-d", tree, disk, f"{volume.size // 1024}k"],
            ]
        case "xfs":
            make = f'mkfs.xfs -q -f -L {ROOT_LABEL} -m uuid={plan.root_uuid} "$loop"'
            return [in_loop(disk, root, f"{make}\n{_copied(tree, mount_point, '.')}")]
        case "btrfs":
            make = f'mkfs.btrfs -q -f -L {ROOT_LABEL} -U {plan.root_uuid} "$loop"'
            return [in_loop(disk, root, f"{make}\n{_copied(tree, mount_point, SUBVOLUME)}")]


#: The filter, and what is switched off, keep lvm(8) from looking at, or talking to, more than our one loop device.
LVM_SCRIPT = f"""\
lvm() {{
    command lvm "$@" --quiet --config "devices{{filter=[\\"a|^$loop\\$|\\",\\"r|.*|\\"] use_devicesfile=0}}
        activation{{udev_sync=0 udev_rules=0}} backup{{backup=0 archive=0}}"
}}
lvm pvcreate --yes -ff --dataalignment 1m "$loop"
lvm vgcreate {VOLUME_GROUP} "$loop"
lvm lvcreate --driverloaded n --yes -an -Zn -Wn -n root -l 100%FREE {VOLUME_GROUP}"""


def logical_volume(partition: Span) -> Span:
    """Where the one logical volume of a partition lies: behind 1 MiB of metadata, in whole extents."""
    start = partition.start + MIB // SECTOR
    return Span(start=start, sectors=(partition.size - MIB) // EXTENT * EXTENT // SECTOR)


def plan_fill_boot(plan: GuestPlan, *, disk: Path, folder: Path) -> list[Command]:
    boot = plan.layout.boot
    if boot is None:
        return []
    options = ["-t", "ext4", "-L", "guest-boot", "-U", plan.boot_uuid, "-O", "^metadata_csum_seed,^orphan_file"]
    return [
        ["mke2fs", "-q", "-F", *options, "-E", f"offset={boot.offset}", "-d", folder, disk, f"{boot.size // 1024}k"]
    ]


def plan_fill_esp(plan: GuestPlan, *, disk: Path, loader: Path) -> list[Command]:
    """The EFI system partition, with GRUB under the name that firmware starts by itself (UEFI 2.10, 3.5.1.1)."""
    esp = plan.layout.esp
    if esp is None:
        return []
    image = f"{disk}@@{esp.offset}"
    return [
        ["mkfs.fat", "-F", "32", "-s", "1", "-n", "ESP", f"--offset={esp.start}", disk, str(esp.size // 1024)],
        ["mmd", "-i", image, "::/EFI", "::/EFI/BOOT"],
        ["mcopy", "-i", image, loader, "::/EFI/BOOT/BOOTX64.EFI"],
    ]


def in_loop(disk: Path, span: Span, script: str) -> Command:
    text = LOOP.format(offset=span.offset, size=span.size, disk=shlex.quote(str(disk)), rest=script)
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", text]


def _copied(tree: Path, mount_point: Path, below: str) -> str:
    source, target = shlex.quote(f"{tree}/."), shlex.quote(str(mount_point))
    lines: Sequence[str] = (
        f'mkdir -p {target} && mount "$loop" {target}',
        *((f"btrfs subvolume create {target}/{below}",) if below != "." else ()),
        f"cp -a {source} {target}/{below}",
        f"umount {target}",
    )
    return "\n".join(lines)
