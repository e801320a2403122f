"""`snf-image watch INSTANCE`: follow the deployment of an instance."""

from __future__ import annotations

import argparse
from typing import Final

from snf_image_host import journal, watch
from snf_image_host.commands import Out
from snf_image_host.settings import Settings

NAME: Final = "watch"
SUMMARY: Final = "follow the deployment of an instance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="INSTANCE")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    view = watch.View()
    last: journal.Record | None = None
    for entry in watch.follow(settings.run_dir, arguments.instance):
        last = entry.record
        for line in view.lines(entry):
            out(line.text, passing=line.passing)
    if last is None or not isinstance(last, journal.Failed | journal.Finished):
        out("ended without a word: it was killed; reinstall or remove the instance")
        return 1
    return 0 if isinstance(last, journal.Finished) else 1
