"""Image properties: img_properties, and inst_properties over it. One table declares them all.

Names are case-insensitive as in snf-image. Other than there, a boolean that is none and a name that nobody knows are
errors: what is misspelt would otherwise be ignored in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from synnefo_light.log import escape
from synnefo_light.manifest import HASHING_METHODS, HashingMethod, Swap
from synnefo_light.records import RecordError, load_json
from synnefo_light.tasks import Group, OsFamily, TaskInfo

LIMIT: Final = 64 << 10
TASK_PREFIX: Final = "EXCLUDE_TASK_"
YES: Final = frozenset({"yes", "true", "1", "on", "set"})
NO: Final = frozenset({"no", "false", "0", "off", "unset"})

#: served: done now. later: "no" is accepted, "yes" and values are refused. informative: said about the image, no order.
Status = Literal["served", "later", "informative"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    name: str
    kind: str
    summary: str
    status: Status = "served"
    default: str = ""


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
        default="root",
    ),
    Property(
        name="PASSWD_HASHING_METHOD",
        kind="|".join(HASHING_METHODS),
        summary="how the helper hashes img_passwd",
        default="sha512",
    ),
    Property(
        name="SWAP",
        kind="PARTITION:MiB, or a disk's letter",
        summary="make swap: a partition at the end of the first disk, or a whole disk (b is the second)",
        default="none",
    ),
    Property(name="EXCLUDE_ALL_TASKS", kind="boolean", summary="copy only; no helper VM is started", default="no"),
    Property(
        name="EXCLUDE_MOUNTED_TASKS",
        kind="boolean",
        summary="leave the image's files alone; grow partition and file system only",
        default="no",
    ),
    Property(
        name="EXCLUDE_FILESYSTEMRESIZE_TASKS",
        kind="boolean",
        summary="do not grow the file system",
        default="no",
    ),
    Property(
        name="EXCLUDE_TASK_<NAME>",
        kind="boolean",
        summary="leave out the task of this name, ours or snf-image's; see TASKS",
        default="no",
    ),
    Property(
        name="DO_SYNC",
        kind="boolean",
        summary="accepted; the disk is always synced once, at the end",
        default="yes",
    ),
    *(
        Property(name=name, kind=kind, summary=summary, status="later", default="no")
        for name, kind, summary in (
            ("CLOUD_INIT", "boolean", "write input for cloud-init instead of system files"),
            ("NM_NETWORKING", "boolean", "use NetworkManager's files"),
            ("CUSTOM_TASK", "base64", "a script of the image's owner, run in the helper VM"),
            ("ALLOW_MOUNTED_TASK_OVERWRITING", "boolean", "run the image's own programs in the helper VM"),
            ("IGNORE_UNATTEND", "boolean", "replace the image's answer file (Windows)"),
            ("USE_DEFAULT_UNATTEND", "boolean", "old name of IGNORE_UNATTEND"),
            ("OFFLINE_NTFSRESIZE", "boolean", "grow NTFS in the helper VM"),
            ("OFFLINE_NTFSRESIZE_NOCHECK", "boolean", "the same for a file system that is marked dirty"),
        )
    ),
    *(
        Property(name=name, kind="text", summary="said about the image; nothing follows from it", status="informative")
        for name in ("DESCRIPTION", "GUI", "KERNEL", "OS", "OSVERSION", "REMOTE_CONNECTION", "SORTORDER")
    ),
)
_TABLE: Final[Mapping[str, Property]] = {p.name: p for p in PROPERTIES}
#: These two frame all the others; alone they are never left out.
FRAME: Final = frozenset({"mount", "umount"})


def exclusions(tasks: Iterable[TaskInfo]) -> dict[str, frozenset[str]]:
    """What each EXCLUDE_TASK_ property leaves out: by our name of a task or snf-image's, which several may share."""
    found: dict[str, frozenset[str]] = {}
    for task in tasks:
        for name in {task.name.upper(), (task.snf_image or task.name).upper()} if task.name not in FRAME else ():
            found[f"{TASK_PREFIX}{name}"] = found.get(f"{TASK_PREFIX}{name}", frozenset()) | {task.name}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    os_family: OsFamily | None = None
    root_partition: int | None = None
    users: tuple[str, ...] = ("root",)
    hashing: HashingMethod = "sha512"
    swap: Swap | None = None
    skip: frozenset[str] = field(default_factory=frozenset)  # our task names


def read_properties(text: str) -> dict[str, str]:
    """A JSON object of properties as {NAME: value}, known names only; tasks are looked at by `parse_properties`.

    Raises ValueError with a sentence.
    """
    data = load_json(text.encode("utf-8", "surrogateescape"), limit=LIMIT)
    if not isinstance(data, dict):
        raise RecordError("it is not a JSON object of names and values")
    found: dict[str, str] = {}
    for given, value in data.items():
        name = given.upper()
        if name in found:
            raise RecordError(f"the property {name} stands twice")
        _check_name(given, name)
        found[name] = _stringified(name, value)
    return found


