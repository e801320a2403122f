"""Where the parts of a guest image lie on its disk: arithmetic only.

GPT:  p14   1..4 MiB     BIOS boot partition, holds core.img     MBR:      sectors 1..2047 hold core.img
      p15   4..68 MiB    EFI system partition (UEFI alone)
      p13   192 MiB      /boot, ext4 (when it is apart)          logical:  /boot is primary
      p1    ..end        the root, always last                   p1 (5)    ..end
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Literal

Table = Literal["gpt", "mbr", "logical"]
Firmware = Literal["bios", "uefi"]

SECTOR = 512
MIB = 1 << 20
ALIGN = MIB // SECTOR
ESP_MIB = 64
BOOT_MIB = 192

# Types of the Discoverable Partitions Specification and UEFI 2.10, 5.3.3.
GPT_LINUX_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
GPT_LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
GPT_LVM = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
GPT_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
GPT_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of the disk, in sectors of 512 bytes."""

    start: int
    sectors: int

    @property
    def end(self) -> int:
        return self.start + self.sectors

    @property
    def offset(self) -> int:
        return self.start * SECTOR

    @property
    def size(self) -> int:
        return self.sectors * SECTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    core: Span | None  # where core.img goes; None with UEFI
    esp: Span | None
    boot: Span | None
    root: Span


def plan_layout(*, table: Table, firmware: Firmware, apart: bool, size_mib: int) -> Layout:
    """`apart`: /boot has a partition of its own. Raises ValueError for what cannot be."""
    disk = size_mib * ALIGN
    if table != "gpt":
        if firmware == "uefi" or (apart and table == "mbr"):
            raise ValueError("UEFI, and /boot on a partition of its own, are made with a GPT (or a logical root)")
        boot = Span(start=ALIGN, sectors=BOOT_MIB * ALIGN) if apart else None
        start = (boot.end if boot else ALIGN) + (ALIGN if table == "logical" else 0)
        root = Span(start=start, sectors=disk - start)
        return Layout(core=Span(start=1, sectors=ALIGN - 1), esp=None, boot=boot, root=root)
    core = Span(start=ALIGN, sectors=3 * ALIGN) if firmware == "bios" else None
    at = 4 * ALIGN
    esp = Span(start=at, sectors=ESP_MIB * ALIGN) if firmware == "uefi" else None
    at = esp.end if esp else at
    boot = Span(start=at, sectors=BOOT_MIB * ALIGN) if apart else None
    at = boot.end if boot else at
    # The backup table takes the last 33 sectors (UEFI 2.10, 5.3.1); end on a MiB as Debian's images do.
    return Layout(core=core, esp=esp, boot=boot, root=Span(start=at, sectors=disk - ALIGN - at))


def render_partition_script(layout: Layout, *, table: Table, lvm: bool, identity: uuid.UUID) -> str:
    """For sfdisk(8)."""
    if table != "gpt":
        lines = [f"label: dos\nlabel-id: 0x{identity.hex[:8]}"]
        kind = "8e" if lvm else "83"
        root = layout.root
        if layout.boot is not None:
            lines.append(f"disk1 : start={layout.boot.start}, size={layout.boot.sectors}, type=83, bootable")
        if table == "logical":
            lines.append(f"disk2 : start={root.start - ALIGN}, size={root.sectors + ALIGN}, type=f")
            lines.append(f"disk5 : start={root.start}, size={root.sectors}, type={kind}")
        else:
            lines.append(f"disk1 : start={root.start}, size={root.sectors}, type={kind}, bootable")
        return "".join(f"{line}\n" for line in lines)
    parts = (
        (1, layout.root, GPT_LVM if lvm else GPT_LINUX_ROOT),
        (13, layout.boot, GPT_LINUX),
        (14, layout.core, GPT_BIOS_BOOT),
        (15, layout.esp, GPT_ESP),
    )
    lines = ["label: gpt", f"label-id: {identity}"]
    lines += [
        f"disk{number} : start={span.start}, size={span.sectors}, type={kind}, uuid={uuid.uuid5(identity, str(number))}"
        for number, span, kind in parts
        if span is not None
    ]
    return "".join(f"{line}\n" for line in lines)
