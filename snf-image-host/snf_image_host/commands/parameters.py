"""`snf-image parameters`: the OS parameters and image properties."""

from __future__ import annotations

import argparse
from typing import Final

from snf_image_host.commands import Out
from snf_image_host.params import PARAMETERS, render_parameters_list
from snf_image_host.properties import PROPERTIES
from snf_image_host.settings import Settings

NAME: Final = "parameters"
SUMMARY: Final = "list the OS parameters and image properties"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="in the form of Ganeti's parameters.list")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    if arguments.list:
        out(render_parameters_list().rstrip("\n"))
        return 0
    for parameter in PARAMETERS:
        out(f"{parameter.name:<16} {parameter.kind}, default: {parameter.default}\n{'':<16} {parameter.summary}")
    out("\nProperties (img_properties, inst_properties):\n")
    for entry in PROPERTIES:
        out(f"{entry.name}: {entry.kind}; {entry.summary}")
    return 0