def parse_properties(found: Mapping[str, str], tasks: Sequence[TaskInfo]) -> Properties:
    """What `read_properties` gave, as orders to a helper with these tasks. Raises ValueError naming the property."""
    for name, value in found.items():
        _refuse_later(name, value)
    return Properties(
        os_family=_os_family(found.get("OSFAMILY")),
        root_partition=_number(found, "ROOT_PARTITION", 1, 128),
        users=_users(found.get("USERS")),
        hashing=_hashing(found.get("PASSWD_HASHING_METHOD")),
        swap=_swap(found.get("SWAP")),
        skip=_skip(found, tasks),
    )


def boolean(name: str, value: str) -> bool:
    """snf-image's words for yes and no, and no others."""
    word = value.lower()
    if word in YES or word in NO:
        return word in YES
    raise ValueError(f"{name} is '{escape(value, limit=80)}', which is neither yes nor no")


def nearest(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """ "; did you mean X?", or nothing. What all begin with says nothing about likeness."""
    close = difflib.get_close_matches(name.removeprefix(prefix), [k.removeprefix(prefix) for k in known], cutoff=0.7)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def _check_name(given: str, name: str) -> None:
    if name in _TABLE or name.startswith(TASK_PREFIX):
        return
    known = [n for n in _TABLE if _TABLE[n].status != "informative"]
    raise RecordError(f"the property '{escape(given, limit=80)}' is not known{nearest(name, known)}")


def _stringified(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int):
        return str(value)
    raise RecordError(f"the value of {name} is neither text, a number nor true or false")


def _refuse_later(name: str, value: str) -> None:
    known = _TABLE.get(name)
    if known is None or known.status != "later" or not value:
        return
    if known.kind != "boolean" or boolean(name, value):
        raise ValueError(f"{name} ({known.summary}) comes later; leave it out")


def _os_family(value: str | None) -> OsFamily | None:
    if value is None:
        return None
    try:
        return OsFamily(value.lower())
    except ValueError:
        families = ", ".join(f.value for f in OsFamily)
        raise ValueError(f"OSFAMILY is '{escape(value, limit=80)}', the families are {families}") from None


def _number(found: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most):
        raise ValueError(f"{name} is '{escape(value, limit=80)}', which is not a number from {least} to {most}")
    return int(value)


def _users(value: str | None) -> tuple[str, ...]:
    if value is None:
        return ("root",)
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
    """`<partition>:<MiB>`, or a disk as a letter: a is the first, which holds the image."""
    if value is None:
        return None
    if len(value) == 1 and "b" <= value.lower() <= "p":
        return Swap(disk=ord(value.lower()) - ord("a"))
    partition, colon, size = value.partition(":")
    numbers = {"SWAP's partition": partition, "SWAP's size": size}
    if not colon:
        raise ValueError(f"SWAP is '{escape(value, limit=80)}', which is neither PARTITION:MiB nor a disk from b to p")
    return Swap(
        partition=_number(numbers, "SWAP's partition", 1, 128), size_mib=_number(numbers, "SWAP's size", 1, 1 << 20)
    )


def _skip(found: Mapping[str, str], tasks: Sequence[TaskInfo]) -> frozenset[str]:
    by_name = exclusions(tasks)
    skip: frozenset[str] = frozenset()
    for name, value in found.items():
        if name.startswith(TASK_PREFIX):
            _check_task(name, by_name)
            skip |= by_name[name] if boolean(name, value) else frozenset()
        elif name == "EXCLUDE_ALL_TASKS" and boolean(name, value):
            skip |= {task.name for task in tasks}
        elif name in _GROUPS and boolean(name, value):
            skip |= {task.name for task in tasks if _GROUPS[name] in task.groups}
    return skip


_GROUPS: Final[Mapping[str, Group]] = {
    "EXCLUDE_MOUNTED_TASKS": "mounted",
    "EXCLUDE_FILESYSTEMRESIZE_TASKS": "resize",
}


def _check_task(name: str, by_name: Mapping[str, object]) -> None:
    if name in ("EXCLUDE_TASK_MOUNTIMAGE", "EXCLUDE_TASK_UMOUNTIMAGE", "EXCLUDE_TASK_MOUNT", "EXCLUDE_TASK_UMOUNT"):
        raise RecordError(f"{name} alone is not possible; EXCLUDE_MOUNTED_TASKS leaves out all that need the mount")
    if name not in by_name:
        shown = escape(name[len(TASK_PREFIX) :], limit=80)
        raise RecordError(f"the task '{shown}' is not known{nearest(name, by_name, prefix=TASK_PREFIX)}")
