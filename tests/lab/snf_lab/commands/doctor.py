"""`./lab doctor`: what this machine lacks, and the remedy."""

from __future__ import annotations

import argparse
import shlex

from snf_lab import doctor, host_packages
from snf_lab.command import Command
from snf_lab.lab import Lab
from snf_lab.progress import render_table
from snf_lab.state import TREE


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    """Exit status 0 when nothing is missing that the lab cannot install itself, 3 otherwise."""
    findings = doctor.examine()
    rows = [("ok" if f.ok else "MISSING", f.what, f.words) for f in findings]
    wanted = host_packages.wanted(TREE)
    absent = host_packages.missing(wanted)
    rows += [("missing" if p in absent else "ok", p.name, p.reason) for p in wanted]
    lab.progress.say(render_table(rows))
    if absent:
        lab.progress.say("\n./lab installs the missing packages when it needs them. To do it now:")
        lab.progress.say(f"  sudo {shlex.join(host_packages.plan_install(absent))}")
    for finding in findings:
        if not finding.ok:
            lab.progress.say(f"\n{finding.what}: {finding.remedy}")
    return 0 if all(finding.ok for finding in findings) else 3


COMMAND = Command(name="doctor", summary="what is missing here, and the remedy", run=run, needs_root=False)
