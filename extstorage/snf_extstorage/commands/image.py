"""`snf-store image`: register images, list them, show one, forget one."""

from __future__ import annotations

import argparse
import os
import time
from typing import Final

from snf_extstorage.catalog import open_source
from snf_extstorage.commands import Out, table
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from synnefo_light.errors import UserError
from synnefo_light.records import plain
from synnefo_light.store import names
from synnefo_light.store.maps import open_map
from synnefo_light.store.names import Entry
from synnefo_light.store.store import Store
from synnefo_light.units import human

NAME: Final = "image"
SUMMARY: Final = "add, list, show or rm images and snapshots"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    acts = parser.add_subparsers(dest="act", required=True, metavar="add|list|show|rm")
    add = acts.add_parser("add", help="register the bytes of a raw image as NAME")
    add.add_argument("name", metavar="NAME")
    add.add_argument("source", metavar="FILE", help="a raw image or a block device, read as it is now")
    add.add_argument("--property", metavar="KEY=VALUE", action="append", default=[], help="as snf-image(7) names them")
    acts.add_parser("list", help="all names, one a line")
    for name, text in (("show", "what is known of NAME"), ("rm", "forget NAME; what was cloned from it stays")):
        acts.add_parser(name, help=text).add_argument("name", metavar="NAME")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    catalog = open_catalog(settings)
    match arguments.act:
        case "add":
            fd, size = open_source(arguments.source)
            try:
                properties = _properties(arguments.property)
                named = catalog.register(arguments.name, fd, size, origin=arguments.source, properties=properties)
            finally:
                os.close(fd)
            out(f"{arguments.name} is map {named.entry.map}, {human(size)}")
        case "list":
            rows = sorted((n.name, *_row(n.entry)) for n in catalog.listing())
            for line in table(("NAME", "KIND", "SIZE", "STATE", "MADE"), rows):
                out(line)
        case "show":
            for line in _shown(catalog.store, arguments.name):
                out(line)
        case "rm":
            removed = catalog.remove(arguments.name)
            out(f"{arguments.name} is forgotten; `snf-store gc` frees what nothing else needs ({removed.entry.kind})")
    return 0


def _row(entry: Entry) -> tuple[str, str, str, str]:
    state = "ready" if entry.map else "not in the store yet"
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created_ms / 1000))
    return entry.kind, human(entry.size), state, made


def _shown(store: Store, name: str) -> list[str]:
    entry = names.load(store, name).entry
    facts = plain(entry)
    assert isinstance(facts, dict)
    lines = [f"{key}: {value}" for key, value in facts.items() if value not in (None, "", {})]
    if entry.map is not None:
        opened = open_map(store, entry.map)
        blocks = sum(1 for _ in opened.blocks())
        lines += [f"blocks: {blocks} of {opened.block_count}", f"object-hash: {opened.root.merkle.hex()}"]
    return lines


def _properties(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"the property {text!r} is not KEY=VALUE")
        found[key] = value
    return found
