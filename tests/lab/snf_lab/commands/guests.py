"""`./lab guests`: real Debian guests of many kinds, deployed, booted and asked. Minutes each; no part of the suite."""

from __future__ import annotations

import argparse

from snf_lab import guest_matrix, host_packages
from snf_lab.command import Command
from snf_lab.guest_facts import checks_table
from snf_lab.lab import Lab
from snf_lab.progress import render_table
from synnefo_light.errors import Error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(guest_matrix.MATRIX)} (all)")


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    unknown = [name for name in arguments.names if name not in guest_matrix.MATRIX]
    if unknown:
        lab.progress.say(f"guest {unknown[0]!r} is unknown; the guests are {', '.join(guest_matrix.MATRIX)}")
        return 64
    lab.install_on_host()
    lab.state.make_folders()
    log = lab.state.log / "guest-packages.log"
    host_packages.ensure_installed(guest_matrix.PACKAGES, log=log, progress=lab.progress)
    failed: list[str] = []
    for name in arguments.names or guest_matrix.MATRIX:
        try:
            checks = guest_matrix.run_row(lab, name)
        except Error as e:
            lab.progress.say(f"{name}: {e}")
            failed.append(name)
            continue
        lab.progress.say(render_table(checks_table(checks)))
        failed += [name] if not all(check.ok for check in checks) else []
    held = len(arguments.names or guest_matrix.MATRIX) - len(failed)
    lab.progress.say(f"{held} guests are as ordered" + (f", not so: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


COMMAND = Command(
    name="guests",
    summary="deploy, boot and ask real Debian guests of many kinds",
    details="\n".join(f"  {name}" for name in guest_matrix.MATRIX),
    arguments=add_arguments,
    run=run,
)
