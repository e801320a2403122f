"""`snf-store recv`: a stream of `send` becomes an image."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final
from uuid import uuid4

from snf_extstorage.commands import Out
from snf_extstorage.properties import add_argument, parse_properties
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_site_store
from synnefo_light.store import stream
from synnefo_light.store.identity import MapId
from synnefo_light.store.names import Entry
from synnefo_light.units import human

NAME: Final = "recv"
SUMMARY: Final = "read a stream from standard input and make it the image NAME"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--since", metavar="NAME", default="", help="what the stream builds on, by its name here")
    add_argument(parser)


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

    store = open_site_store(settings)
    named = stream.receive(store, sys.stdin.buffer, arguments.name, entry, parent=arguments.since)
    out(f"{arguments.name} is map {named.entry.map}, {human(named.entry.size)}")
    return 0
