"""What of the host an attack could have changed: chosen folders, the kernel's log, and the kernel's uevents."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

#: Where a deployment that is led out of its image would most likely be led to.
FOLDERS = tuple(
    Path(name)
    for name in (
        "/etc",
        "/root/.ssh",
        "/boot",
        "/usr/local",
        "/home",
        "/var/spool",
        "/var/lib/ganeti",
        "/usr/lib/systemd",
    )
)
NOT_OURS = re.compile(r"/etc/(mtab|resolv\.conf)")  # a resolver of the machine may write it

#: uevents that a deployment causes: the interfaces and queues of the network namespace that unshare(1) makes.
MAY_HAPPEN = frozenset({"net", "queues"})

_READ_ALL, _SIZE = 3, 10  # syslog(2): SYSLOG_ACTION_READ_ALL, SYSLOG_ACTION_SIZE_BUFFER
_UEVENTS = 15  # NETLINK_KOBJECT_UEVENT
_libc = ctypes.CDLL(None, use_errno=True)


def tree_hash(folders: Iterable[Path]) -> dict[str, str]:
    """A folder and a hash of what is in it: names, kinds, modes, owners, sizes, and the times of the last change."""
    return {str(folder): _hash(folder) for folder in folders if folder.exists()}


def _hash(folder: Path) -> str:
    seen = hashlib.sha256()
    for path in _walk(str(folder)):
        found = os.lstat(path)
        # st_ctime cannot be set back: it changes with content, name, mode and attributes alike.
        facts = (path, found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        seen.update(repr(facts).encode("utf-8", "surrogateescape"))
    return seen.hexdigest()


def _walk(folder: str) -> Iterator[str]:
    yield folder
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if NOT_OURS.fullmatch(entry.path):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                yield entry.path


def kernel_log() -> list[str]:
    """All lines that the kernel still has, oldest first. Not /dev/kmsg, which a container has not."""
    size = _libc.klogctl(_SIZE, None, 0)
    buffer = ctypes.create_string_buffer(max(size, 1 << 16))
    count = _libc.klogctl(_READ_ALL, buffer, len(buffer))
    if count < 0:
        raise OSError(ctypes.get_errno(), "syslog(2) does not let us read the kernel's log")
    return buffer.raw[:count].decode("utf-8", "replace").splitlines()


def new_lines(before: list[str], after: list[str]) -> list[str]:
    """What was added to a log that forgets its oldest lines."""
    if not before:
        return after
    last = before[-1]
    return after[len(after) - after[::-1].index(last) :] if last in after else after


@dataclass(slots=True)
class Changes:
    """What happened on the host; empty when nothing did."""

    folders: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    uevents: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        return [
            *(f"a file below {folder} was changed" for folder in self.folders),
            *(f"the kernel said: {line}" for line in self.log),
            *(f"uevent {event}" for event in self.uevents),
        ]


@contextmanager
def watched(folders: Iterable[Path] = FOLDERS) -> Iterator[Changes]:
    """Fills in, at the end, what happened meanwhile. On a machine with other work that may be somebody else's doing."""
    chosen = tuple(folders)
    changes = Changes()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _UEVENTS) as monitor:
        monitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        monitor.bind((0, 1))  # the group of the kernel's own messages
        hashes, log = tree_hash(chosen), kernel_log()
        yield changes
        changes.log = new_lines(log, kernel_log())
        after = tree_hash(chosen)
        changes.folders = [folder for folder in hashes if after.get(folder) != hashes[folder]]
        changes.uevents = [event for event in _drain(monitor) if event.partition(" ")[0] not in MAY_HAPPEN]


def _drain(monitor: socket.socket) -> Iterator[str]:
    """Each uevent as "SUBSYSTEM ACTION@PATH"."""
    while True:
        try:
            raw = monitor.recv(64 << 10, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as e:  # ENOBUFS: more than the buffer holds
            yield f"lost: {e.strerror}"
            continue
        parts = raw.split(b"\0")
        keys = dict(part.partition(b"=")[::2] for part in parts[1:])
        yield f"{keys.get(b'SUBSYSTEM', b'?').decode()} {parts[0].decode('utf-8', 'replace')}"
