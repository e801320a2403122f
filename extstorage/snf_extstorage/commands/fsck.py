"""`snf-store fsck`: look at everything that is written down, and say what is wrong."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from synnefo_light.store import fsck

NAME: Final = "fsck"
SUMMARY: Final = "check volumes and the store; exits with 0 (clean), 1 (mended), 2 (strays) or 4 (damage)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mend", action="store_true", help="remove what processes left that died")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    catalog = open_catalog(settings)
    mended = catalog.volumes.sweep() if arguments.mend else []
    for text in mended:
        out(f"{text} was left by a process that died, and is removed now")
    problems = list(catalog.problems())
    for problem in problems:
        out(problem)
    report = fsck.check(catalog.store, mend=arguments.mend)
    for found in report.problems:
        out(str(found))
    count = len(problems) + sum(1 for p in report.problems if p.weight is not fsck.Weight.MENDED)
    out(f"{report.names} names, {report.maps} maps, {report.pages} pages, {report.blocks} blocks: {count} problems")
    return max(report.exit_code, int(fsck.Weight.DAMAGE) if problems else 0, int(fsck.Weight.MENDED) if mended else 0)
