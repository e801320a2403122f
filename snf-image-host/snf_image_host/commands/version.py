"""`snf-image version`: the versions of both halves."""

from __future__ import annotations

import argparse
from typing import Final

from snf_image_host.commands import Out
from snf_image_host.create import installed_helper
from snf_image_host.settings import Settings
from synnefo_light import __version__

NAME: Final = "version"
SUMMARY: Final = "say the versions of both halves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    out(f"snf-image {__version__}")
    out(f"helper    {installed_helper(settings).version} ({settings.helper_dir})")
    return 0
