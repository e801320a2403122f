"""What a task may know of the image: plain facts and a read-only view of its files.

An `Image` is a snapshot, taken anew before each task is planned, because the tasks before it changed the disk.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from snf_image_helper.partitions import Partition, Table
from synnefo_light.errors import PeerError
from synnefo_light.tasks import OsFamily

if TYPE_CHECKING:
    from snf_image_helper.windows import Facts


class ImageError(PeerError):
    """The image's files are not as they should be; the message names the path as the image sees it."""


class TooLarge(ImageError):
    """A file of the image is larger than what is read of one."""


class RootPath(str):
    """A path inside the image, relative to its root: "etc/hostname". Shown as the image's users know it."""

    __slots__ = ()

    def __new__(cls, path: str) -> RootPath:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in path:
            raise ImageError(f"{path[:200]!r} cannot name a file of the image: it holds '..' or NUL")
        return super().__new__(cls, "/" + "/".join(parts))

    @property
    def parent(self) -> RootPath:
        return RootPath(self.rpartition("/")[0])

    @property
    def name(self) -> str:
        return self.rpartition("/")[2]

    def __truediv__(self, name: str) -> RootPath:
        return RootPath(f"{self}/{name}")


class Kind(enum.Enum):
    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"  # a device, fifo or socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What stands at a path, links followed."""

    kind: Kind
    mode: int
    owner: int
    group: int


class Files(Protocol):
    """The image's files, read-only. Paths that lead out of the image raise rootfs.ImageError."""

    def entry(self, path: RootPath) -> Entry | None: ...

    def link(self, path: RootPath) -> str | None: ...

    def read(self, path: RootPath) -> bytes | None: ...

    def names(self, path: RootPath) -> tuple[str, ...]: ...


class NoFiles:
    """The view before the image is mounted. To ask it is a mistake in the order of tasks."""

    def entry(self, path: RootPath) -> Entry | None:
        raise RuntimeError(f"{path} was asked for while the image is not mounted")

    def link(self, path: RootPath) -> str | None:
        raise RuntimeError(f"{path} was asked for while the image is not mounted")

    def read(self, path: RootPath) -> bytes | None:
        raise RuntimeError(f"{path} was asked for while the image is not mounted")

    def names(self, path: RootPath) -> tuple[str, ...]:
        raise RuntimeError(f"{path} was asked for while the image is not mounted")


def _no_windows() -> Facts:
    raise RuntimeError("the registry was asked for while no Windows is mounted")


class FilesystemKind(enum.Enum):
    """What we can tell by its superblock; the value is the kernel's name of the type."""

    EXT2 = "ext2"
    EXT3 = "ext3"
    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"
    F2FS = "f2fs"
    VFAT = "vfat"
    NTFS = "ntfs"
    UFS = "ufs"
    ZFS = "zfs"
    UNKNOWN = "unknown"  # not looked at yet

    @property
    def is_ext(self) -> bool:
        return self in (FilesystemKind.EXT2, FilesystemKind.EXT3, FilesystemKind.EXT4)

    @property
    def is_linux(self) -> bool:
        """Whether a Linux system can have its root on it."""
        return self.is_ext or self in (FilesystemKind.XFS, FilesystemKind.BTRFS, FilesystemKind.F2FS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """A file system that was seen; its size in bytes, its UUID and label as /etc/fstab writes them."""

    kind: FilesystemKind
    size: int
    uuid: str = ""
    label: str = ""


class Content(enum.Enum):
    """What stands where a file system could be, in the words that a refusal uses."""

    LVM = "a physical volume of LVM"
    LUKS = "an encrypted volume (LUKS)"
    BITLOCKER = "an encrypted volume (BitLocker)"
    MD = "a member of a RAID (md)"
    SPREAD = "one of several devices of a btrfs"
    HIBERNATED = "the memory of a hibernated system"


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapSpace:
    """Swap space that mkswap(8) made: nothing in it is worth keeping, but its name is."""

    uuid: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on disk 0 something is: on a partition, on a logical volume ("group/volume"), or on the whole disk."""

    partition: int | None = None
    volume: str | None = None

    def __str__(self) -> str:
        if self.volume is not None:
            return f"the logical volume {self.volume}"
        return "the whole disk" if self.partition is None else f"partition {self.partition}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One place and what was seen there; `size` in bytes. None: nothing that we know."""

    place: Place
    size: int
    content: Filesystem | SwapSpace | Content | None
    partition: Partition | None = None

    @property
    def filesystem(self) -> Filesystem | None:
        return self.content if isinstance(self.content, Filesystem) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGroup:
    """An LVM volume group of the image. `partitions`: where its physical volumes are (None: the whole disk)."""

    name: str
    partitions: tuple[int | None, ...]
    free_extents: int
    extent_size: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Where the image's root file system is: on a partition, on a logical volume when `volume` names one, or on the
    whole disk. `subvolume` is the one of btrfs to mount; empty for the default."""

    partition: Partition | None
    size: int  # bytes of the partition, the volume or the disk
    filesystem: Filesystem
    volume: str | None = None
    subvolume: str = ""

    @property
    def number(self) -> int | None:
        return self.partition.number if self.partition is not None else None

    @property
    def place(self) -> Place:
        return Place(partition=self.number, volume=self.volume)

    @property
    def can_grow(self) -> bool:
        """Whether its place has so much more room that growing is worth it; resize2fs itself leaves a bit."""
        return self.size - self.filesystem.size >= 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The facts. `today` counts days since 1970-01-01, as shadow(5) does."""

    today: int
    disk_size: int
    table: Table | None  # None: the file system is on the whole disk
    root: Root
    family: OsFamily = OsFamily.LINUX
    blocks: tuple[Block, ...] = ()  # every place that was looked at, the root among them
    group: VolumeGroup | None = None  # the one that the root is in
    files: Files = field(default_factory=NoFiles, repr=False)
    windows: Callable[[], Facts] = field(default=_no_windows, repr=False)  # its registry, read when first asked for

    @property
    def is_mounted(self) -> bool:
        return not isinstance(self.files, NoFiles)

    @property
    def growing(self) -> int | None:
        """The partition that has to grow for the root to grow: its own, or the last of its volume group's."""
        if self.group is None:
            return self.root.number
        last = max(
            (b.partition for b in self.blocks if b.partition and b.partition.number in self.group.partitions),
            key=lambda p: p.end,
            default=None,
        )
        return last.number if last is not None else None


class Skipped(Exception):
    """A task's `plan` raises it when the task does not apply to this image; the message is the reason."""
