"""Which of the places on a disk may hold the system? Decided by what was seen there, before anything is mounted."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.distribution import exists
from snf_image_helper.fstab import parse_fstab
from snf_image_helper.image import Block, Content, Files, Filesystem, FilesystemKind, RootPath, SwapSpace
from snf_image_helper.partitions import (
    BOOT_GPT,
    EFI_GPT,
    FREEBSD_GPT,
    FREEBSD_ZFS_GPT,
    LINUX_GPT,
    LINUX_MBR,
    LINUX_ROOT_GPT,
    Table,
    TableError,
)
from synnefo_light.tasks import OsFamily

_WINDOWS = frozenset({OsFamily.WINDOWS, OsFamily.WINDOWS_LEGACY})
#: BSD's own types of partitions: those of an MBR hold a disklabel, those of a GPT a file system.
_BSD_KINDS: dict[str | int, str] = {
    0xA5: "FreeBSD with an MBR",
    0xA6: "OpenBSD",
    0xA9: "NetBSD",
    "824cc7a0-36a8-11e3-890a-952519ad3f61": "OpenBSD",
    "49f48d5a-b10e-11dc-b99b-0019d1879648": "NetBSD",
    "2db519c4-b10f-11dc-b99b-0019d1879648": "NetBSD",
    "2db519ec-b10f-11dc-b99b-0019d1879648": "NetBSD",
}
SYSTEM_FILES = ("etc/os-release", "usr/lib/os-release", "etc/debian_version", "etc/redhat-release", "etc/fstab")
#: Where distributions put their root in a btrfs whose default subvolume is its top: Debian, Fedora, Ubuntu, openSUSE.
SUBVOLUMES = ("@rootfs", "root", "@", "@/.snapshots/1/snapshot", "@root", "rootfs")


def refuse_other_bsd(table: Table | None, family: OsFamily | None) -> None:
    """Raises TableError for a system whose partitions cannot be changed here: nothing of it would be customised."""
    names = [_BSD_KINDS[p.kind] for p in (table.partitions if table is not None else ()) if p.kind in _BSD_KINDS]
    named = {OsFamily.OPENBSD: "OpenBSD", OsFamily.NETBSD: "NetBSD"}.get(family) if family is not None else None
    if name := named or next(iter(names), None):
        raise TableError(
            f"the image is of {name}, which cannot be customised here; deploy it as it is with EXCLUDE_ALL_TASKS=yes"
        )


def family_of(filesystem: Filesystem) -> OsFamily:
    """The family that a root file system of this kind belongs to."""
    if filesystem.kind is FilesystemKind.NTFS:
        return OsFamily.WINDOWS
    return OsFamily.FREEBSD if filesystem.kind in (FilesystemKind.UFS, FilesystemKind.ZFS) else OsFamily.LINUX


def candidates(blocks: Sequence[Block], family: OsFamily | None) -> tuple[Block, ...]:
    """The places that may hold the root of a system of this family (None: of any), the likeliest first.

    GPT's own root type comes first, then Linux types and volumes, then other types; BSD only where nothing else is.
    """
    found = []
    for block in blocks:
        filesystem, kind = block.filesystem, block.partition.kind if block.partition is not None else None
        if filesystem is None or kind in (EFI_GPT, BOOT_GPT):
            continue
        if filesystem.kind.is_linux or filesystem.kind in (FilesystemKind.NTFS, FilesystemKind.UFS, FilesystemKind.ZFS):
            wanted = family_of(filesystem)
            if family is None or wanted is family or (wanted in _WINDOWS and family in _WINDOWS):
                found.append(block)

    def rank(block: Block) -> tuple[int, int]:
        assert block.filesystem is not None
        kind = block.partition.kind if block.partition is not None else None
        if family_of(block.filesystem) is OsFamily.FREEBSD:
            return 9, kind not in (FREEBSD_GPT, FREEBSD_ZFS_GPT)
        order = {LINUX_ROOT_GPT: 0, LINUX_GPT: 1, LINUX_MBR: 1, None: 1}.get(kind, 2)
        return order + 3 * (block.filesystem.kind is FilesystemKind.NTFS), block.place.partition or 0

    return tuple(sorted(found, key=rank))


def must_be_looked_at(found: Sequence[Block]) -> bool:
    """Whether only a mount can tell: there are several, or its file system can belong to more than a system's root."""
    first = found[0].filesystem
    assert first is not None
    if first.kind in (FilesystemKind.UFS, FilesystemKind.ZFS):
        return False
    return len(found) > 1 or first.kind is FilesystemKind.BTRFS


def system_of(files: Files, kind: FilesystemKind) -> OsFamily | None:
    """What the files at the top of a file system say of it."""
    if kind is FilesystemKind.NTFS:
        return OsFamily.WINDOWS if exists(files, "Windows/System32", "windows/system32", "WINDOWS/system32") else None
    return OsFamily.LINUX if exists(files, *SYSTEM_FILES) else None


def root_subvolume(files: Files) -> str | None:
    """The subvolume of a btrfs that is to be mounted as root: empty when it is the mounted one; None if none has a
    system. What that system's own fstab says counts."""
    for place in ("", *SUBVOLUMES):
        if exists(files, *(f"{place}/{name}" for name in SYSTEM_FILES)):
            text = files.read(RootPath(f"{place}/etc/fstab")) or b""
            lines = parse_fstab(text.decode("utf-8", "replace"))
            named = next((line.subvolume for line in lines if line.point == "/"), "")
            return named if named and exists(files, named) else place
    return None


def refusal(blocks: Sequence[Block], family: OsFamily | None) -> str:
    """Why no root was found, as a sentence that names what there is."""
    seen = "; ".join(f"{block.place} holds {_in_words(block)}" for block in blocks[:8]) or "there is no partition"
    wanted = f" of the family {family.value}" if family is not None else ""
    return (
        f"no partition of the image was recognised as the root of a system{wanted}: {seen}; "
        "give an image with a root that is not encrypted, or name it by ROOT_PARTITION"
    )


def _in_words(block: Block) -> str:
    if isinstance(block.content, Content):
        return block.content.value
    if isinstance(block.content, SwapSpace):
        return "swap space"
    return block.content.kind.value if block.content is not None else "nothing that is known here"


def named_block(blocks: Sequence[Block], number: int, table: Table | None) -> Block:
    """The partition that the admin named as root. Raises TableError when there is none of this number."""
    if table is None:
        raise TableError(f"ROOT_PARTITION is {number}, but the image has no partition table")
    found = next((b for b in blocks if b.place.partition == number), None)
    if found is None:
        numbers = ", ".join(str(p.number) for p in table.partitions) or "none at all"
        raise TableError(f"ROOT_PARTITION is {number}, but the image has the partitions {numbers}")
    return found
