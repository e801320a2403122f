"""./lab's command line: find the subcommand, run it, say in one sentence what went wrong."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from snf_lab.command import Command, discover
from snf_lab.lab import Lab
from snf_lab.state import DEFAULT, VARIABLE
from synnefo_light.errors import Error, UserError

EXIT_INTERRUPTED = 130

OVERVIEW = "A real Ganeti cluster in namespaces of this machine, with the packages of this tree installed on it."

EXAMPLES = f"""\
  sudo ./lab up                      a cluster of one Debian 12 node with Ganeti 3.0
  sudo ./lab up --nodes 2            ... of two; a lab that is there already grows
  sudo ./lab up --release trixie     ... of Debian 13 with Ganeti 3.1 (after ./lab down)
  sudo ./lab up --storage rados      ... with a Ceph of one monitor and one OSD, known to every node
  sudo ./lab sh 1                    a shell on node 1
  sudo ./lab x 1 gnt-instance list   one command on node 1, its exit status and stdin passed on
  sudo ./lab crash 2; sudo ./lab boot 2      cut the power of node 2, and switch it on again
  sudo ./lab down                    leave nothing; --purge-cache removes the cache too

The nodes boot their own systemd and have their own network, from which nothing leads out. Everything of a lab lies in
{DEFAULT}, or in the directory that {VARIABLE} names. A command that was interrupted can be run again.
"""


def build_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="./lab", description=OVERVIEW, epilog=EXAMPLES, formatter_class=shape)
    chosen = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for command in commands.values():
        one = chosen.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary}\n\n{command.details}".strip(),
            formatter_class=shape,
        )
        command.arguments(one)
    return parser


def main(argv: Sequence[str]) -> int:
    commands = discover()
    arguments = build_parser(commands).parse_args(argv)
    command = commands[arguments.command]
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        if command.needs_root and os.geteuid() != 0:
            raise UserError(f"./lab {command.name} makes namespaces and mounts, which needs root; run it with sudo")
        return command.run(arguments, Lab.open())
    except Error as e:
        print(f"./lab {command.name}: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print(f"\n./lab {command.name}: interrupted; run it again to go on, or ./lab down to clean up", file=sys.stderr)
        return EXIT_INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
