"""The spool of a node: a folder in which each file is one event that nobody has taken yet.

    /var/spool/synnefo-light/events/<time in ns, 19 digits>-<event id>

`events` says what an event is; this module is what all writers of it share. Hooks pay for every import
(hooks/README.md), so this one imports next to nothing: the hash is C's own, and no `uuid`, `pathlib` or `typing`.
"""

from __future__ import annotations

import os
import time

from synnefo_light.atomic import replace_file
from synnefo_light.errors import EnvironmentFault

try:
    from _sha1 import sha1  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # a build of Python without it
    from hashlib import sha1

FOLDER = "/var/spool/synnefo-light/events"
LIMIT = 100_000  # files; about 400 MB of small files before writers start to say that it is full
#: Beside the events while the spool is full or was a short while ago: each writer counts then.
FULL = ".full"
#: A writer counts once in LIMIT / _SHARE events, so a spool may hold some hundreds more than it should. Counting 90 000
#: files takes 50 ms of processor time, as much as all else that a hook may take.
_SHARE = 400
#: Bytes of one event.
EVENT_LIMIT = 64 << 10
_NAMESPACE = bytes.fromhex("5f1a2c0e4f5b5d0c9f3e2f6c7d1b8a90")


class SpoolFull(EnvironmentFault):
    """The spool holds as many events as it may; nothing was written."""


def event_id(*parts: str) -> str:
    """The same parts give the same id (RFC 9562, UUID version 5), so a repeated report is seen to be one."""
    named = _NAMESPACE + "\x1f".join(parts).encode("utf-8", "backslashreplace")
    digest = bytearray(sha1(named, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def put(content: bytes, id_: str, *, folder: str = FOLDER, durable: bool = True, limit: int = LIMIT) -> str:
    """Put one event, already as JSON, into the spool; returns its file. Raises SpoolFull or OSError.

    The time in the name is that of this call, so the names' order is that in which writers came. A `limit` below 800
    is held to the event, a higher one may be passed by about a four-hundredth.
    """
    path = f"{folder}/{time.time_ns():019d}-{id_}"
    marked = os.path.lexists(f"{folder}/{FULL}")
    if marked or int.from_bytes(os.urandom(4)) % max(1, limit // _SHARE) == 0:
        _count(folder, limit, marked=marked)
    replace_file(path, content, mode=0o640, durable=durable)
    return path


def _count(folder: str, limit: int, *, marked: bool) -> None:
    """Raises SpoolFull, and then the next writer counts too, until a fourth of the spool is free."""
    mark = f"{folder}/{FULL}"
    with os.scandir(folder) as entries:
        events = sum(1 for _ in entries) - marked
    try:
        if events >= limit and not marked:
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        elif marked and events * 4 < limit * 3:
            os.unlink(mark)
    except OSError:  # another writer was first, or nothing can be written: then no event can either
        pass
    if events >= limit:
        raise SpoolFull(f"{folder} holds {limit} events already; take them or remove the oldest")
