"""`snf-store send`: a map as a stream, whole or what it has other than another."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_site_store
from synnefo_light.errors import UserError
from synnefo_light.store import pins, stream
from synnefo_light.store.identity import MapId

NAME: Final = "send"
SUMMARY: Final = "write an image as a stream that proves itself, for `recv` of another store"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--since", metavar="NAME", help="only what this one does not have; the receiver must have it")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    if sys.stdout.isatty():
        raise UserError("a stream is not for a terminal; send it to a file or a pipe")
    store = open_site_store(settings)
    names = [arguments.name, *([arguments.since] if arguments.since else [])]
    with pins.hold(store, owner=f"send {arguments.name}", names=names) as held:
        maps = [MapId(text) for text in held.pin.maps]
        parent = maps[-1] if arguments.since else None
        stream.send(store, maps[0], sys.stdout.buffer.write, parent=parent)
    sys.stdout.buffer.flush()
    return 0
