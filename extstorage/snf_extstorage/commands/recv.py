"""`snf-store recv`: a stream of `send` becomes an image."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from snf_extstorage.commands import Out
from snf_extstorage.levels import require_reserve, watch_level
from snf_extstorage.properties import add_argument, parse_properties
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from synnefo_light.store import stream
from synnefo_light.store.identity import MapId
from synnefo_light.store.names import Entry
from synnefo_light.units import MIB, human

NAME: Final = "recv"
SUMMARY: Final = "read a stream from standard input and make it the image NAME"

#: A sixteenth of a GiB may go below the reserve before it is noticed.
ASK_EACH: Final = 64 * MIB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--since", metavar="NAME", default="", help="what the stream builds on, by its name here")
    add_argument(parser)


class Watched:
    """A stream that asks `require` before it is read, and again after each ASK_EACH bytes that came of it."""

    def __init__(self, source: stream.Readable, require: Callable[[], None]) -> None:
        self._source = source
        self._require = require
        self._left = 0

    def read(self, size: int, /) -> bytes:
        if self._left <= 0:
            self._require()
            self._left = ASK_EACH
        found = self._source.read(size)
        self._left -= len(found)
        return found


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    properties = parse_properties(arguments.property)

    def entry(map_id: MapId, size: int) -> Entry:
        now = int(time.time() * 1000)
        return Entry(
            uuid=str(uuid4()),
            kind="image",
            size=size,
            created_ms=now,
            map=map_id,
            origin="received",
            properties=properties,
        )

    catalog = open_catalog(settings)
    catalog.require_free(arguments.name)
    source = Watched(sys.stdin.buffer, lambda: require_reserve(catalog.volumes.space(), settings))
    named = stream.receive(catalog.store, source, arguments.name, entry, parent=arguments.since)
    watch_level(settings, catalog.volumes)
    out(f"{arguments.name} is map {named.entry.map}, {human(named.entry.size)}")
    return 0
