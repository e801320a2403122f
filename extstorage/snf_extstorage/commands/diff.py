"""`snf-store diff`: where two images differ."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_site_store
from synnefo_light.store import maps, pins
from synnefo_light.store.identity import BLOCK_SIZE, MapId

NAME: Final = "diff"
SUMMARY: Final = "list the blocks of 4 MiB in which two images differ; exits with 1 if there are any"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    store = open_site_store(settings)
    count = 0
    with pins.hold(store, owner="diff", names=[arguments.old, arguments.new]) as held:
        found = [maps.open_map(store, MapId(text)) for text in held.pin.maps]
        for index, block in maps.diff(found[0], found[-1]):
            out(f"{index * BLOCK_SIZE} {block.hex() if block else 'zeros'}")
            count += 1
    return 1 if count else 0
