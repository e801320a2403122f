"""Image properties: img_properties, and inst_properties over it. One table declares them all.

Names are case-insensitive as in snf-image. Other than there, a boolean that is none and a name that nobody knows are
errors: what is misspelt would otherwise be ignored in silence. The setting strict_properties = false brings back
snf-image's leniency, with a warning for each.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from snf_image_host.exclusions import TASK_PREFIX, excluded
from snf_image_host.likeness import nearest
from synnefo_light.log import escape
from synnefo_light.manifest import HASHING_METHODS, HashingMethod, ImageFormat, Swap
from synnefo_light.records import RecordError, load_json
from synnefo_light.tasks import OsFamily, TaskInfo

LIMIT: Final = 256 << 10
SCRIPT_LIMIT: Final = 128 << 10
YES: Final = frozenset({"yes", "true", "1", "on", "set"})
NO: Final = frozenset({"no", "false", "0", "off", "unset"})
WINDOWS_FAMILIES: Final = (OsFamily.WINDOWS, OsFamily.WINDOWS_LEGACY)

NtfsResize = Literal["boot", "offline", "offline-nocheck"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One property. An informative one says something about the image, and nothing follows from it."""

    name: str
    kind: str
    summary: str
    default: str = ""
    informative: bool = False


PROPERTIES: Final[tuple[Property, ...]] = (
    Property(
        name="OSFAMILY",
        kind="|".join(f.value for f in OsFamily),
        summary="family of the image's operating system",
        default="found out",
    ),
    Property(
        name="ROOT_PARTITION",
        kind="number from 1 to 128",
        summary="partition that holds the root file system",
        default="found out",
    ),
    Property(
        name="USERS",
        kind="names, separated by blanks",
        summary="users that get the password and the keys",
        default="root; Administrator where OSFAMILY is windows",
    ),
    Property(
        name="PASSWD_HASHING_METHOD",
        kind="|".join(HASHING_METHODS),
        summary="how the helper hashes img_passwd",
        default="sha512",
    ),
    Property(
        name="SWAP",
        kind="PARTITION:MiB, a disk's letter, or file:MiB",
        summary="make swap: a partition at the end of the first disk, a whole disk (b is the second), or a file",
        default="none",
    ),
    *(
        Property(name=name, kind=kind, summary=summary, default="no")
        for name, kind, summary in (
            ("CLOUD_INIT", "boolean", "write input for cloud-init instead of changing system files"),
            ("NM_NETWORKING", "boolean", "write NetworkManager's keyfiles, whatever the image seems to use"),
            ("OFFLINE_NTFSRESIZE", "boolean", "grow NTFS in the helper VM, not at the first boot"),
            ("OFFLINE_NTFSRESIZE_NOCHECK", "boolean", "the same, and Windows does not check it at its first boot"),
            ("IGNORE_UNATTEND", "boolean", "replace the image's answer file (Windows)"),
            ("USE_DEFAULT_UNATTEND", "boolean", "old name of IGNORE_UNATTEND"),
            ("CUSTOM_TASK", "base64", "a program run in the helper VM, where allow_custom_task lets it"),
            ("ALLOW_MOUNTED_TASK_OVERWRITING", "boolean", "refused: the helper VM runs no program of an image"),
            ("EXCLUDE_ALL_TASKS", "boolean", "copy only; a raw image needs no helper VM then"),
            ("EXCLUDE_MOUNTED_TASKS", "boolean", "leave the image's files alone; grow partition and file system only"),
            ("EXCLUDE_FILESYSTEMRESIZE_TASKS", "boolean", "do not grow the file system"),
            ("EXCLUDE_TASK_<NAME>", "boolean", "leave out the task of this name, ours or snf-image's; see TASKS"),
        )
    ),
    Property(
        name="DO_SYNC",
        kind="boolean",
        summary="accepted; the disk is always synced once, at the end",
        default="yes",
    ),
    *(
        Property(name=name, kind="text", summary="said about the image; nothing follows from it", informative=True)
        for name in ("DESCRIPTION", "GUI", "KERNEL", "OS", "OSVERSION", "REMOTE_CONNECTION", "SORTORDER")
    ),
)
_TABLE: Final[Mapping[str, Property]] = {p.name: p for p in PROPERTIES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    os_family: OsFamily | None = None
    root_partition: int | None = None
    users: tuple[str, ...] = ("root",)
    hashing: HashingMethod = "sha512"
    swap: Swap | None = None
    cloud_init: bool = False
    nm_networking: bool = False
    ntfs_resize: NtfsResize = "boot"
    ignore_unattend: bool = False
    custom_task: str | None = None  # base64
    skip: frozenset[str] = frozenset()  # our task names
    warnings: tuple[str, ...] = ()  # what was let through, with strict=False


def read_properties(text: str) -> dict[str, str]:
    """A JSON object of properties as {NAME: value}. Raises ValueError with a sentence."""
    data = load_json(text.encode("utf-8", "surrogateescape"), limit=LIMIT)
    if not isinstance(data, dict):
        raise RecordError("it is not a JSON object of names and values")
    found: dict[str, str] = {}
    for given, value in data.items():
        name = given.upper()
        if name in found:
            raise RecordError(f"the property {escape(name, limit=80)} stands twice")
        found[name] = _stringified(name, value)
    return found


def unknown_names(found: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each property that nobody knows; tasks are looked at by `parse_properties`."""
    known = [n for n in _TABLE if not _TABLE[n].informative]
    strangers = (name for name in found if not (name in _TABLE or name.startswith(TASK_PREFIX)))
    return tuple(f"the property '{escape(n, limit=80)}' is not known{nearest(n, known)}" for n in strangers)


def parse_properties(
    found: Mapping[str, str],
    tasks: Sequence[TaskInfo],
    *,
    strict: bool = True,
    image_format: ImageFormat = ImageFormat.DISKDUMP,
) -> Properties:
    """What `read_properties` gave, as orders to a helper with these tasks. Raises ValueError naming the property.

    extdump and ntfsdump imply the family and the root partition. Not `strict`: snf-image's reading of booleans.
    """
    said = _Booleans(found, strict=strict)
    family = _implied(_os_family(found.get("OSFAMILY")), image_format)
    root = _number(found, "ROOT_PARTITION", 1, 128)
    if image_format is not ImageFormat.DISKDUMP:
        if root not in (None, 1):
            raise ValueError(
                f"ROOT_PARTITION is {root}, but an {image_format.value} has partition 1 only; leave it out"
            )
        root = 1
    if said.yes("ALLOW_MOUNTED_TASK_OVERWRITING"):
        raise ValueError(
            "ALLOW_MOUNTED_TASK_OVERWRITING is not served: it runs programs of the image, with the powers of the "
            "helper itself; leave it out, and give what is to be run as CUSTOM_TASK"
        )
    said.yes("DO_SYNC")
    ignore = [said.yes(name) for name in ("IGNORE_UNATTEND", "USE_DEFAULT_UNATTEND")]
    return Properties(
        os_family=family,
        root_partition=root,
        users=_users(found.get("USERS"), family),
        hashing=_hashing(found.get("PASSWD_HASHING_METHOD")),
        swap=_swap(found.get("SWAP")),
        cloud_init=said.yes("CLOUD_INIT"),
        nm_networking=said.yes("NM_NETWORKING"),
        ntfs_resize=_ntfs_resize(said),
        ignore_unattend=any(ignore),
        custom_task=_custom_task(found.get("CUSTOM_TASK")),
        skip=excluded(found, tasks, said.yes, said.object_to),
        warnings=tuple(said.warnings),
    )


class _Booleans:
    """The properties that are yes or no, and what there is to object to.

    Without `strict` empty is no and any other word yes, as in snf-image.
    """

    def __init__(self, found: Mapping[str, str], *, strict: bool) -> None:
        self._found = found
        self._strict = strict
        self.warnings: list[str] = []

    def yes(self, name: str) -> bool:
        value = self._found.get(name)
        if value is None:
            return False
        word = value.lower()
        if word in YES or word in NO:
            return word in YES
        self.object_to(
            f"{name} is '{escape(value, limit=80)}', which is neither yes nor no",
            f"; it is taken as {'yes' if value else 'no'}",
        )
        return bool(value)

    def object_to(self, sentence: str, instead: str = "; it is left out") -> None:
        if self._strict:
            raise ValueError(sentence)
        self.warnings.append(sentence + instead)


def _stringified(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int):
        return str(value)
    raise RecordError(f"the value of {escape(name, limit=80)} is neither text, a number nor true or false")


def _os_family(value: str | None) -> OsFamily | None:
    if value is None:
        return None
    try:
        return OsFamily(value.lower())
    except ValueError:
        families = ", ".join(f.value for f in OsFamily)
        raise ValueError(f"OSFAMILY is '{escape(value, limit=80)}', the families are {families}") from None


def _implied(given: OsFamily | None, image_format: ImageFormat) -> OsFamily | None:
    fitting = {ImageFormat.EXTDUMP: (OsFamily.LINUX,), ImageFormat.NTFSDUMP: WINDOWS_FAMILIES}.get(image_format)
    if fitting is None:
        return given
    if given is None:
        return fitting[0]
    if given not in fitting:
        raise ValueError(f"OSFAMILY is {given.value}, but {image_format.value} is for {fitting[0].value}; leave it out")
    return given


def _number(found: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most):
        raise ValueError(f"{name} is '{escape(value, limit=80)}', which is not a number from {least} to {most}")
    return int(value)


def _users(value: str | None, family: OsFamily | None) -> tuple[str, ...]:
    if value is None:
        return ("Administrator",) if family in WINDOWS_FAMILIES else ("root",)
    users = tuple(dict.fromkeys(value.split()))
    if not users:
        raise ValueError("USERS is empty; name a user, or leave it out for root")
    return users


def _hashing(value: str | None) -> HashingMethod:
    if value is None:
        return "sha512"
    if value.lower() not in HASHING_METHODS:
        known = ", ".join(HASHING_METHODS)
        raise ValueError(f"PASSWD_HASHING_METHOD is '{escape(value, limit=80)}', the methods are {known}")
    return cast(HashingMethod, value.lower())


def _swap(value: str | None) -> Swap | None:
    """`<partition>:<MiB>`, a disk as a letter (a is the first, which holds the image), or `file:<MiB>`."""
    if value is None:
        return None
    if len(value) == 1 and "b" <= value.lower() <= "p":
        return Swap(disk=ord(value.lower()) - ord("a"))
    partition, colon, size = value.partition(":")
    numbers = {"SWAP's partition": partition, "SWAP's size": size}
    if not colon:
        raise ValueError(
            f"SWAP is '{escape(value, limit=80)}', which is neither PARTITION:MiB, a disk from b to p, nor file:MiB"
        )
    size_mib = _number(numbers, "SWAP's size", 1, 1 << 20)
    if partition.lower() == "file":
        return Swap(file_mib=size_mib)
    return Swap(partition=_number(numbers, "SWAP's partition", 1, 128), size_mib=size_mib)


def _ntfs_resize(said: _Booleans) -> NtfsResize:
    offline, nocheck = said.yes("OFFLINE_NTFSRESIZE"), said.yes("OFFLINE_NTFSRESIZE_NOCHECK")
    if nocheck:
        return "offline-nocheck"
    return "offline" if offline else "boot"


def _custom_task(value: str | None) -> str | None:
    text = "".join((value or "").split())
    if not text:
        return None
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("CUSTOM_TASK is not base64; encode the program with base64(1)") from None
    if size > SCRIPT_LIMIT:
        raise ValueError(f"CUSTOM_TASK has {size} bytes, at most {SCRIPT_LIMIT} are accepted")
    return text
