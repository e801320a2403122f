"""`snf-store volume`: list and show volumes, compare one with an image, make it one again, note what it holds."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from snf_extstorage.commands import Out, table
from snf_extstorage.commands.reconcile import ask_ganeti
from snf_extstorage.origins import find_named, find_origin, origin_of
from snf_extstorage.providers import open_volumes
from snf_extstorage.readable import readable_facts
from snf_extstorage.reconciliation import refuse_releasing
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog, open_site_store
from snf_extstorage.volume import NotFound, VolumeFacts, Volumes
from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName, is_uuid, parse_volume_name
from synnefo_light.records import dump_json, plain
from synnefo_light.units import human

NAME: Final = "volume"
SUMMARY: Final = (
    "list volumes, show one (who writes, where it comes from, its extents), compare one with an image, reset or "
    "release it"
)
NAMED: Final = "a volume's name, or the UUID of Ganeti's disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `compare --json` says; snf-image reads it."""

    image: str
    volume: str | None  # None: there is no such volume
    changed: int | None  # bytes that may differ; 0: certainly the same. None: it cannot be said
    resets: bool  # whether `reset` is possible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    acts = parser.add_subparsers(dest="act", required=True, metavar="list|show|compare|reset|release|origin")
    acts.add_parser("list", help="all volumes, one a line")
    show = acts.add_parser("show", help="what is known of NAME")
    show.add_argument("name", metavar="NAME", help=NAMED)
    show.add_argument("--json", action="store_true", help="one JSON object")
    compare = acts.add_parser("compare", help="whether a volume is still what an image is, byte by byte")
    compare.add_argument("name", metavar="NAME", help=NAMED)
    compare.add_argument("image", metavar="IMAGE", help="an image or snapshot, or map:HASH")
    compare.add_argument("--json", action="store_true", help="one JSON object")
    reset = acts.add_parser("reset", help="make a volume an image again; what was written to it is gone")
    reset.add_argument("name", metavar="NAME", help=NAMED)
    reset.add_argument("image", metavar="IMAGE", help="an image or snapshot, or map:HASH")
    release = acts.add_parser(
        "release", help="let go of a volume that no disk of Ganeti's has, to adopt it; on the master"
    )
    release.add_argument("name", metavar="NAME", help=NAMED)
    release.add_argument(
        "--of", metavar="CLUSTER", help="that it was made for, and that is no more; '': not written down"
    )
    origin = acts.add_parser("origin", help="write down which image was copied onto a volume, or that nobody knows")
    origin.add_argument("name", metavar="NAME", help=NAMED)
    origin.add_argument("image", metavar="IMAGE", nargs="?", help="an image or snapshot, or map:HASH")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    volumes = open_volumes(settings)
    if arguments.act == "list":
        head = ("VOLUME", "SIZE", "STORED", "EXTENTS", "WRITERS", "NOTE")
        for line in table(head, [_row(f) for f in sorted(readable_facts(volumes), key=lambda f: f.name)]):
            out(line)
    elif arguments.act == "compare":
        found = compare(settings, volumes, arguments.name, arguments.image)
        out(dump_json(found).decode() if arguments.json else _told(arguments.name, found))
        return 0 if found.changed == 0 else 1
    elif arguments.act == "reset":
        name = find_volume(volumes, arguments.name).name
        volumes.reset(name, find_origin(open_catalog(settings, volumes), arguments.image, engine=settings.engine))
        out(f"{name} is {arguments.image} again")
    elif arguments.act == "release":
        name = release(volumes, arguments.name, of=arguments.of)
        out(f"{name} is no disk's any more; a disk of its size that is made with adopt={name} takes it")
    elif arguments.act == "origin":
        return set_origin(settings, volumes, arguments.name, arguments.image, out)
    else:
        shown = find_volume(volumes, arguments.name)
        for line in [dump_json(shown).decode()] if arguments.json else _lines(shown):
            out(line)
    return 0


def find_volume(volumes: Volumes, text: str) -> VolumeFacts:
    """By its name, or by the UUID that Ganeti's disk has: OS scripts know it as DISK_n_UUID. Raises NotFound."""
    found = volumes.find(text) if is_uuid(text) else None
    return volumes.facts(found or _named(text))


def release(volumes: Volumes, text: str, *, of: str | None) -> VolumeName:
    """Raises UserError while Ganeti has a disk with its UUID, or may be about to; InUse while it is open."""
    facts, ganeti = find_volume(volumes, text), ask_ganeti()
    if ganeti.unfinished:
        raise UserError(
            f"volume {facts.name} is to be released, but jobs that may be about it have not ended "
            f"({ganeti.unfinished}); wait"
        )
    refuse_releasing(facts, ganeti.disks, cluster=ganeti.cluster, of=of, detached=ganeti.detached)
    volumes.release(facts.name)
    return facts.name


def compare(settings: Settings, volumes: Volumes, text: str, image: str) -> Comparison:
    """Whether a volume reads as an image that goes on with zeros. Raises Absent for an image that there is not."""
    named = find_named(open_site_store(settings), image)
    name = volumes.find(text) if is_uuid(text) else None
    if name is None:
        name = _named(text)
        try:
            volumes.facts(name)
        except NotFound:
            return Comparison(image=named.name, volume=None, changed=None, resets=False)
    origin = origin_of(named.entry, engine=settings.engine)
    changed: int | None = None
    if origin is not None:
        with contextlib.suppress(NotFound):  # the engine has no base of the image, so nothing was cloned from one
            changed = volumes.changed(name, origin)
    return Comparison(image=named.name, volume=name, changed=changed, resets=volumes.resets)


def set_origin(settings: Settings, volumes: Volumes, text: str, image: str | None, out: Out) -> int:
    """1: there is no such volume, and so nothing to write down. Raises Absent for an image that there is not."""
    named = find_named(open_site_store(settings), image) if image is not None else None
    name = (volumes.find(text) if is_uuid(text) else None) or _named(text)
    try:
        volumes.set_origin(name, (named.entry.map or named.entry.parent) if named else None)
    except NotFound:
        out(f"there is no volume {text}")
        return 1
    out(f"{name} holds {named.name if named else 'what nobody knows'}")
    return 0


def _named(text: str) -> VolumeName:
    return parse_volume_name(text, named="NAME")


def _told(name: str, found: Comparison) -> str:
    if found.volume is None:
        return f"there is no volume {name}"
    if found.changed == 0:
        return f"{found.volume} is {found.image}, and was not written to"
    how_much = "it cannot be told how much of" if found.changed is None else f"up to {human(found.changed)} of"
    return f"{how_much} {found.volume} differs from {found.image}"


def _lines(facts: VolumeFacts) -> Iterator[str]:
    found = plain(facts)
    assert isinstance(found, dict)
    found |= {key: f"{found[key]} ({human(found[key])})" for key in ("size", "stored") if found[key] is not None}
    found |= {"holders": ", ".join(facts.holders), "exclusive": "yes" if facts.exclusive else ""}
    return (f"{key}: {value}" for key, value in found.items() if value not in (None, ""))


def _row(facts: VolumeFacts) -> tuple[str, ...]:
    stored = "?" if facts.stored is None else human(facts.stored)
    extents = "-" if facts.extents is None else str(facts.extents)
    return facts.name, human(facts.size), stored, extents, ",".join(facts.holders) or "-", facts.info
