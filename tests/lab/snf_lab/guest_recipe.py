"""What the lab's guest image is made of, as plain data: nothing here touches a file.

The image is what an image owner would publish: a Debian with a kernel, GRUB and sshd, on one ext4 root that is the
last partition of a small disk. It is stale on purpose. Its machine-id, its SSH host keys, its host name and its locked
root are leftovers that a deployment has to replace; a check that finds one of them in a deployed guest has caught
something. To boot quickly without KVM it leaves out what a guest of a few minutes does not need: timers, locales,
manuals, an initramfs for other machines.

    sector 0            boot.img, and the table (GPT's protective one, or the MBR)
    GPT:  p14  1..4 MiB BIOS boot partition, holds core.img        MBR:  sectors 1..2047 hold core.img
    p1    4 MiB..end    ext4, "/"                                  p1    1 MiB..end
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Release = Literal["bookworm", "trixie"]
Table = Literal["gpt", "mbr"]
NetworkStack = Literal["ifupdown", "networkd", "netplan"]

SECTOR = 512
MIB = 1 << 20
DEBIAN_NUMBER: Mapping[str, str] = {"bookworm": "12", "trixie": "13"}

# systemd's "uninitialized" is what a well-made image has; this one has a real id, and every copy of it the same.
STALE_MACHINE_ID = "0123456789abcdef0123456789abcdef"
STALE_HOSTNAME = "image"
ROOT_LABEL = "guest-root"

# "Linux root (x86-64)" and "BIOS boot" of the Discoverable Partitions Specification; Debian's own images use them.
GPT_LINUX_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
GPT_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"

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
}

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
    "biosdisk",
    "part_gpt",
    "part_msdos",
    "ext2",
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
    network: NetworkStack = "ifupdown"
    size_mib: int = 1280


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A partition's place on the disk, in sectors of 512 bytes."""

    start: int
    sectors: int

    @property
    def offset(self) -> int:
        return self.start * SECTOR

    @property
    def size(self) -> int:
        return self.sectors * SECTOR


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
    root: Span
    core_start: int
    core_room: int
    root_uuid: str
    filesystem_options: tuple[str, ...]
    grub_modules: tuple[str, ...]
    grub_embedded: str

    @property
    def key(self) -> str:
        """What the cache calls this image: a digest of all that makes it."""
        text = json.dumps({name: repr(getattr(self, name)) for name in sorted(self.__dataclass_fields__)})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_guest(recipe: GuestRecipe) -> GuestPlan:
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, repr(recipe))
    root_uuid = str(uuid.uuid5(identity, "root file system"))
    root, core_start, core_room = plan_spans(recipe)
    return GuestPlan(
        release=recipe.release,
        packages=PACKAGES + STACK_PACKAGES[recipe.network],
        early_files=plan_early_files(),
        late_files=plan_late_files(recipe, root_uuid),
        chroot_commands=plan_chroot_commands(recipe),
        disk_size=recipe.size_mib * MIB,
        partition_script=render_partition_script(recipe, identity),
        root=root,
        core_start=core_start,
        core_room=core_room,
        root_uuid=root_uuid,
        filesystem_options=(
            *("-t", "ext4", "-m", "1", "-L", ROOT_LABEL, "-U", root_uuid),
            # GRUB 2.06 refuses a file system with either; mke2fs 1.47 turns them on.
            *("-O", "^metadata_csum_seed,^orphan_file"),
            *("-E", f"offset={root.offset},root_owner=0:0,hash_seed={uuid.uuid5(identity, 'hash seed')}"),
        ),
        grub_modules=GRUB_MODULES,
        grub_embedded=render_embedded_grub(root_uuid),
    )


def plan_spans(recipe: GuestRecipe) -> tuple[Span, int, int]:
    """Where the root lies, and where core.img starts and how many sectors it may have."""
    disk = recipe.size_mib * MIB // SECTOR
    if recipe.table == "gpt":
        # The backup table takes the last 33 sectors (UEFI 2.10, 5.3.1); end on a MiB as Debian's images do.
        return Span(start=8192, sectors=disk - 2048 - 8192), 2048, 6144
    return Span(start=2048, sectors=disk - 2048), 1, 2047


def render_partition_script(recipe: GuestRecipe, identity: uuid.UUID) -> str:
    root, core_start, core_room = plan_spans(recipe)
    if recipe.table == "mbr":
        return (
            f"label: dos\nlabel-id: 0x{identity.hex[:8]}\n"
            f"disk1 : start={root.start}, size={root.sectors}, type=83, bootable\n"
        )
    return (
        f"label: gpt\nlabel-id: {identity}\n"
        f"disk1 : start={root.start}, size={root.sectors}, type={GPT_LINUX_ROOT}, "
        f"uuid={uuid.uuid5(identity, 'p1')}\n"
        f"disk14 : start={core_start}, size={core_room}, type={GPT_BIOS_BOOT}, uuid={uuid.uuid5(identity, 'p14')}\n"
    )


def plan_early_files() -> dict[str, str]:
    return {
        "etc/dpkg/dpkg.cfg.d/90guest": "".join(f"{line}\n" for line in DPKG_EXCLUDES),
        "etc/apt/apt.conf.d/90guest": 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n',
        "etc/initramfs-tools/conf.d/guest": "MODULES=list\nCOMPRESS=lz4\nRESUME=none\nBUSYBOX=n\nFSTYPE=ext4\n",
        "etc/initramfs-tools/modules": "".join(f"{name}\n" for name in INITRAMFS_MODULES),
        # /vmlinuz and /initrd.img, which grub.cfg names, follow the newest kernel.
        "etc/kernel-img.conf": "do_symlinks = yes\nimage_dest = /\n",
    }


def plan_late_files(recipe: GuestRecipe, root_uuid: str) -> dict[str, str]:
    return {
        "etc/hostname": f"{STALE_HOSTNAME}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {STALE_HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/fstab": f"UUID={root_uuid} / ext4 defaults,errors=remount-ro 0 1\n",
        "etc/machine-id": f"{STALE_MACHINE_ID}\n",
        "etc/resolv.conf": "",
        "boot/grub/grub.cfg": render_grub_menu(root_uuid),
        "etc/systemd/journald.conf.d/guest.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\n",
        **network_files(recipe.network),
    }


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


def plan_chroot_commands(recipe: GuestRecipe) -> tuple[tuple[str, ...], ...]:
    enabled = ["serial-getty@ttyS0.service", "ssh.service"]
    if recipe.network != "ifupdown":
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


def render_embedded_grub(root_uuid: str) -> str:
    """What core.img runs: it finds the root by the file system's UUID, wherever the BIOS put the disk."""
    return (
        "serial --unit=0 --speed=115200\nterminal_output serial console\n"
        f"search --no-floppy --fs-uuid --set=root {root_uuid}\n"
        "set prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    )


def render_grub_menu(root_uuid: str) -> str:
    return (
        "set timeout=0\nset default=0\n"
        'menuentry "Debian GNU/Linux" {\n'
        f"  search --no-floppy --fs-uuid --set=root {root_uuid}\n"
        f"  linux /vmlinuz root=UUID={root_uuid} ro {KERNEL_ARGUMENTS}\n"
        "  initrd /initrd.img\n}\n"
    )
