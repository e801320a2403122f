"""`snf-store commit`: make snapshots that are not in the store yet maps of it."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog

NAME: Final = "commit"
SUMMARY: Final = "put snapshots into the store; `snapshot` starts this by itself"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="*", help="all that are not there yet if none is named")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    catalog = open_catalog(settings)
    for name in arguments.name or catalog.uncommitted():
        out(f"{name} is map {catalog.commit(name)}")
    return 0
