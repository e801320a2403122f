"""All that a task can do to an image. The union is closed: what is not here cannot be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from snf_image_helper.image import FilesystemKind, RootPath
from snf_image_helper.layout import SectorWrite
from synnefo_light.manifest import Compression, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSource:
    """Refuse an image that cannot be written onto disk 0, before anything is."""

    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSource:
    """Write disk 0 from the image, and let the kernel see its partitions."""

    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTable:
    """Write sectors of disk 0's partition table, read them back, and let the kernel see the new partitions."""

    writes: tuple[SectorWrite, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFilesystem:
    """e2fsck on the root, mending what is safe to mend."""

    partition: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowFilesystem:
    """resize2fs of the root to the size of its partition."""

    partition: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRoot:
    partition: int | None
    kind: FilesystemKind


@dataclass(frozen=True, slots=True, kw_only=True)
class UmountRoot:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSwap:
    """Swap space on a partition of disk 0, or on a whole other disk."""

    disk: int
    partition: int | None
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """`mode` and `owner` None: as the file had, or 0644 and root's when it is new."""

    path: RootPath
    content: bytes = field(repr=False)
    mode: int | None = None
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFile:
    path: RootPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink:
    path: RootPath
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeFolder:
    """One that is there already stays as it is."""

    path: RootPath
    mode: int = 0o755
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateHostKey:
    """A new SSH host key, made by the helper's ssh-keygen, at `path` and `path`.pub."""

    kind: str
    path: RootPath
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warn:
    """Tell the admin something that is not worth failing for."""

    text: str


SourceAction = CheckSource | WriteSource
DiskAction = WriteTable | CheckFilesystem | GrowFilesystem | MountRoot | UmountRoot | MakeSwap | Warn
FileAction = WriteFile | RemoveFile | Symlink | MakeFolder | GenerateHostKey
Action = SourceAction | DiskAction | FileAction


def describe(action: Action) -> str:  # noqa: PLR0912 - one case for each
    """One line for the log. No content of a file is in it, so no secret."""
    match action:
        case CheckSource(source=source):
            return f"check the image, {_kind(source)}"
        case WriteSource(source=source):
            return f"write the image, {_kind(source)}, onto disk 0"
        case WriteTable(writes=writes):
            return f"write {len(writes)} places of the partition table"
        case CheckFilesystem(partition=partition):
            return f"check the file system of {_place(partition)}"
        case GrowFilesystem(partition=partition):
            return f"grow the file system of {_place(partition)}"
        case MountRoot(partition=partition, kind=kind):
            return f"mount {_place(partition)} ({kind.value})"
        case UmountRoot():
            return "unmount the image"
        case MakeSwap(disk=disk, partition=partition):
            return f"make swap on {_place(partition)} of disk {disk}"
        case WriteFile(path=path, content=content):
            return f"write {len(content)} bytes to {path}"
        case RemoveFile(path=path):
            return f"remove {path}"
        case Symlink(path=path, target=target):
            return f"link {path} to {target}"
        case MakeFolder(path=path):
            return f"make the folder {path}"
        case GenerateHostKey(kind=kind, path=path):
            return f"generate an SSH host key ({kind}) at {path}"
        case Warn(text=text):
            return f"warn: {text}"


def _place(partition: int | None) -> str:
    return "the whole disk" if partition is None else f"partition {partition}"


def _kind(source: Source) -> str:
    packed = "" if source.compression is Compression.NONE else f" within {source.compression.value}"
    return f"{source.size} bytes of {source.format.value}{packed}"
