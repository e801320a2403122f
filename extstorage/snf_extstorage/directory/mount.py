"""What a folder's mount says (proc(5), mountinfo): whether its locks are every node's, and what a sync there covers.

flock(2) and QEMU's own locks of a file are all that keeps two nodes from changing a volume at once. Over NFS they go to
the server, unless the mount has `local_lock` or `nolock`, see nfs(5); OCFS2 and GFS2 have `localflocks`. Then each node
holds locks of its own, and nobody would notice.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synnefo_light.errors import EnvironmentFault

MOUNTINFO: Final = Path("/proc/self/mountinfo")

#: id, parent, major:minor, root, point, the mount's options, any number of tagged fields, "-", kind, source, options.
_LINE: Final = re.compile(r"\d+ \d+ \d+:\d+ \S+ (\S+) \S+(?: [^- ]\S*)* - (\S+) \S* (\S+)")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    point: str
    kind: str
    options: tuple[str, ...]  # of the file system, not of this mount of it


def parse_mount(text: str, number: int) -> Mount | None:
    """The mount of that number; None without one, as for what was mounted outside of what this process sees.

    Raises EnvironmentFault when its line is none: what is not understood may say that locks are local.
    """
    line = next((one for one in text.split("\n") if one.startswith(f"{number} ")), None)
    if line is None:
        return None
    fields = _LINE.fullmatch(line)
    if fields is None:
        raise EnvironmentFault(f"{MOUNTINFO} has a line that is none: {line[:200]!r}; nothing is known of its locks")
    point, kind, options = fields.groups()
    shown = _ESCAPE.sub(lambda m: chr(int(m[1], 8)), point)
    return Mount(point=shown, kind=kind, options=tuple(options.split(",")))


def parse_mount_id(text: str) -> int:
    """Of /proc/self/fdinfo/N. Raises EnvironmentFault."""
    found = re.search(r"^mnt_id:\t(\d+)$", text, re.MULTILINE)
    if found is None:
        raise EnvironmentFault(f"the kernel does not say where a file is mounted: {text[:200]!r} has no mnt_id")
    return int(found[1])


def local_locks(mount: Mount) -> str | None:
    """The option that keeps locks on this node, if there is one."""
    for option in mount.options:
        name, _, value = option.partition("=")
        if option in ("nolock", "localflocks") or (name == "local_lock" and value != "none"):
            return option
    return None


def logs_in_order(mount: Mount) -> bool:
    """Whether what is durable of what was done to names and files implies all that was done before.

    XFS has one log, and before a part of it counts the disk's cache is flushed: what was written to the disk before is
    durable then. That flush does not reach a device for real-time files.
    """
    return mount.kind == "xfs" and not any(option.startswith("rtdev=") for option in mount.options)


def mount_of(folder: Path) -> Mount | None:
    """The mount that a folder is on; None where it is outside of what this process sees. Raises EnvironmentFault."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = parse_mount_id(Path(f"/proc/self/fdinfo/{fd}").read_text())
        return parse_mount(MOUNTINFO.read_text(errors="surrogateescape"), number)
    finally:
        os.close(fd)


def require_shared_locks(folder: Path) -> None:
    """Raises EnvironmentFault where locks in `folder` would not be seen by other nodes that have it."""
    mount = mount_of(folder)
    if mount is not None and (option := local_locks(mount)):
        raise EnvironmentFault(
            f"{folder} is on {mount.kind} mounted at {mount.point} with {option}: two nodes could hold the lock of "
            "one volume; mount it without that option"
        )
