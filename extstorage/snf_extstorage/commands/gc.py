"""`snf-store gc`: free what nothing refers to any more."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.providers import open_elsewhere
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from synnefo_light.store import gc
from synnefo_light.units import human

NAME: Final = "gc"
SUMMARY: Final = "free what nothing refers to: bases, snapshots, blocks past their grace; says what it would do"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--do", action="store_true", help="do it, instead of saying what would be done")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    if arguments.do:
        for text in open_elsewhere(settings).sweep():
            out(f"{text} removed, which a process that died left")
    catalog = open_catalog(settings)
    would = "" if arguments.do else "would be "
    # First, for it removes nothing when not everything that is needed can be read; then no base goes either, which may
    # have the last copy of a damaged block.
    done = gc.collect(catalog.store, dry_run=not arguments.do)
    for text in catalog.collect(dry_run=not arguments.do):
        out(f"{text} {would}removed")
    if arguments.do:
        for text in catalog.volumes.sweep():
            out(f"{text} removed, which a process that died left")
    out(
        f"{done.removed} objects of the store {would}removed, {human(done.removed_bytes)}; {done.young} are not needed "
        f"but younger than the grace; {done.roots} maps and {done.blocks} blocks are needed"
    )
    return 0
