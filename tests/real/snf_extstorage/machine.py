"""A running instance as Ganeti would have it: real QEMU, its monitor where Ganeti's is, its disks named as Ganeti's."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from snf_extstorage.guests import drive_of
from snf_extstorage.monitor import SOCKETS, monitor

QEMU = "qemu-system-x86_64"


@contextlib.contextmanager
def running(instance: str, disks: Sequence[tuple[str, str]], *, ganeti: str = "3.0") -> Iterator[None]:
    """Boots from the first of the disks, (UUID, path) each, with the words that this version of Ganeti uses."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is missing")
    SOCKETS.mkdir(parents=True, exist_ok=True)
    socket = SOCKETS / f"{instance}.qmp"
    words = [QEMU, "-machine", "pc,accel=tcg", "-m", "32", "-display", "none", "-nodefaults", "-no-user-config"]
    words += ["-qmp", f"unix:{socket},server=on,wait=off"]
    for number, (uuid, path) in enumerate(disks):
        words += [*_drive(drive_of(uuid), path, ganeti), "-device", f"virtio-blk-pci,drive={drive_of(uuid)}"]
        words[-1] += f",id={drive_of(uuid)},bootindex={number}"
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: socket.exists() or process.poll() is not None)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield
        finally:
            process.kill()
            socket.unlink(missing_ok=True)


def _drive(name: str, path: str, ganeti: str) -> list[str]:
    device = Path(path).is_block_device()
    if ganeti == "3.0":
        return ["-drive", f"file={path},format=raw,if=none,cache=none,aio=native,id={name},auto-read-only=off"]
    driver = "host_device" if device else "file"
    cache = "cache.direct=on,cache.no-flush=off"
    file = f"file.driver={driver},file.filename={path},file.aio=threads,file.{cache.replace(',', ',file.')}"
    return ["-blockdev", f"driver=raw,node-name={name},discard=ignore,{cache},{file},auto-read-only=off"]


def status(instance: str) -> str:
    with monitor(instance) as qemu:
        return qemu.status()


def until(true: Callable[[], object], *, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
