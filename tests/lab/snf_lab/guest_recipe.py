"""What the lab's guest image is made of, as plain data: nothing here touches a file.

The image is what an image owner would publish: a Debian with a kernel, GRUB and sshd, its root the last partition of a
small disk. It is stale on purpose. Its machine-id, its SSH host keys, its host name and its locked
root are leftovers that a deployment has to replace; a check that finds one of them in a deployed guest has caught
something. To boot quickly without KVM it leaves out what a guest of a few minutes does not need: timers, locales,
manuals, an initramfs for other machines.

Where its parts lie on the disk says guest_layout.py.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from snf_lab.guest_layout import MIB, Firmware, Layout, Table, plan_layout, render_partition_script

Release = Literal["bullseye", "bookworm", "trixie"]
NetworkStack = Literal["ifupdown", "networkd", "netplan", "networkmanager"]
RootKind = Literal["ext4", "xfs", "btrfs", "lvm"]  # lvm: ext4 on a logical volume

DEBIAN_NUMBER: Mapping[str, str] = {"bullseye": "11", "bookworm": "12", "trixie": "13"}

# systemd's "uninitialized" is what a well-made image has; this one has a real id, and every copy of it the same.
STALE_MACHINE_ID = "0123456789abcdef0123456789abcdef"
STALE_HOSTNAME = "image"
ROOT_LABEL = "guest-root"

VOLUME_GROUP = "guest"
SUBVOLUME = "@"

KERNEL_ARGUMENTS = "console=tty0 console=ttyS0,115200 quiet"

PACKAGES = (
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "lz4",
    "systemd-sysv",
    "dbus",
    "udev",
    "openssh-server",
    "sudo",
    "iproute2",
    "iputils-ping",
    "util-linux",
    "e2fsprogs",
)
STACK_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "ifupdown": ("ifupdown", "isc-dhcp-client"),
    "networkd": (),
    "netplan": ("netplan.io",),
    "networkmanager": ("network-manager",),
}
ROOT_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "ext4": (),
    "xfs": ("xfsprogs",),
    "btrfs": ("btrfs-progs",),
    "lvm": ("lvm2",),
}
ROOT_MODULES: Mapping[str, tuple[str, ...]] = {"ext4": (), "xfs": ("xfs",), "btrfs": ("btrfs",), "lvm": ("dm_mod",)}

MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-pstore.service",
    "getty@tty1.service",
    # Waits for every link to be configured, which a guest with one card has no use for.
    "systemd-networkd-wait-online.service",
    # Each of these costs a guest without KVM a good part of a second, a third of the boot together.
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "proc-sys-fs-binfmt_misc.automount",
    *(f"modprobe@{module}.service" for module in ("configfs", "dm_mod", "drm", "efi_pstore", "fuse", "loop")),
    "systemd-modules-load.service",
    "systemd-journal-flush.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "apparmor.service",
)

DPKG_EXCLUDES = (
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
)

# Only what finds the root on a Ganeti or a plain QEMU disk; udev loads the rest from the root.
INITRAMFS_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ext4", "crc32c_generic")

GRUB_MODULES = (
    "part_gpt",
    "part_msdos",
    "ext2",
    "xfs",
    "btrfs",
    "lvm",
    "search",
    "search_fs_uuid",
    "search_label",
    "normal",
    "configfile",
    "linux",
    "serial",
    "terminal",
    "test",
    "echo",
    "ls",
    "cat",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRecipe:
    """Which image: everything that a caller may choose."""

    release: Release = "bookworm"
    table: Table = "gpt"
    firmware: Firmware = "bios"
    network: NetworkStack = "ifupdown"
    root: RootKind = "ext4"
    boot_apart: bool = False
    cloud_init: bool = False
    size_mib: int = 1280


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPlan:
    """The whole making of one image; two plans that are equal make the same image from the same packages."""

    release: str
    packages: tuple[str, ...]
    early_files: Mapping[str, str]  # put into the empty tree, before any package
    late_files: Mapping[str, str]  # put into the finished tree
    chroot_commands: tuple[tuple[str, ...], ...]
    disk_size: int
    partition_script: str
    layout: Layout
    root: RootKind
    root_uuid: str
    boot_uuid: str
    filesystem_options: tuple[str, ...]  # of mke2fs
    grub_modules: tuple[str, ...]
    grub_embedded: str

    @property
    def key(self) -> str:
        """What the cache calls this image: a digest of all that makes it."""
        text = json.dumps({name: repr(getattr(self, name)) for name in sorted(self.__dataclass_fields__)})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_guest(recipe: GuestRecipe) -> GuestPlan:
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, repr(recipe))
    root_uuid, boot_uuid = (str(uuid.uuid5(identity, what)) for what in ("root file system", "boot file system"))
    lvm = recipe.root == "lvm"
    layout = plan_layout(
        table=recipe.table, firmware=recipe.firmware, apart=recipe.boot_apart, size_mib=recipe.size_mib
    )
    menu_uuid = boot_uuid if recipe.boot_apart else root_uuid
    return GuestPlan(
        release=recipe.release,
        packages=(
            *(*PACKAGES, *STACK_PACKAGES[recipe.network], *ROOT_PACKAGES[recipe.root]),
            # growpart, as in real cloud images: there cloud-init is what grows the root.
            *(("cloud-init", "cloud-guest-utils") if recipe.cloud_init else ()),
        ),
        early_files=plan_early_files(recipe),
        late_files=plan_late_files(recipe, root_uuid, boot_uuid),
        chroot_commands=plan_chroot_commands(recipe),
        disk_size=recipe.size_mib * MIB,
        partition_script=render_partition_script(layout, table=recipe.table, lvm=lvm, identity=identity),
        layout=layout,
        root=recipe.root,
        root_uuid=root_uuid,
        boot_uuid=boot_uuid,
        filesystem_options=(
            *("-t", "ext4", "-m", "1", "-L", ROOT_LABEL, "-U", root_uuid),
            # GRUB 2.06 refuses a file system with either; mke2fs 1.47 turns them on.
            *("-O", "^metadata_csum_seed,^orphan_file"),
            *("-E", f"offset={layout.root.offset},root_owner=0:0,hash_seed={uuid.uuid5(identity, 'hash seed')}"),
        ),
        grub_modules=(*(("biosdisk",) if recipe.firmware == "bios" else ("fat",)), *GRUB_MODULES),
        grub_embedded=render_embedded_grub(menu_uuid, grub_folder(recipe)),
    )


def boot_folder(recipe: GuestRecipe) -> str:
    """Where GRUB sees what Linux calls /boot, on the file system that holds it."""
    if recipe.boot_apart:
        return ""
    return f"/{SUBVOLUME}/boot" if recipe.root == "btrfs" else "/boot"


def grub_folder(recipe: GuestRecipe) -> str:
    return f"{boot_folder(recipe)}/grub"


def plan_early_files(recipe: GuestRecipe) -> dict[str, str]:
    modules = (*INITRAMFS_MODULES, *ROOT_MODULES[recipe.root])
    kind = "ext4" if recipe.root == "lvm" else recipe.root
    return {
        "etc/dpkg/dpkg.cfg.d/90guest": "".join(f"{line}\n" for line in DPKG_EXCLUDES),
        "etc/apt/apt.conf.d/90guest": 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n',
        "etc/initramfs-tools/conf.d/guest": f"MODULES=list\nCOMPRESS=lz4\nRESUME=none\nBUSYBOX=n\nFSTYPE={kind}\n",
        "etc/initramfs-tools/modules": "".join(f"{name}\n" for name in modules),
        # /boot/vmlinuz and /boot/initrd.img, which grub.cfg names, follow the newest kernel.
        "etc/kernel-img.conf": "do_symlinks = yes\nimage_dest = /boot\n",
    }


def plan_late_files(recipe: GuestRecipe, root_uuid: str, boot_uuid: str) -> dict[str, str]:
    return {
        "etc/hostname": f"{STALE_HOSTNAME}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {STALE_HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/fstab": render_fstab(recipe, root_uuid, boot_uuid),
        "etc/machine-id": f"{STALE_MACHINE_ID}\n",
        "etc/resolv.conf": "",
        "boot/grub/grub.cfg": render_grub_menu(recipe, boot_uuid if recipe.boot_apart else root_uuid, root_uuid),
        "etc/systemd/journald.conf.d/guest.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\n",
        **network_files(recipe.network),
    }


def root_device(recipe: GuestRecipe, root_uuid: str) -> str:
    return f"/dev/mapper/{VOLUME_GROUP}-root" if recipe.root == "lvm" else f"UUID={root_uuid}"


def render_fstab(recipe: GuestRecipe, root_uuid: str, boot_uuid: str) -> str:
    kind = "ext4" if recipe.root == "lvm" else recipe.root
    options = {"ext4": "defaults,errors=remount-ro", "btrfs": f"defaults,subvol={SUBVOLUME}"}.get(kind, "defaults")
    text = f"{root_device(recipe, root_uuid)} / {kind} {options} 0 1\n"
    return text + (f"UUID={boot_uuid} /boot ext4 defaults 0 2\n" if recipe.boot_apart else "")


def network_files(stack: NetworkStack) -> dict[str, str]:
    """An image does not know its cards: loopback alone, or DHCP on whatever is there."""
    match stack:
        case "ifupdown":
            return {
                "etc/network/interfaces": "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n",
            }
        case "networkd":
            return {"etc/systemd/network/80-image.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n"}
        case "netplan":
            return {
                "etc/netplan/50-image.yaml": "network:\n  version: 2\n  ethernets:\n    all:\n"
                '      match: {name: "e*"}\n      dhcp4: true\n',
            }
        case "networkmanager":
            return {}  # without a connection of its own it uses DHCP


def plan_chroot_commands(recipe: GuestRecipe) -> tuple[tuple[str, ...], ...]:
    enabled = ["serial-getty@ttyS0.service", "ssh.service"]
    if recipe.network in ("networkd", "netplan"):
        enabled.append("systemd-networkd.service")
    return (
        ("systemctl", "enable", *enabled),
        ("systemctl", "mask", *MASKED_UNITS),
        ("usermod", "--password", "!", "root"),
        ("ssh-keygen", "-A"),
        # The netplan file above must not be readable by others, or netplan complains on each boot.
        *((("chmod", "600", "/etc/netplan/50-image.yaml"),) if recipe.network == "netplan" else ()),
        ("ln", "-sf", "/etc/machine-id", "/var/lib/dbus/machine-id"),
        # Left by building, not by publishing: they only make the image bigger.
        (
            "sh",
            "-c",
            "rm -rf /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* /var/log/*.log /var/log/apt",
        ),
    )


def render_embedded_grub(uuid_of_menu: str, folder: str) -> str:
    """What core.img runs: it finds its menu by the file system's UUID, wherever the firmware put the disk."""
    return (
        "serial --unit=0 --speed=115200\nterminal_output serial console\n"
        f"search --no-floppy --fs-uuid --set=root {uuid_of_menu}\n"
        f"set prefix=($root){folder}\nconfigfile $prefix/grub.cfg\n"
    )


def render_grub_menu(recipe: GuestRecipe, uuid_of_menu: str, root_uuid: str) -> str:
    folder = boot_folder(recipe)
    flags = f" rootflags=subvol={SUBVOLUME}" if recipe.root == "btrfs" else ""
    return (
        "set timeout=0\nset default=0\n"
        'menuentry "Debian GNU/Linux" {\n'
        f"  search --no-floppy --fs-uuid --set=root {uuid_of_menu}\n"
        f"  linux {folder}/vmlinuz root={root_device(recipe, root_uuid)}{flags} ro {KERNEL_ARGUMENTS}\n"
        f"  initrd {folder}/initrd.img\n}}\n"
    )
