"""Where what lies in a store's directory; `directory.py` draws it."""

from __future__ import annotations

import hashlib
import re

from synnefo_light.errors import UserError
from synnefo_light.store.backend import IMMUTABLE, Kind, check_key
from synnefo_light.store.store import CUTS_KEY, FORMAT_KEY

#: Kinds that have a folder of folders.
FANNED = (Kind.BLOCK, Kind.PAGE, Kind.ROOT, Kind.NAME, Kind.PIN)
FOLDERS = (*(kind.value for kind in FANNED), "tmp", "trash", "quarantine", "locks")
#: Records that lie at the top.
RECORDS = (FORMAT_KEY, "GC", CUTS_KEY)
_SHARD = re.compile(r"[0-9a-f]{2}")


def shard_of(kind: Kind, key: str) -> str:
    """The folder in a kind's folder: the first byte of the hash that names an object, or of a record's name's hash."""
    return key[:2] if kind in IMMUTABLE else hashlib.sha256(key.encode()).hexdigest()[:2]


def is_shard(name: str) -> bool:
    return _SHARD.fullmatch(name) is not None


def is_ours(kind: Kind, shard: str, name: str) -> bool:
    """Whether a file of this name in that folder can be one of the store's."""
    try:
        check_key(kind, name)
    except UserError:
        return False
    return shard_of(kind, name) == shard
