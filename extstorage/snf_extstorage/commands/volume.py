"""`snf-store volume`: list volumes, show one."""

from __future__ import annotations

import argparse
import contextlib
from typing import Final

from snf_extstorage.commands import Out, table
from snf_extstorage.providers import open_volumes
from snf_extstorage.settings import Settings
from snf_extstorage.volume import NotFound, VolumeFacts, Volumes
from synnefo_light.ganeti import is_uuid, parse_volume_name
from synnefo_light.records import dump_json, plain
from synnefo_light.units import human

NAME: Final = "volume"
SUMMARY: Final = "list volumes, or show one: who writes, where it comes from, its extents"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    acts = parser.add_subparsers(dest="act", required=True, metavar="list|show")
    acts.add_parser("list", help="all volumes, one a line")
    show = acts.add_parser("show", help="what is known of NAME")
    show.add_argument("name", metavar="NAME", help="a volume's name, or the UUID of Ganeti's disk")
    show.add_argument("--json", action="store_true", help="one JSON object")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    volumes = open_volumes(settings)
    if arguments.act == "list":
        head = ("VOLUME", "SIZE", "STORED", "EXTENTS", "WRITERS", "NOTE")
        for line in table(head, [_row(volumes.facts(name)) for name in sorted(volumes.volumes())]):
            out(line)
    else:
        found = find_volume(volumes, arguments.name)
        facts = plain(found)
        assert isinstance(facts, dict)
        if arguments.json:
            out(dump_json(found).decode())
            return 0
        for key, value in facts.items():
            out(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    return 0


def find_volume(volumes: Volumes, text: str) -> VolumeFacts:
    """By its name, or by the UUID that Ganeti's disk has: OS scripts know it as DISK_n_UUID. Raises NotFound."""
    if is_uuid(text):
        for name in volumes.volumes():
            with contextlib.suppress(NotFound):  # removed meanwhile
                facts = volumes.facts(name)
                if facts.uuid == text:
                    return facts
    return volumes.facts(parse_volume_name(text, named="NAME"))


def _row(facts: VolumeFacts) -> tuple[str, ...]:
    stored = "?" if facts.stored is None else human(facts.stored)
    extents = "-" if facts.extents is None else str(facts.extents)
    return facts.name, human(facts.size), stored, extents, ",".join(facts.holders) or "-", facts.info
