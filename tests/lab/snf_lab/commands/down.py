"""`./lab down`: leave nothing on this machine but the cache."""

from __future__ import annotations

import argparse

from snf_lab.command import Command
from snf_lab.lab import Lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--purge-cache", action="store_true", help="remove the cache too (the next start takes minutes)"
    )


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    lab.down(purge_cache=arguments.purge_cache)
    return 0


COMMAND = Command(
    name="down",
    summary="remove the lab: processes, mounts, namespaces, loop devices, files",
    details="Works after anything, also after a ./lab that was killed, and may be repeated. The cache is kept.",
    arguments=add_arguments,
    run=run,
)
