"""All that a task can do to an image. The union is closed: what is not here cannot be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from snf_image_helper.image import FilesystemKind, Place, RootPath
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
class GrowVolume:
    """Let LVM's physical volumes fill their partitions (None: the whole disk), and a volume take what is free then."""

    volume: str
    partitions: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFilesystem:
    """Check an unmounted file system, mending what is safe to mend: ext2, ext3, ext4, f2fs."""

    place: Place
    kind: FilesystemKind


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowFilesystem:
    """Grow an unmounted file system to the size of its place: ext2, ext3, ext4, f2fs."""

    place: Place
    kind: FilesystemKind


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowMounted:
    """Grow the mounted root to the size of its place: XFS, btrfs."""

    kind: FilesystemKind


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRoot:
    place: Place
    kind: FilesystemKind
    subvolume: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountBelow:
    """Mount another file system of the image over a folder of its root. If not `needed`, a warning when it fails."""

    point: RootPath
    place: Place
    kind: FilesystemKind
    subvolume: str = ""
    needed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UmountRoot:
    """Unmount all that is mounted, and close what LVM has open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSwap:
    """Swap space on a partition of disk 0, or on a whole other disk."""

    disk: int
    partition: int | None
    uuid: str
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSeed:
    """A FAT file system with the label cidata and these files, on a partition of disk 0."""

    partition: int
    files: tuple[tuple[str, bytes], ...] = field(repr=False)


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
class MakeSwapFile:
    """A file of swap space. `in_place`: mark it so that a copy-on-write file system does not move its blocks."""

    path: RootPath
    size: int  # bytes
    uuid: str
    in_place: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScript:
    """A program of the administrator's, run in the image and in nothing else; see `jail`."""

    script: bytes = field(repr=False)
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRegistryValue:
    """A number in a hive of Windows, below a key that is there."""

    hive: RootPath
    key: str
    name: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowNtfs:
    """ntfsresize to the size of the partition. With `check` Windows checks the file system at its next boot."""

    place: Place
    check: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Warn:
    """Tell the admin something that is not worth failing for."""

    text: str


SourceAction = CheckSource | WriteSource
TableAction = WriteTable | GrowVolume | GrowNtfs | MakeSwap | MakeSeed
DiskAction = TableAction | CheckFilesystem | GrowFilesystem | GrowMounted | MountRoot | MountBelow | UmountRoot | Warn
FileAction = (
    WriteFile | RemoveFile | Symlink | MakeFolder | GenerateHostKey | MakeSwapFile | RunScript | SetRegistryValue
)
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
        case GrowVolume(volume=volume):
            return f"grow the logical volume {volume}"
        case CheckFilesystem(place=place, kind=kind):
            return f"check the file system of {place} ({kind.value})"
        case GrowFilesystem(place=place, kind=kind):
            return f"grow the file system of {place} ({kind.value})"
        case GrowMounted(kind=kind):
            return f"grow the mounted root ({kind.value})"
        case MountRoot(place=place, kind=kind):
            return f"mount {place} ({kind.value})"
        case MountBelow(point=point, place=place, kind=kind):
            return f"mount {place} ({kind.value}) at {point}"
        case UmountRoot():
            return "unmount the image"
        case MakeSwap(disk=disk, partition=partition):
            return f"make swap on {Place(partition=partition)} of disk {disk}"
        case MakeSeed(partition=partition):
            return f"make a seed for cloud-init on partition {partition}"
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
        case MakeSwapFile(path=path, size=size):
            return f"make a swap file of {size} bytes at {path}"
        case RunScript(script=script):
            return f"run a custom task of {len(script)} bytes in the image"
        case SetRegistryValue(hive=hive, key=key, name=name, value=value):
            return f"set {key}\\{name} to {value} in {hive}"
        case GrowNtfs(place=place):
            return f"grow NTFS on {place}"
        case Warn(text=text):
            return f"warn: {text}"


def _kind(source: Source) -> str:
    packed = "" if source.compression is Compression.NONE else f" within {source.compression.value}"
    return f"{source.size} bytes of {source.format.value}{packed}"
