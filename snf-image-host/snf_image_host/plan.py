"""From what Ganeti and the user say to what will be done: pure, no file is opened here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_image_host.network import plan_nics
from snf_image_host.params import Parameters
from snf_image_host.properties import FRAME
from snf_image_host.settings import Settings
from snf_image_host.vm import HelperImage
from synnefo_light.errors import EnvironmentFault, ProtocolError, UserError
from synnefo_light.ganeti import OsDisk, OsEnv, OsNic
from synnefo_light.manifest import Disk, Manifest, encode
from synnefo_light.tasks import OsFamily, TaskInfo
from synnefo_light.units import MIB, bytes_of

#: What a rename needs; a file system on a logical volume needs it found first.
RENAMING: Final = frozenset({"mount", "hostname", "umount"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDisk:
    """A disk that the helper VM gets: disk 0, and those up to a disk that becomes swap. The others stay unseen."""

    index: int
    path: Path
    size: int | None  # bytes, as Ganeti has it
    readonly: bool


def plan_disks(disks: Sequence[OsDisk], *, swap_disk: int | None) -> tuple[PlannedDisk, ...]:
    """Raises UserError for a swap disk that there is not, EnvironmentFault for a disk without a path."""
    last = swap_disk or 0
    if not disks:
        raise UserError("the instance has no disk; give it one with --disk 0:size=10G")
    if last >= len(disks):
        raise UserError(f"SWAP names disk {last}, but the instance has {len(disks)}; add --disk {last}:size=1G")
    planned: list[PlannedDisk] = []
    for disk in disks[: last + 1]:
        if disk.path is None:
            how = f"only an address for QEMU ({disk.uri})" if disk.uri else "neither a path nor an address"
            raise EnvironmentFault(
                f"Ganeti passes {how} for disk {disk.index}; snf-image needs a path on the node: "
                f"use a template with one, or access=kernelspace"
            )
        planned.append(
            PlannedDisk(
                index=disk.index,
                path=disk.path,
                size=bytes_of(disk.size) if disk.size is not None else None,
                readonly=disk.index not in (0, swap_disk),
            )
        )
    if any(disk.mode == "ro" for disk in disks[: last + 1]):
        raise UserError("a disk that is to be written has mode=ro; give it mode=rw")
    return tuple(planned)


def check_size(image: str, *, size: int, disk: int, instance: str) -> None:
    """Raises UserError when an image of `size` bytes does not fit on a disk of `disk` bytes."""
    if size > disk:
        needed = -(-size // MIB)
        raise UserError(
            f"disk 0 of {instance} is {disk // MIB} MiB, but the image {image} needs {needed} MiB; "
            f"ask for --disk 0:size={needed}M or more"
        )
    if size == 0:
        raise UserError(f"the image {image} is empty; put an image there")


def needs_helper(parameters: Parameters, tasks: Sequence[TaskInfo]) -> bool:
    """Whether any task is left that does something: mounting and unmounting alone is not worth a VM."""
    return any(task.name not in parameters.properties.skip and task.name not in FRAME for task in tasks)


def plan_manifest(
    env: OsEnv, parameters: Parameters, settings: Settings, *, sizes: Sequence[int], image: HelperImage, nonce: str
) -> Manifest | None:
    """What the helper VM is asked to do; None when it is not needed. Raises UserError.

    `sizes` are the disks' real sizes in bytes, `nonce` goes into the manifest as it is.
    """
    if not needs_helper(parameters, image.tasks):
        return None
    version = image.version
    return _manifest(env.instance, env.nics, parameters, settings, sizes=sizes, version=version, nonce=nonce)


def plan_rename(
    env: OsEnv, parameters: Parameters, settings: Settings, *, sizes: Sequence[int], image: HelperImage, nonce: str
) -> Manifest | None:
    """The helper's orders for a rename: only the host name; None when the configuration or a property says no."""
    if settings.rename == "noop" or not parameters.properties.skip.isdisjoint({"mount", "hostname"}):
        return None
    properties = parameters.properties
    try:
        return Manifest(
            helper_version=image.version,
            nonce=nonce,
            instance=env.instance,
            hostname=env.instance,
            os_family=properties.os_family,
            root_partition=properties.root_partition,
            disks=(Disk(index=0, size=sizes[0]),),
            skip=frozenset(task.name for task in image.tasks) - RENAMING,
        )
    except ValueError as e:
        raise UserError(f"{env.instance} cannot be renamed inside: {e}") from None


def check_parameters(parameters: Parameters, settings: Settings, tasks: Sequence[TaskInfo]) -> None:
    """Whether the helper could be asked for this at all, before there is an instance. Raises UserError."""
    family = parameters.properties.os_family
    if family not in (None, OsFamily.LINUX) and needs_helper(parameters, tasks):
        raise UserError(
            f"OSFAMILY is {family.value}, but only linux can be customised yet; "
            f'give EXCLUDE_ALL_TASKS="yes" to copy the image and leave it as it is'
        )
    manifest = _manifest("instance", (), parameters, settings, sizes=(MIB,), version="0", nonce="0" * 32)
    try:
        encode(manifest)
    except ProtocolError as e:
        raise UserError(f"img_personality: {e}") from None


def _manifest(
    instance: str,
    nics: Sequence[OsNic],
    parameters: Parameters,
    settings: Settings,
    *,
    sizes: Sequence[int],
    version: str,
    nonce: str,
) -> Manifest:
    properties = parameters.properties
    nameservers = parameters.nameservers if parameters.nameservers is not None else settings.nameservers
    search = parameters.search if parameters.search is not None else settings.search
    try:
        return Manifest(
            helper_version=version,
            nonce=nonce,
            instance=instance,
            hostname=instance,
            os_family=properties.os_family,
            root_partition=properties.root_partition,
            disks=tuple(Disk(index=n, size=size) for n, size in enumerate(sizes)),
            nics=plan_nics(nics, settings, nameservers=nameservers, search=search),
            users=properties.users,
            passwords=parameters.passwords,
            hashing=properties.hashing,
            authorized_keys=parameters.auth_keys,
            files=parameters.files,
            swap=properties.swap,
            skip=properties.skip,
        )
    except ValueError as e:
        raise UserError(f"this cannot be asked of the helper: {e}") from None
