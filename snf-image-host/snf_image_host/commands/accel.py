"""`snf-image accel`: which accelerator the helper VM uses, and why."""

from __future__ import annotations

import argparse
from typing import Final

from snf_image_host import accel
from snf_image_host.commands import Out
from snf_image_host.create import installed_helper
from snf_image_host.settings import Settings
from synnefo_light.records import dump_json

NAME: Final = "accel"
SUMMARY: Final = "say which accelerator the helper VM uses, and why; one JSON line"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--again", action="store_true", help="find out anew, whatever was found before")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    choice = accel.choose(installed_helper(settings), settings, again=arguments.again)
    out(dump_json(choice).decode())
    return 0
