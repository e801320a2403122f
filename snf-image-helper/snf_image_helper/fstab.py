"""Which file systems besides the root an image mounts, as far as tasks need them: fstab(5), read as hostile text.

A line counts when it names a place that we found on the image's own disk, of a type that we saw there ourselves, and a
mount point of a short list. Of the options of a line those used are the subvolume of btrfs, noauto and nofail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from snf_image_helper.image import Block, Filesystem, FilesystemKind, Place, RootPath, SwapSpace

#: Where configuration, keys and injected files may have to go. A mount point elsewhere is left alone.
MOUNT_POINTS = frozenset(
    {
        *("/boot", "/boot/efi", "/efi", "/etc", "/home", "/opt", "/root", "/srv"),
        *("/usr", "/usr/local", "/var", "/var/lib", "/var/log"),
    }
)
LINES_LIMIT = 512
_SUBVOLUME = r"[A-Za-z0-9@_./-]{1,255}"
_DISK_NODE = r"/dev/(?:[svh]|xv)da(\d{1,3})"
_NAMES = {"uuid": "by-uuid", "label": "by-label", "partuuid": "by-partuuid", "partlabel": "by-partlabel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FstabLine:
    """One line of /etc/fstab, its octal escapes undone."""

    device: str
    point: str
    kind: str
    options: tuple[str, ...]

    @property
    def subvolume(self) -> str:
        """The subvol= of btrfs, without its leading slash; empty when there is none that could be a path."""
        given = next((o.removeprefix("subvol=") for o in self.options if o.startswith("subvol=")), "").lstrip("/")
        return given if re.fullmatch(_SUBVOLUME, given) and ".." not in given.split("/") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file system of the image that is to be mounted below its root."""

    point: RootPath
    place: Place
    kind: FilesystemKind
    subvolume: str = ""
    nofail: bool = False  # a boot goes on without it


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounts:
    """What to mount, in this order, and the lines whose device should be on the disk and was not found."""

    mounts: tuple[Mount, ...]
    missing: tuple[FstabLine, ...]


def parse_fstab(text: str) -> tuple[FstabLine, ...]:
    """The lines of fstab(5). What is not such a line is passed over."""
    found = []
    for line in text.split("\n", LINES_LIMIT)[:LINES_LIMIT]:
        fields = [_unescaped(field) for field in line.split()]
        if len(fields) >= 3 and not fields[0].startswith("#"):
            options = tuple(fields[3].split(",")) if len(fields) > 3 else ()
            found.append(FstabLine(device=fields[0], point=fields[1], kind=fields[2], options=options))
    return tuple(found)


def plan_mounts(lines: Sequence[FstabLine], blocks: Sequence[Block]) -> Mounts:
    """The mounts that tasks need, outer ones first; each mount point once, as the first line has it."""
    mounts: dict[RootPath, Mount] = {}
    missing = []
    for line in lines:
        if line.point.rstrip("/") not in MOUNT_POINTS or "noauto" in line.options:
            continue
        point = RootPath(line.point)
        block = find_block(line.device, blocks)
        filesystem = block.filesystem if block is not None else None
        if point in mounts:
            continue
        if block is None or filesystem is None or not (filesystem.kind.is_linux or _is_fat(filesystem)):
            if _names_a_block_device(line):
                missing.append(line)
            continue
        subvolume = line.subvolume if filesystem.kind is FilesystemKind.BTRFS else ""
        if not subvolume and any(option.startswith("subvolid=") for option in line.options):
            missing.append(line)  # a number names no path, and the default subvolume may be another
            continue
        nofail = "nofail" in line.options
        mounts[point] = Mount(point=point, place=block.place, kind=filesystem.kind, subvolume=subvolume, nofail=nofail)
    ordered = sorted(mounts.values(), key=lambda m: (m.point.count("/"), m.point))
    return Mounts(mounts=tuple(ordered), missing=tuple(missing))


def find_block(device: str, blocks: Sequence[Block]) -> Block | None:
    """The place that a device of fstab names, among those that were found on disk 0."""
    if m := re.fullmatch(_DISK_NODE, device):
        return next((b for b in blocks if b.place.partition == int(m[1])), None)
    if device.startswith("/dev/mapper/") or device.count("/") == 3:
        return next((b for b in blocks if b.place.volume is not None and device in _volume_nodes(b.place.volume)), None)
    key, _, value = device.partition("=")
    for name, folder in _NAMES.items():
        if key.lower() == name:
            return _named(name, value.strip('"'), blocks)
        if device.startswith(f"/dev/disk/{folder}/"):
            return _named(name, device.rpartition("/")[2], blocks)
    return None


def _names_a_block_device(line: FstabLine) -> bool:
    """Not a tmpfs, a network's file system, or a folder that is bound to another."""
    return line.device.startswith("/dev/") or line.device.partition("=")[0].lower() in _NAMES


def _named(name: str, value: str, blocks: Sequence[Block]) -> Block | None:
    """The one block of this name; none if two share it, since nobody can tell which was meant."""
    found = [block for block in blocks if value and _name(block, name) in (value, value.lower())]
    return found[0] if len(found) == 1 else None


def _name(block: Block, name: str) -> str:
    if name in ("partuuid", "partlabel"):
        return "" if block.partition is None else block.partition.guid if name == "partuuid" else block.partition.name
    if isinstance(block.content, Filesystem | SwapSpace):
        return block.content.uuid if name == "uuid" else block.content.label
    return ""


def _volume_nodes(volume: str) -> tuple[str, str]:
    group, _, name = volume.partition("/")
    return f"/dev/{volume}", f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}"


def _is_fat(filesystem: Filesystem) -> bool:
    return filesystem.kind is FilesystemKind.VFAT


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-3][0-7]{2})", lambda m: chr(int(m[1], 8)), field)
