"""Disks of several partitions: a list of them becomes a table and the file systems in it.

    lay_out(path, (Part(mib=4, kind="uefi", filesystem=esp), Part(mib=300, filesystem=root)), table="gpt")

A GPT's kinds are sfdisk's names or GUIDs, an MBR's are hex bytes: both know "linux", "swap", "uefi" and "lvm".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.disk_images import MIB, sfdisk
from tests.filesystem_images import copy_into

FREEBSD_BOOT = "83BD6B9D-7F41-11DC-BE0B-001560B84F0F"
FREEBSD_UFS = "516E7CB6-6ECF-11D6-8FF8-00022D09712B"
FREEBSD_ZFS = "516E7CBA-6ECF-11D6-8FF8-00022D09712B"
FREEBSD_SWAP = "516E7CB5-6ECF-11D6-8FF8-00022D09712B"
MICROSOFT_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
MICROSOFT_RESERVED = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"

_MBR: Mapping[str, str] = {"linux": "83", "swap": "82", "uefi": "ef", "lvm": "8e", "ntfs": "7"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One partition, where the one before it ends. A number of 5 and more is a logical one of an MBR."""

    mib: int
    kind: str = "linux"
    filesystem: Path | None = None  # its image, as make_filesystem makes it
    number: int | None = None  # None: the next one
    name: str | None = None  # of a GPT
    uuid: str | None = None  # of a GPT


def lay_out(
    path: Path, parts: Sequence[Part], *, table: Literal["gpt", "mbr"] = "gpt", disk_mib: int | None = None
) -> dict[int, int]:
    """Make the disk; `disk_mib` None leaves 1 MiB behind the last partition. Returns number -> first MiB.

    Logical partitions have 1 MiB before each for its record; the extended partition has the first number that is free.
    """
    places: dict[int, int] = {}
    lines: list[str] = [f"label: {'gpt' if table == 'gpt' else 'dos'}"]
    numbers = [part.number or index for index, part in enumerate(parts, 1)]
    extended = next(n for n in range(1, 6) if n not in numbers)
    at = 1
    for index, (number, part) in enumerate(zip(numbers, parts, strict=True)):
        logical = table == "mbr" and number >= 5
        if logical and not any(n >= 5 for n in numbers[:index]):
            length = sum(p.mib + 1 for p, n in zip(parts, numbers, strict=True) if n >= 5)
            lines.append(f"{extended}: start={at}MiB, size={length}MiB, type=5")
        at += logical
        kind = part.kind if table == "gpt" else _MBR.get(part.kind, part.kind)
        more = "".join(f", {key}={value}" for key, value in (("name", part.name), ("uuid", part.uuid)) if value)
        lines.append(f"{number}: start={at}MiB, size={part.mib}MiB, type={kind}{more}")
        places[number] = at
        at += part.mib
    path.unlink(missing_ok=True)
    with open(path, "wb") as disk:
        disk.truncate((disk_mib or at + 1) * MIB)
    sfdisk(path, "\n".join(lines) + "\n")
    for number, part in zip(numbers, parts, strict=True):
        if part.filesystem is not None:
            size = part.filesystem.stat().st_size
            assert size <= part.mib * MIB, f"{part.filesystem} does not fit partition {number}"
            copy_into(part.filesystem, path, source_offset=0, target_offset=places[number] * MIB, size=size)
    return places
