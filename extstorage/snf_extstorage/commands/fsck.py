"""`snf-store fsck`: look at everything that is written down, and say what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.providers import open_elsewhere
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from synnefo_light.store import fsck

NAME: Final = "fsck"
SUMMARY: Final = "check volumes and the store; exits with 0 (clean), 1 (mended), 2 (strays) or 4 (damage)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mend", action="store_true", help="remove what processes left that died")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    # These first: a site that has disks of the provider rados alone has no store, and everything else ends with that.
    elsewhere = open_elsewhere(settings)
    mended = _told_mended(elsewhere.sweep(), out) if arguments.mend else 0
    problems = _told(elsewhere.check(), out)
    catalog = open_catalog(settings)
    mended += _told_mended(catalog.volumes.sweep(), out) if arguments.mend else 0
    problems += _told(catalog.problems(), out)
    report = fsck.check(catalog.store, mend=arguments.mend)
    for found in report.problems:
        out(str(found))
    count = problems + sum(1 for p in report.problems if p.weight is not fsck.Weight.MENDED)
    out(f"{report.names} names, {report.maps} maps, {report.pages} pages, {report.blocks} blocks: {count} problems")
    return max(report.exit_code, int(fsck.Weight.DAMAGE) if problems else 0, int(fsck.Weight.MENDED) if mended else 0)


def _told_mended(texts: Iterable[str], out: Out) -> int:
    return _told((f"{text} was left by a process that died, and is removed now" for text in texts), out)


def _told(texts: Iterable[str], out: Out) -> int:
    """How many there were."""
    count = 0
    for text in texts:
        out(text)
        count += 1
    return count
