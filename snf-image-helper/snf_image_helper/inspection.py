"""Look at the disk, change nothing: where is the root file system, and what is on it now."""

from __future__ import annotations

from dataclasses import dataclass

from snf_image_helper.apply import DISK, Machine
from snf_image_helper.disks import read_node
from snf_image_helper.distribution import exists
from snf_image_helper.filesystems import detect, named_root, root_candidates
from snf_image_helper.image import Filesystem, FilesystemKind, Image, NoFiles, Root
from snf_image_helper.partitions import SECTOR, Partition, Table, TableError, parse_table
from synnefo_light.errors import EnvironmentFault
from synnefo_light.manifest import Manifest
from synnefo_light.tasks import OsFamily

CANDIDATES_LIMIT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the system is: the number of its partition (None: on the whole disk), and what family it is of."""

    number: int | None
    family: OsFamily


def read_table(machine: Machine) -> tuple[Table | None, int]:
    """The partition table of disk 0, and the disk's bytes."""
    node, size = machine.disks.node(DISK), machine.disks.size(DISK)
    table = parse_table(lambda offset, length: read_node(node, offset, length), disk_sectors=size // SECTOR)
    return table, size


def find_root(machine: Machine, manifest: Manifest) -> Found:
    """Where the root file system is.

    What the admin named counts. Otherwise it is the partition of GPT's root type, or the only one with a Linux file
    system; of several, the first that holds an os-release, each looked at through a read-only mount.
    Raises TableError when there is none.
    """
    family = manifest.os_family or OsFamily.LINUX
    table, _ = read_table(machine)
    if table is None:
        if manifest.root_partition is not None:
            raise TableError(f"ROOT_PARTITION is {manifest.root_partition}, but the image has no partition table")
        return Found(number=None, family=family)
    node = machine.disks.node(DISK)
    if manifest.root_partition is not None:
        partition, _ = named_root(lambda o, n: read_node(node, o, n), table, manifest.root_partition)
        return Found(number=partition.number, family=family)
    candidates = root_candidates(lambda o, n: read_node(node, o, n), table)
    if len(candidates) == 1:
        return Found(number=candidates[0][0].number, family=family)
    for partition, filesystem in candidates[:CANDIDATES_LIMIT]:
        if _holds_a_system(machine, partition, filesystem):
            return Found(number=partition.number, family=family)
    raise TableError(
        "no partition of the image was recognised as the root of a Linux system; name it by ROOT_PARTITION"
    )


def _holds_a_system(machine: Machine, partition: Partition, filesystem: Filesystem) -> bool:
    try:
        machine.mount(machine.disks.partition_node(DISK, partition.number), filesystem.kind, read_only=True)
    except EnvironmentFault:
        return False
    try:
        assert machine.root is not None
        return exists(machine.root, "etc/os-release", "usr/lib/os-release", "etc/debian_version")
    finally:
        machine.umount()


def snapshot(machine: Machine, *, root: Found, today: int) -> Image:
    """The image as it is now. Raises TableError when the root file system is not there (any more)."""
    table, size = read_table(machine)
    node = machine.disks.node(DISK)
    if table is None:
        filesystem = detect(lambda o, n: read_node(node, o, n), start=0, size=size)
        if filesystem is None:
            raise TableError("the disk has neither a partition table nor a file system that we know")
        place = Root(partition=None, size=size, filesystem=filesystem)
    else:
        assert root.number is not None
        partition, filesystem = named_root(lambda o, n: read_node(node, o, n), table, root.number)
        place = Root(partition=partition, size=partition.sectors * SECTOR, filesystem=filesystem)
    files = machine.root or NoFiles()
    return Image(today=today, disk_size=size, table=table, root=place, family=root.family, files=files)


def unread(machine: Machine, *, today: int) -> Image:
    """What is known before disk 0 is written: its size."""
    size = machine.disks.size(DISK)
    place = Root(partition=None, size=size, filesystem=Filesystem(kind=FilesystemKind.UNKNOWN, size=0))
    return Image(today=today, disk_size=size, table=None, root=place)
