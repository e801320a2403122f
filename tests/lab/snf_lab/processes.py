"""Which processes belong to a lab: read from /proc, parsed, decided; and killed for certain.

A process is ours if it is in one of our cgroups or in one of our network namespaces. Killing a node's PID 1 makes the
kernel kill all of its PID namespace, whatever else those processes changed about themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from synnefo_light.errors import EnvironmentFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One line of the process table, as far as we look."""

    pid: int
    name: str
    namespace_pids: tuple[int, ...]  # its PID in each PID namespace, ours first
    netns: tuple[int, int]  # device and inode of its network namespace


def parse_status(text: str) -> tuple[str, tuple[int, ...]]:
    """Name and NSpid of /proc/PID/status (proc(5)); (name, ()) for a kernel without NSpid."""
    name = ""
    pids: tuple[int, ...] = ()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "Name":
            name = value.strip()
        elif key == "NSpid":
            pids = tuple(int(word) for word in value.split())
    return name, pids


def read_process(pid: int) -> Process | None:
    """None when it has ended meanwhile."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        netns = os.stat(f"/proc/{pid}/ns/net")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    name, pids = parse_status(text)
    return Process(pid=pid, name=name, namespace_pids=pids, netns=(netns.st_dev, netns.st_ino))


def read_processes() -> list[Process]:
    """All processes that this machine shows us."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return [process for pid in pids if (process := read_process(pid)) is not None]


def identity(file: Path) -> tuple[int, int] | None:
    """The namespace bound onto `file`, to compare with `Process.netns`; None when the file is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_first(process: Process) -> bool:
    """Is it PID 1 of a PID namespace right below ours?"""
    return len(process.namespace_pids) == 2 and process.namespace_pids[1] == 1


def find_first(processes: Iterable[Process], netns: tuple[int, int]) -> int | None:
    """The PID, in our numbers, of the node that lives in this network namespace."""
    found = [p.pid for p in processes if p.netns == netns and is_first(p)]
    return found[0] if found else None


def kill_all(find: Callable[[], Collection[int]], *, timeout_s: float = 20.0) -> None:
    """SIGKILL what `find` returns until it returns nothing.

    Again and again, because a process may fork between being listed and being killed.
    Raises EnvironmentFault when some are still there after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while pids := set(find()) - {os.getpid()}:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise EnvironmentFault(f"processes {sorted(pids)} of the lab were killed and are still there")
        time.sleep(0.05)
