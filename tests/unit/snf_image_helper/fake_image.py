"""Images that are only a description: what `plan` may see, without a disk."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Mapping

from snf_image_helper.image import Entry, Filesystem, FilesystemKind, Image, ImageError, Kind, Root, RootPath, TooLarge
from snf_image_helper.partitions import LINUX_MBR, SECTOR, Partition, Table
from snf_image_helper.rootfs import READ_LIMIT

from synnefo_light.manifest import Manifest
from synnefo_light.records import build
from tests.guests.trees import LinkTo

TODAY = 20000
NONCE = "00112233445566778899aabbccddeeff"
MIB = 1 << 20
Link = LinkTo


class FakeFiles:
    """Files by path, as bytes or text, a Link, or None for an empty folder. Folders on the way are there.

    Files are root's, of mode 0644, but for what `entries` says.
    """

    def __init__(
        self, tree: Mapping[str, str | bytes | Link | None], entries: Mapping[str, Entry] | None = None
    ) -> None:
        self._entries = {RootPath(path): entry for path, entry in (entries or {}).items()}
        self._tree = {RootPath(path): what for path, what in tree.items()}
        self._folders = {RootPath("/")}
        for path in self._tree:
            folder = path.parent
            while folder.name:
                self._folders.add(folder)
                folder = folder.parent

    def _follow(self, path: RootPath) -> RootPath:
        what = self._tree.get(path)
        if not isinstance(what, Link):
            return path
        # As the kernel resolves it, so that a relative target may say "..".
        return RootPath(posixpath.normpath(posixpath.join(path.parent, what.target)))

    def entry(self, path: RootPath) -> Entry | None:
        path = self._follow(path)
        if path in self._folders or (path in self._tree and self._tree[path] is None):
            return Entry(kind=Kind.FOLDER, mode=0o755, owner=0, group=0)
        if path in self._entries:
            return self._entries[path]
        if path in self._tree:
            return Entry(kind=Kind.FILE, mode=0o644, owner=0, group=0)
        return None

    def link(self, path: RootPath) -> str | None:
        what = self._tree.get(path)
        return what.target if isinstance(what, Link) else None

    def read(self, path: RootPath) -> bytes | None:
        what = self._tree.get(self._follow(path))
        if (entry := self.entry(path)) is not None and entry.kind is Kind.FOLDER:
            raise ImageError(f"{path} of the image is a folder, a regular file is needed there")
        content = what.encode() if isinstance(what, str) else what if isinstance(what, bytes) else None
        if content is not None and len(content) > READ_LIMIT:
            raise TooLarge(f"{path} of the image has over {READ_LIMIT} bytes, more than such a file may have")
        return content

    def names(self, path: RootPath) -> tuple[str, ...]:
        return tuple(sorted(p.name for p in (*self._tree, *self._folders) if p.parent == path and p.name))


def fake_image(
    tree: Mapping[str, str | bytes | Link | None] | None = None,
    *,
    entries: Mapping[str, Entry] | None = None,
    table: Table | None = None,
    partition: Partition | None = None,
    kind: FilesystemKind = FilesystemKind.EXT4,
    filesystem_mib: int = 48,
    disk_mib: int = 64,
) -> Image:
    size = partition.sectors * SECTOR if partition is not None else disk_mib * MIB
    return Image(
        today=TODAY,
        disk_size=disk_mib * MIB,
        table=table,
        root=Root(partition=partition, size=size, filesystem=Filesystem(kind=kind, size=filesystem_mib * MIB)),
        files=FakeFiles(tree or {}, entries),
    )


def manifest(**fields: object) -> Manifest:
    basic = {
        "helper_version": "1",
        "nonce": NONCE,
        "instance": "web1.example.org",
        "hostname": "web1.example.org",
        "disks": [{"index": 0, "size": 64 * MIB}],
    }
    return build(basic | fields, Manifest)


def mbr_sector(*records: tuple[int, int, int] | None) -> bytes:
    """A sector with up to four records of (type, start, sectors) and the signature."""
    sector = bytearray(SECTOR)
    for index, record in enumerate(records):
        if record is not None:
            struct.pack_into("<4xB3xII", sector, 446 + 16 * index, *record)
    sector[510:512] = b"\x55\xaa"
    return bytes(sector)


class FakeDisk:
    """Sectors by number; the rest is zeros. Counts how often it is read."""

    def __init__(self, sectors: int, content: Mapping[int, bytes]) -> None:
        self.sectors = sectors
        self.data = bytearray(max(sectors, 1) * SECTOR) if sectors < 1 << 20 else bytearray(1 << 24)
        self.reads = 0
        for number, what in content.items():
            self.data[number * SECTOR : number * SECTOR + len(what)] = what

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data


def linux(number: int, start: int, sectors: int, *, where: int = 0) -> Partition:
    return Partition(number=number, start=start, sectors=sectors, kind=LINUX_MBR, where=where)
