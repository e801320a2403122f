"""What a task may know of the image: plain facts and a read-only view of its files.

An `Image` is a snapshot, taken anew before each task is planned, because the tasks before it changed the disk.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from snf_image_helper.partitions import Partition, Table
from synnefo_light.errors import PeerError
from synnefo_light.tasks import OsFamily


class ImageError(PeerError):
    """The image's files are not as they should be; the message names the path as the image sees it."""


class RootPath(str):
    """A path inside the image, relative to its root: "etc/hostname". Shown as the image's users know it."""

    __slots__ = ()

    def __new__(cls, path: str) -> RootPath:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in path:
            raise ValueError(f"{path!r} cannot name a file of the image: it holds '..' or NUL")
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


class FilesystemKind(enum.Enum):
    """What we can tell by its superblock; the value is the kernel's name of the type."""

    EXT2 = "ext2"
    EXT3 = "ext3"
    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"
    VFAT = "vfat"
    UNKNOWN = "unknown"  # not looked at yet

    @property
    def is_ext(self) -> bool:
        return self in (FilesystemKind.EXT2, FilesystemKind.EXT3, FilesystemKind.EXT4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """A file system that was seen on a partition or on a whole disk; sizes in bytes."""

    kind: FilesystemKind
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Where the image's root file system is: on a partition, or on the whole disk when `partition` is None."""

    partition: Partition | None
    size: int  # bytes of the partition or the disk
    filesystem: Filesystem

    @property
    def number(self) -> int | None:
        return self.partition.number if self.partition is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The facts. `today` counts days since 1970-01-01, as shadow(5) does."""

    today: int
    disk_size: int
    table: Table | None  # None: the file system is on the whole disk
    root: Root
    family: OsFamily = OsFamily.LINUX
    files: Files = field(default_factory=NoFiles, repr=False)


class Skipped(Exception):
    """A task's `plan` raises it when the task does not apply to this image; the message is the reason."""
