"""What Ganeti calls its instances and their disks, and what is told to a running one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from snf_extstorage.monitor import SOCKETS, NotRunning, monitor
from synnefo_light.errors import PeerError, ProtocolError
from synnefo_light.log import logger

_NOTE: Final = re.compile(r"originstname\+([A-Za-z0-9][A-Za-z0-9.-]{0,252})")


def instance_of(note: str) -> str | None:
    """The instance in Ganeti's note on a volume; Ganeti sets it at creation and again when it renames."""
    match = _NOTE.fullmatch(note)
    return match[1] if match else None


def drive_of(uuid: str) -> str:
    """What Ganeti calls a disk in QEMU: ids have 30 characters, so the first three groups of its UUID."""
    return f"disk-{uuid.rsplit('-', 2)[0]}"


def tell_size(instance: str, uuid: str, size: int, *, sockets: Path = SOCKETS) -> bool:
    """Have a running guest see that its disk has grown. False, and a line in the log, if that could not be done.

    Ganeti 3.0 does not; 3.1 does so too, which does no harm. A disk that was hot-added is found by the same name.
    """
    try:
        with monitor(instance, sockets=sockets) as qemu:
            try:
                qemu.execute("block_resize", {"device": drive_of(uuid), "size": size})
            except PeerError:  # Ganeti 3.1 has no drive of that name, but a node
                qemu.execute("block_resize", {"node-name": drive_of(uuid), "size": size})
    except NotRunning:
        return False
    except PeerError as e:
        logger.warning("instance=%s disk=%s the guest was not told of the new size: %s", instance, drive_of(uuid), e)
        return False
    return True


def starved(instance: str, *, sockets: Path = SOCKETS) -> frozenset[str]:
    """The drives for whose lack of space a guest stands still; none when it runs, or stands still for another reason.

    QEMU stops a guest on ENOSPC unless it is told otherwise (`werror=enospc`), and Ganeti does not. Raises PeerError.
    """
    try:
        with monitor(instance, sockets=sockets) as qemu:
            if qemu.status() != "io-error":
                return frozenset()
            return parse_starved(qemu.execute("query-block"))
    except NotRunning:
        return frozenset()


def parse_starved(answer: object) -> frozenset[str]:
    """Of QEMU's query-block. Ganeti 3.0 names the drive, 3.1 the node that is behind it. Raises ProtocolError."""
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise ProtocolError("QEMU's answer to query-block is not a list of drives")
    found = set()
    for one in answer:
        if one.get("io-status") == "nospace":
            inserted = one.get("inserted")
            node = inserted.get("node-name") if isinstance(inserted, dict) else None
            found.add(str(one.get("device") or node))
    return frozenset(found)


def resume(instance: str, *, sockets: Path = SOCKETS) -> None:
    """QEMU does the writes that failed once more, then the guest goes on. Raises NotRunning, PeerError."""
    with monitor(instance, sockets=sockets) as qemu:
        if qemu.status() == "io-error":
            qemu.execute("cont")
