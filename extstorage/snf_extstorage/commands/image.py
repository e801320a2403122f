"""`snf-store image`: register images, list them, show one, change its properties, write one to a file, forget one."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_extstorage import exporting
from snf_extstorage.arrivals import SIZE_LIMIT, Wanted, arrived
from snf_extstorage.catalog import WORK_S, Catalog
from snf_extstorage.commands import Out, table
from snf_extstorage.levels import require_reserve
from snf_extstorage.origins import find_named
from snf_extstorage.properties import add_argument as add_property
from snf_extstorage.properties import parse_properties, plan_properties
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from synnefo_light.errors import UserError
from synnefo_light.log import logger
from synnefo_light.manifest import Compression, SourceFormat
from synnefo_light.records import dump_json, plain
from synnefo_light.store import pins
from synnefo_light.store.errors import Absent, Conflict, Corrupt
from synnefo_light.store.identity import MapId
from synnefo_light.store.maps import open_map
from synnefo_light.store.names import Named
from synnefo_light.store.store import Store
from synnefo_light.units import human, parse_size

NAME: Final = "image"
SUMMARY: Final = "add, list, show, set, export or rm images and snapshots"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What `show --json` says, and `list --json` of each; snf-image reads it. Sizes in bytes."""

    name: str
    kind: str
    size: int
    data: int | None  # bytes in blocks that are not all zeros. None: a snapshot that is not in the store yet
    map: str | None
    object_hash: str | None  # as Pithos knows it
    parent: str | None
    origin: str
    created_ms: int
    generation: int
    properties: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    acts = parser.add_subparsers(dest="act", required=True, metavar="add|list|show|set|export|rm")
    _add_arguments(acts.add_parser("add", help="register an image as NAME"))
    listing = acts.add_parser("list", help="all names, one a line")
    showing = acts.add_parser("show", help="what is known of NAME")
    showing.add_argument("name", metavar="NAME", help="or map:HASH")
    for act in (listing, showing):
        act.add_argument("--json", action="store_true", help="one JSON object a line")
    setting = acts.add_parser("set", help="change the properties of NAME")
    setting.add_argument("name", metavar="NAME")
    add_property(setting)
    setting.add_argument("--unset", metavar="KEY", action="append", default=[], help="a property to be dropped")
    export = acts.add_parser("export", help="write NAME to a new file, raw and sparse")
    export.add_argument("name", metavar="NAME", help="or map:HASH")
    export.add_argument("file", metavar="FILE", help="with --ranges: -")
    export.add_argument("--ranges", action="store_true", help="its ranges of data to standard output, for a program")
    acts.add_parser("rm", help="forget NAME; what was cloned from it stays").add_argument("name", metavar="NAME")


def _add_arguments(add: argparse.ArgumentParser) -> None:
    add.add_argument("name", metavar="NAME")
    add.add_argument("source", metavar="FILE|URL", help="a file, a block device, or an http, https, ftp, ftps address")
    formats, compressions = ([e.value for e in kind] for kind in (SourceFormat, Compression))
    by_name = "if not what the name's end says"
    add.add_argument("--format", choices=formats, help=f"of its bytes, {by_name}; converted in the helper VM")
    add.add_argument("--compression", choices=compressions, help=f"of its bytes, {by_name}; undone in the helper VM")
    sums = add.add_mutually_exclusive_group()
    sums.add_argument("--sha256", metavar="HEX", help="what its bytes must sum up to, as they come")
    sums.add_argument("--sha512", metavar="HEX", help="the same")
    add.add_argument("--signature", metavar="FILE|URL", help="detached OpenPGP signature of its bytes, as they come")
    add.add_argument("--max-size", metavar="SIZE", default=str(SIZE_LIMIT), help="that the disk may have (128G)")
    add_property(add)


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    catalog = open_catalog(settings)
    match arguments.act:
        case "add":
            wanted, properties = parse_wanted(arguments), parse_properties(arguments.property)
            catalog.require_free(arguments.name)
            require_reserve(catalog.volumes.space(), settings)
            with arrived(wanted, settings) as (fd, size):
                named = catalog.register(arguments.name, fd, size, origin=wanted.shown, properties=properties)
            out(f"{arguments.name} is map {named.entry.map}, {human(size)}")
        case "list":
            found = list(_readable(catalog))
            head = ("NAME", "KIND", "SIZE", "DATA", "STATE", "MADE", "PROPERTIES")
            rows = [dump_json(f).decode() for f in found] if arguments.json else table(head, [_row(f) for f in found])
            for line in rows:
                out(line)
        case "show":
            shown = facts_of(catalog.store, find_named(catalog.store, arguments.name))
            for line in [dump_json(shown).decode()] if arguments.json else _lines(shown):
                out(line)
        case "set":
            given = parse_properties(arguments.property)
            if not given and not arguments.unset:
                raise UserError(
                    f"nothing is to be changed of {arguments.name}; give --property KEY=VALUE or --unset KEY"
                )
            entry = catalog.change(arguments.name, lambda known: plan_properties(known, given, arguments.unset)).entry
            out(" ".join([f"{arguments.name} has", *(_spelled(entry.properties) or ["no properties"])]))
        case "export":
            _export(catalog, arguments.name, Path(arguments.file), ranges=arguments.ranges, out=out)
        case "rm":
            try:
                what: str = catalog.remove(arguments.name).entry.kind
            except Corrupt:
                catalog.remove_damaged(arguments.name)
                what = "its record was damaged"
            out(f"{arguments.name} is forgotten; `snf-store gc` frees what nothing else needs ({what})")
    return 0


