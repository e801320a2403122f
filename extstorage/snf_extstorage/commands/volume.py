"""`snf-store volume`: list volumes, show one."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.commands import Out, table
from snf_extstorage.providers import open_volumes
from snf_extstorage.settings import Settings
from snf_extstorage.volume import VolumeFacts
from synnefo_light.ganeti import parse_volume_name
from synnefo_light.records import plain
from synnefo_light.units import human

NAME: Final = "volume"
SUMMARY: Final = "list volumes, or show one: who writes, where it comes from, its extents"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    acts = parser.add_subparsers(dest="act", required=True, metavar="list|show")
    acts.add_parser("list", help="all volumes, one a line")
    acts.add_parser("show", help="what is known of NAME").add_argument("name", metavar="NAME")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    volumes = open_volumes(settings)
    if arguments.act == "list":
        head = ("VOLUME", "SIZE", "STORED", "EXTENTS", "WRITERS", "NOTE")
        for line in table(head, [_row(volumes.facts(name)) for name in sorted(volumes.volumes())]):
            out(line)
    else:
        facts = plain(volumes.facts(parse_volume_name(arguments.name, named="NAME")))
        assert isinstance(facts, dict)
        for key, value in facts.items():
            out(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    return 0


def _row(facts: VolumeFacts) -> tuple[str, ...]:
    stored = "?" if facts.stored is None else human(facts.stored)
    extents = "-" if facts.extents is None else str(facts.extents)
    return facts.name, human(facts.size), stored, extents, ",".join(facts.holders) or "-", facts.info
