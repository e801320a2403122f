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

    The time in the name is that of this call, so the names' order is that in which writers came.
    """
    path = f"{folder}/{time.time_ns():019d}-{id_}"
    with os.scandir(folder) as entries:
        if sum(1 for _ in entries) >= limit:
            raise SpoolFull(f"{folder} holds {limit} events already; take them or remove the oldest")
    replace_file(path, content, mode=0o640, durable=durable)
    return path
