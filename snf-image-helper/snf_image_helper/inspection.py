"""Look at the disk, change nothing: where is the root file system, and what is on it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from snf_image_helper.apply import DISK, Machine
from snf_image_helper.candidates import (
    candidates,
    family_of,
    must_be_looked_at,
    named_block,
    refusal,
    refuse_other_bsd,
    root_subvolume,
    system_of,
)
from snf_image_helper.disks import reading, size_of_node
from snf_image_helper.filesystems import look
from snf_image_helper.image import (
    Block,
    Content,
    Filesystem,
    FilesystemKind,
    Image,
    NoFiles,
    Place,
    Root,
    VolumeGroup,
)
from snf_image_helper.partitions import SECTOR, Table, TableError, parse_table
from synnefo_light.errors import Error
from synnefo_light.log import logger
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import OsFamily

CANDIDATES_LIMIT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the system is, what family it is of, and what LVM the image has."""

    place: Place
    family: OsFamily
    subvolume: str = ""
    volumes: tuple[Block, ...] = ()
    group: VolumeGroup | None = None


def find_root(machine: Machine, manifest: Manifest) -> Found:
    """Where the root file system is.

    What the admin named counts. Otherwise it is the only place with a file system that can be one; of several, the
    first that holds a system, each looked at through a read-only mount. Raises TableError when there is none.
    """
    table, size = read_table(machine)
    refuse_other_bsd(table, manifest.os_family)
    blocks = survey(machine, table, size)
    if manifest.root_partition is not None:
        blocks = (named_block(blocks, manifest.root_partition, table),)
    volumes: tuple[Block, ...] = ()
    groups: tuple[VolumeGroup, ...] = ()
    if any(block.content is Content.LVM for block in blocks):
        groups, volumes = survey_volumes(machine)
    try:
        found = _choose(machine, (*blocks, *volumes), manifest)
    finally:
        machine.umount()
    group = next((g for g in groups if (found.place.volume or "").startswith(f"{g.name}/")), None)
    return replace(found, volumes=volumes, group=group)


def _choose(machine: Machine, blocks: Sequence[Block], manifest: Manifest) -> Found:
    family = manifest.os_family
    possible = candidates(blocks, family)
    if not possible:
        raise TableError(refusal(blocks, family))
    if not must_be_looked_at(possible):
        (first, *_) = possible
        assert first.filesystem is not None
        return Found(place=first.place, family=family or family_of(first.filesystem))
    closed = ""
    for block in possible[:CANDIDATES_LIMIT]:
        try:
            seen = _system_on(machine, block)
        except Error as e:  # another place may hold the system
            logger.warning("no look at %s: %s", block.place, e)
            closed = closed or f"; {block.place} could not be looked at: {e}"
            continue
        if seen is not None:
            return Found(place=block.place, family=family or seen[0], subvolume=seen[1])
    raise TableError(refusal(blocks, family) + closed)


def _system_on(machine: Machine, block: Block) -> tuple[OsFamily, str] | None:
    """The family of the system on a file system, and the subvolume it is in; None if there is none. Raises Error."""
    filesystem = block.filesystem
    assert filesystem is not None
    if filesystem.kind in (FilesystemKind.UFS, FilesystemKind.ZFS):
        return OsFamily.FREEBSD, ""
    machine.mount(block.place, filesystem.kind, read_only=True)
    try:
        assert machine.root is not None
        if filesystem.kind is FilesystemKind.BTRFS:
            subvolume = root_subvolume(machine.root)
            return (OsFamily.LINUX, subvolume) if subvolume is not None else None
        family = system_of(machine.root, filesystem.kind)
        return (family, "") if family is not None else None
    finally:
        machine.umount_files()


def read_table(machine: Machine) -> tuple[Table | None, int]:
    """The partition table of disk 0, and the disk's bytes."""
    size = machine.disks.size(DISK)
    with reading(machine.disks.node(DISK)) as read:
        return parse_table(read, disk_sectors=size // SECTOR), size


def survey(machine: Machine, table: Table | None, size: int) -> tuple[Block, ...]:
    """What is on each partition, or on the whole disk if there are none."""
    with reading(machine.disks.node(DISK)) as read:
        if table is None:
            return (Block(place=Place(), size=size, content=look(read, start=0, size=size)),)
        return tuple(
            Block(
                place=Place(partition=p.number),
                size=p.sectors * SECTOR,
                content=look(read, start=p.start * SECTOR, size=p.sectors * SECTOR),
                partition=p,
            )
            for p in table.partitions
        )


def survey_volumes(machine: Machine) -> tuple[tuple[VolumeGroup, ...], tuple[Block, ...]]:
    """The image's volume groups, and what is on each of their plain volumes, which stay active."""
    report = machine.volumes.report()
    blocks = []
    for volume in report.volumes:
        if volume.is_linear:
            with reading(machine.volumes.node(volume.name)) as read:
                content = look(read, start=0, size=volume.size)
            blocks.append(Block(place=Place(volume=volume.name), size=volume.size, content=content))
    return report.groups, tuple(blocks)


def snapshot(machine: Machine, *, root: Found, today: int) -> Image:
    """The image as it is now. Raises TableError when the root file system is not there (any more)."""
    table, size = read_table(machine)
    volumes = tuple(_now(machine, block) for block in root.volumes)
    blocks = (*survey(machine, table, size), *volumes)
    block = next((b for b in blocks if b.place == root.place), None)
    if block is None or block.filesystem is None:
        raise TableError(f"the root file system was on {root.place}, where there is none now")
    place = Root(
        partition=block.partition,
        size=block.size,
        filesystem=block.filesystem,
        volume=block.place.volume,
        subvolume=root.subvolume,
    )
    files = machine.root or NoFiles()
    return Image(
        today=today,
        disk_size=size,
        table=table,
        root=place,
        family=root.family,
        blocks=blocks,
        group=root.group,
        files=files,
        windows=machine.windows,
    )


def _now(machine: Machine, block: Block) -> Block:
    """A logical volume as it is now if it is active, else as it was."""
    assert block.place.volume is not None
    if not machine.volumes.is_active(block.place.volume):
        return block
    with reading(machine.volumes.node(block.place.volume)) as read:
        size = size_of_node(machine.volumes.node(block.place.volume))
        return replace(block, size=size, content=look(read, start=0, size=size))


def unread(machine: Machine, *, today: int) -> Image:
    """What is known before disk 0 is written: its size."""
    size = machine.disks.size(DISK)
    place = Root(partition=None, size=size, filesystem=Filesystem(kind=FilesystemKind.UNKNOWN, size=0))
    return Image(today=today, disk_size=size, table=None, root=place)
