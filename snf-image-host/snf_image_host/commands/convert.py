"""`snf-image convert`: an image, wherever it is and whatever its format, becomes a raw disk in a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from snf_image_host.commands import Out
from snf_image_host.conversion import Conversion, convert
from snf_image_host.create import installed_helper
from snf_image_host.settings import Settings
from synnefo_light.errors import EnvironmentFault
from synnefo_light.manifest import Compression, SourceFormat
from synnefo_light.units import GIB, human, parse_size

NAME: Final = "convert"
SUMMARY: Final = "make a raw disk of an image, in a new file; what is to be converted is, in the helper VM"
SIZE_LIMIT: Final = 128 * GIB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE|URL", help="the image: a file, or an http, https, ftp, ftps address")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the disk: a new or an empty file")
    formats, compressions = ([e.value for e in kind] for kind in (SourceFormat, Compression))
    parser.add_argument("--format", choices=formats, default="", help="of its bytes, if not what the name's end says")
    parser.add_argument("--compression", choices=compressions, default="", help="the same")
    parser.add_argument("--checksum", default="", metavar="sha256:HEX", help="what its bytes must sum up to")
    parser.add_argument("--signature", default="", metavar="FILE|URL", help="detached OpenPGP signature of its bytes")
    parser.add_argument("--max-size", default=str(SIZE_LIMIT), metavar="SIZE", help="that the disk may have (128G)")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    wanted = Conversion(
        source=arguments.source,
        format=arguments.format,
        compression=arguments.compression,
        checksum=arguments.checksum,
        signature=arguments.signature,
        size_limit=parse_size(arguments.max_size),
    )
    if os.geteuid() != 0:
        raise EnvironmentFault("the helper VM runs as another user, which only root may start; run this as root")
    size = convert(wanted, arguments.output, settings, installed_helper(settings))
    out(f"{arguments.output} is the disk, raw: {human(size)}")
    return 0