def _export(catalog: Catalog, text: str, path: Path, *, ranges: bool, out: Out) -> None:
    """What is not in the store yet is put there first: it is read block by block, and each must prove itself."""
    if ranges and (str(path) != "-" or sys.stdout.isatty()):
        raise UserError("--ranges goes to standard output, as -, and to a program; without it, name a file")
    store = catalog.store
    found = find_named(store, text)
    name = found.name
    catalog.commit(name)
    with pins.hold(store, owner=f"export {name}", names=[name], ttl_s=WORK_S) as held:
        content = open_map(store, MapId(held.pin.maps[0]))
        if found.entry.map not in (None, content.id):
            raise Conflict(f"{name} was replaced while it was being exported; ask again")
        if ranges:
            exporting.write_ranges(content, sys.stdout.buffer.write)
            sys.stdout.buffer.flush()
            return
        exporting.write_file(content, path)
    out(f"{path} is {name}, map {content.id}, {human(content.size)}")


def facts_of(store: Store, named: Named) -> ImageFacts:
    """Reads the pages of its map, and no block."""
    entry = named.entry
    content = open_map(store, entry.map) if entry.map is not None else None
    return ImageFacts(
        name=named.name,
        kind=entry.kind,
        size=entry.size,
        data=sum(content.length_of(index) for index, _ in content.blocks()) if content else None,
        map=entry.map,
        object_hash=content.root.merkle.hex() if content else None,
        parent=entry.parent,
        origin=entry.origin,
        created_ms=entry.created_ms,
        generation=entry.generation,
        properties=entry.properties,
    )


def _readable(catalog: Catalog) -> Iterator[ImageFacts]:
    """By name; an image whose map is damaged or missing is logged."""
    for named in sorted(catalog.listing(), key=lambda n: n.name):
        try:
            yield facts_of(catalog.store, named)
        except (Absent, Corrupt) as e:
            logger.warning("name=%s is left out: %s", named.name, e)


def _row(facts: ImageFacts) -> tuple[str, ...]:
    state = "ready" if facts.map else "not in the store yet"
    data = "-" if facts.data is None else human(facts.data)
    properties = " ".join(_spelled(facts.properties))
    return facts.name, facts.kind, human(facts.size), data, state, _time(facts.created_ms), properties


def _spelled(properties: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(properties.items())]


def _lines(facts: ImageFacts) -> list[str]:
    found = plain(facts)
    assert isinstance(found, dict)
    found |= {key: f"{found[key]} ({human(found[key])})" for key in ("size", "data") if found[key] is not None}
    found["created"] = _time(found.pop("created_ms"))
    properties = found.pop("properties")
    lines = [f"{key}: {value}" for key, value in found.items() if value not in (None, "")]
    return lines + [f"property: {key}={value}" for key, value in sorted(properties.items())]


def _time(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(milliseconds / 1000))


def parse_wanted(arguments: argparse.Namespace) -> Wanted:
    """Raises UserError. What a checksum must look like snf-image says, which computes it."""
    sums = {"sha256": arguments.sha256, "sha512": arguments.sha512}
    return Wanted(
        source=arguments.source,
        format=SourceFormat(arguments.format) if arguments.format else None,
        compression=Compression(arguments.compression) if arguments.compression else None,
        checksum=next((f"{kind}:{value}" for kind, value in sums.items() if value is not None), ""),
        signature=arguments.signature or "",
        size_limit=parse_size(arguments.max_size),
    )
