"""`snf-image doctor`: whether this node is fit to deploy images."""

from __future__ import annotations

import argparse
from typing import Final

from snf_image_host import doctor
from snf_image_host.commands import Out
from snf_image_host.settings import Settings
from synnefo_light.errors import EnvironmentFault
from synnefo_light.records import dump_json
from synnefo_light.run import run as run_program

NAME: Final = "doctor"
SUMMARY: Final = "check whether this node is fit to deploy images, and say what to do"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON array, for programs")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    findings = list(doctor.examine(settings, run_program))
    if arguments.json:
        out(dump_json(findings).decode())
    else:
        for found in findings:
            out(f"{found.state:<5} {found.check:<12} {found.text}")
            if found.remedy:
                out(f"{'':<18} do: {found.remedy}")
    return EnvironmentFault.exit_code if any(found.state == "fail" for found in findings) else 0
