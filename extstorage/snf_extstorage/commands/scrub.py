"""`snf-store scrub`: read all of the store and compare it with its hashes."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_site_store
from synnefo_light.store import scrub
from synnefo_light.units import human, parse_size

NAME: Final = "scrub"
SUMMARY: Final = "read every block and compare it with its hash; damaged ones are set aside and named"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", metavar="SIZE", default="100M", help="bytes a second, at most (100M)")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    done = scrub.scrub(open_site_store(settings), bytes_per_s=float(parse_size(arguments.rate)))
    for found in done.damaged:
        needed = ", ".join(found.needed_by) or "nothing"
        out(f"{found.kind.value[:-1]} {found.key} {found.why}; now in {found.aside}; needed by {needed}")
    out(f"{done.objects} objects, {human(done.bytes)}: {len(done.damaged)} damaged")
    return 4 if done.damaged else 0
