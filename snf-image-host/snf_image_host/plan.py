"""From what Ganeti and the user say to what will be done: pure, no file is opened here."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_image_host.exclusions import FRAME
from snf_image_host.network import plan_nics
from snf_image_host.params import Parameters
from snf_image_host.settings import Settings
from snf_image_host.sources import NoImage, StoreImage
from snf_image_host.userspace import RbdAddress, parse_address
from snf_image_host.vm import HelperImage
from synnefo_light.errors import EnvironmentFault, ProtocolError, UserError
from synnefo_light.ganeti import OsDisk, OsEnv, OsNic
from synnefo_light.manifest import CloudInit, Disk, Manifest, Source, Windows, encode
from synnefo_light.tasks import OsFamily, Phase, TaskInfo
from synnefo_light.units import MIB, bytes_of

#: What a rename needs; a file system on a logical volume needs it found first.
RENAMING: Final = frozenset({"mount", "hostname", "umount"})
#: Families of which nothing can be changed, and why.
UNSERVED: Final = {
    OsFamily.OPENBSD: "its disklabels and file systems cannot be written",
    OsFamily.NETBSD: "its disklabels and file systems cannot be written",
    OsFamily.WINDOWS_LEGACY: "Windows before Vista is not customised any more",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDisk:
    """A disk that the helper VM gets: disk 0, and those up to a disk that becomes swap. The others stay unseen."""

    index: int
    path: Path | RbdAddress
    size: int | None  # bytes, as Ganeti has it
    readonly: bool


def plan_disks(disks: Sequence[OsDisk], *, swap_disk: int | None) -> tuple[PlannedDisk, ...]:
    """Raises UserError for a swap disk that there is not, EnvironmentFault for a disk that cannot be got at.

    A path is preferred to an address, which takes one more program.
    """
    last = swap_disk or 0
    if not disks:
        raise UserError("the instance has no disk; give it one with --disk 0:size=10G")
    if last >= len(disks):
        raise UserError(f"SWAP names disk {last}, but the instance has {len(disks)}; add --disk {last}:size=1G")
    planned: list[PlannedDisk] = []
    for disk in disks[: last + 1]:
        if disk.path is None and disk.uri is None:
            raise EnvironmentFault(
                f"Ganeti passes neither a path nor an address for disk {disk.index}; use a template with one of them"
            )
        planned.append(
            PlannedDisk(
                index=disk.index,
                path=disk.path or parse_address(disk.uri or ""),
                size=bytes_of(disk.size) if disk.size is not None else None,
                readonly=disk.index not in (0, swap_disk),
            )
        )
    if any(disk.mode == "ro" for disk in disks[: last + 1]):
        raise UserError("a disk that is to be written has mode=ro; give it mode=rw")
    return tuple(planned)


def check_size(image: str, *, size: int, disk: int, instance: str, lead: int = 0) -> None:
    """Raises UserError when `lead` bytes and an image of `size` bytes do not fit on a disk of `disk` bytes."""
    if size == 0:
        raise UserError(f"the image {image} is empty; put an image there")
    if lead + size > disk:
        needed = -(-(lead + size) // MIB)
        raise UserError(
            f"disk 0 of {instance} is {disk // MIB} MiB, but the image {image} needs {needed} MiB; "
            f"ask for --disk 0:size={needed}M or more"
        )


def needs_helper(parameters: Parameters, tasks: Sequence[TaskInfo]) -> bool:
    """Whether there is something to do for a helper VM: mounting and unmounting alone is not worth one."""
    return parameters.converts or customises(parameters, tasks)


def customises(parameters: Parameters, tasks: Sequence[TaskInfo]) -> bool:
    """Whether any task is left that changes what the image holds."""
    done = FRAME | parameters.properties.skip
    return any(task.name not in done for task in tasks if task.phase is not Phase.SOURCE)


def plan_manifest(
    env: OsEnv,
    parameters: Parameters,
    settings: Settings,
    *,
    sizes: Sequence[int],
    image: HelperImage,
    nonce: str,
    source: Source | None = None,
    answer_file: bytes | None = None,
) -> Manifest | None:
    """What the helper VM is asked to do; None when it is not needed. Raises UserError.

    `sizes` are the disks' real sizes in bytes, `source` is what it is to convert, `answer_file` what was fetched;
    `nonce` goes into the manifest as it is.
    """
    if not needs_helper(parameters, image.tasks):
        return None
    return _manifest(
        env.instance,
        env.nics,
        parameters,
        settings,
        sizes=sizes,
        image=image,
        nonce=nonce,
        source=source,
        answer_file=answer_file,
    )


def plan_rename(
    env: OsEnv, parameters: Parameters, settings: Settings, *, sizes: Sequence[int], image: HelperImage, nonce: str
) -> Manifest | None:
    """The helper's orders for a rename: only the host name; None when the configuration or a property says no, and for
    other families than Linux, which are given their name before the first boot alone.
    """
    properties = parameters.properties
    if settings.rename == "noop" or not properties.skip.isdisjoint({"mount", "hostname"}):
        return None
    if properties.os_family not in (None, OsFamily.LINUX):
        return None
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


def check_parameters(parameters: Parameters, settings: Settings, image: HelperImage) -> None:
    """Whether this could be done at all, as far as it is known before there is an instance. Raises UserError."""
    properties, tasks = parameters.properties, image.tasks
    family = properties.os_family
    if family in UNSERVED and customises(parameters, tasks):
        raise UserError(
            f"OSFAMILY is {family.value}, of which no image can be customised: {UNSERVED[family]}; "
            f'give EXCLUDE_ALL_TASKS="yes" to copy the image and leave it as it is'
        )
    if family not in (None, OsFamily.LINUX) and properties.swap is not None:
        raise UserError(f"SWAP is given, but OSFAMILY is {family.value}; only Linux gets swap space")
    if family is OsFamily.WINDOWS:
        _check_windows(parameters)
    if properties.custom_task is not None and not settings.allow_custom_task:
        raise UserError(
            "CUSTOM_TASK is given, but this node does not run such programs; leave it out, or set "
            "allow_custom_task=true in the configuration where those who may give OS parameters are trusted"
        )
    if parameters.converts and not any(task.phase is Phase.SOURCE for task in tasks):
        raise UserError("the image is no raw disk, and this helper VM cannot make one of it; give a raw image")
    _check_signature(parameters, settings)
    manifest = _manifest("instance", (), parameters, settings, sizes=(MIB,), image=image, nonce="0" * 32)
    try:
        encode(manifest)
    except ProtocolError as e:
        raise UserError(f"img_personality: {e}") from None


def _check_windows(parameters: Parameters) -> None:
    if any(password.hashed is not None for password in parameters.passwords):
        raise UserError("img_passwd_hash is given, but Windows takes no hashes; give img_passwd")
    for name, given in (
        ("CLOUD_INIT", parameters.properties.cloud_init),
        ("CUSTOM_TASK", parameters.properties.custom_task is not None),
    ):
        if given:
            raise UserError(f"{name} is given, but OSFAMILY is windows, for which there is no such task; leave it out")


def _check_signature(parameters: Parameters, settings: Settings) -> None:
    if parameters.signature is not None and not settings.signature_keyrings:
        raise UserError(
            "img_signature is given, but the node has no keys to check it with; "
            "name keyrings in signature_keyrings in the configuration"
        )
    if isinstance(parameters.source, StoreImage) and settings.signature_required:
        raise UserError(
            "the image is of the store, which keeps no signatures, and this node deploys signed images only "
            "(signature_required); give the signed image itself"
        )
    if parameters.signature is None and settings.signature_required and not isinstance(parameters.source, NoImage):
        raise UserError(
            "img_signature is missing: this node deploys signed images only (signature_required); give the signature"
        )


def _manifest(
    instance: str,
    nics: Sequence[OsNic],
    parameters: Parameters,
    settings: Settings,
    *,
    sizes: Sequence[int],
    image: HelperImage,
    nonce: str,
    source: Source | None = None,
    answer_file: bytes | None = None,
) -> Manifest:
    properties = parameters.properties
    nameservers = parameters.nameservers if parameters.nameservers is not None else settings.nameservers
    search = parameters.search if parameters.search is not None else settings.search
    customised = customises(parameters, image.tasks)
    if properties.os_family is OsFamily.WINDOWS and "AssignHostname" in _due(image.tasks, properties.skip):
        check_windows_name(instance)
    unasked = frozenset(t.name for t in image.tasks if t.phase is Phase.SOURCE) if source is None else frozenset()
    try:
        return Manifest(
            helper_version=image.version,
            nonce=nonce,
            instance=instance,
            hostname=instance,
            image_format=parameters.image_format,
            source=source,
            # What is only copied may be of any family: the helper has no say in it.
            os_family=properties.os_family if customised else None,
            root_partition=properties.root_partition,
            disks=tuple(Disk(index=n, size=size) for n, size in enumerate(sizes)),
            nics=plan_nics(nics, settings, nameservers=nameservers, search=search),
            users=properties.users,
            passwords=parameters.passwords,
            hashing=properties.hashing,
            authorized_keys=parameters.auth_keys,
            files=parameters.files,
            swap=properties.swap,
            cloud_init=CloudInit(userdata=parameters.userdata) if properties.cloud_init else None,
            nm_networking=properties.nm_networking,
            custom_task=properties.custom_task,
            ntfs_resize=properties.ntfs_resize,
            windows=_windows(parameters, settings, answer_file),
            skip=properties.skip | unasked,
        )
    except ValueError as e:
        raise UserError(f"this cannot be asked of the helper: {e}") from None


def _windows(parameters: Parameters, settings: Settings, answer_file: bytes | None) -> Windows | None:
    """Also when the family is not known yet: the helper may find Windows."""
    if parameters.properties.os_family not in (None, OsFamily.WINDOWS):
        return None
    return Windows(
        product_key=parameters.product_key,
        answer_file=base64.b64encode(answer_file).decode() if answer_file is not None else None,
        ignore_unattend=parameters.properties.ignore_unattend,
        timezone=settings.windows_timezone,
    )


def _due(tasks: Sequence[TaskInfo], skip: frozenset[str]) -> set[str]:
    return {task.snf_image or task.name for task in tasks if task.name not in skip}


def check_windows_name(instance: str) -> None:
    """Raises UserError when the instance's name, up to its first dot, cannot be a Windows computer's (NetBIOS)."""
    name = instance.partition(".")[0]
    if len(name) > 15:
        why = f"has {len(name)} characters, and a computer's name has at most 15"
    elif name.isdigit():
        why = "has digits only, which no computer's name may"
    elif re.fullmatch(r"[A-Za-z0-9-]+", name) is None:
        why = "has other characters than letters, digits and -"
    else:
        return
    raise UserError(
        f"{instance} cannot be the name of a Windows: {name} {why}; name the instance otherwise, or give "
        f'EXCLUDE_TASK_ASSIGNHOSTNAME="yes"'
    )
