"""`snf-store upkeep`: what must be done now and then, by timers of the package."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from snf_extstorage.catalog import Catalog
from snf_extstorage.commands import Out
from snf_extstorage.commands.commit import commit_one
from snf_extstorage.commands.resume import resume_all
from snf_extstorage.levels import drop_event, has_reserve, watch_level
from snf_extstorage.providers import open_volumes
from snf_extstorage.settings import Settings
from snf_extstorage.standstill import let_go_forgotten
from snf_extstorage.stores import open_catalog
from snf_extstorage.volume import InUse, Volumes
from synnefo_light.errors import EXIT_BUG, Error
from synnefo_light.events import InstanceResumed
from synnefo_light.log import logger
from synnefo_light.store.names import Named

NAME: Final = "upkeep"
SUMMARY: Final = "let guests go on that stand still for no reason any more, tell how full it is; timers call this"

#: What is younger is still being committed by whoever made it, perhaps on another node.
YOUNG_S: Final = 900.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--commit", action="store_true", help="put snapshots into the store that nobody did, instead")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    if settings.engine == "directory" and not (settings.folder / "FORMAT").exists():
        # The timer is on nodes without storage too, and each line of it is one of the journal.
        if sys.stdout.isatty():
            out(f"there are no volumes in {settings.folder}, so there is nothing to do")
        return 0
    volumes = open_volumes(settings)
    if arguments.commit:
        return _commit_left(settings, open_catalog(settings, volumes), out)
    # One after the other, whatever became of the one before.
    code = 0
    for act in (_forgotten, _level, _resumed):
        try:
            for text in act(settings, volumes):
                out(text)
        except Error as e:
            logger.error("%s", e)
            code = max(code, e.exit_code)
        except Exception as e:  # a bug of ours must not keep other guests from going on
            logger.exception("%s: %s", act.__name__.strip("_"), e)
            code = EXIT_BUG
    return code


Act = Callable[[Settings, Volumes], Iterator[str]]


def _forgotten(settings: Settings, volumes: Volumes) -> Iterator[str]:
    for instance in let_go_forgotten(settings.run / "standstill"):
        drop_event("instance-resumed", InstanceResumed(instance=instance, reason="forgotten"))
        yield f"{instance} goes on: what had it stand still was killed"


def _level(settings: Settings, volumes: Volumes) -> Iterator[str]:
    text = watch_level(settings, volumes)
    if text is not None:
        yield text


def _resumed(settings: Settings, volumes: Volumes) -> Iterator[str]:
    """Only above the reserve: a guest that goes on with less stands still again at once."""
    if has_reserve(volumes.space(), settings):
        for instance in resume_all(volumes):
            yield f"{instance} goes on: its disks have space again"


def _commit_left(settings: Settings, catalog: Catalog, out: Out) -> int:
    code = 0
    for named in list(catalog.listing()):
        if not is_left(named, settings.engine, now_s=time.time()):
            continue
        try:
            out(f"{named.name} is map {commit_one(settings, catalog, named.name, wait_s=0)}")
        except InUse as e:
            logger.info("snapshot=%s %s", named.name, e)  # every node has this timer
        except Error as e:
            logger.error("snapshot=%s %s", named.name, e)
            code = max(code, e.exit_code)
    return code


def is_left(named: Named, engine: str, *, now_s: float) -> bool:
    """Whether a snapshot of ours should be in the store by now, and is not."""
    entry = named.entry
    ours = entry.snapshot is not None and entry.snapshot.engine == engine
    return ours and entry.map is None and now_s - entry.created_ms / 1000 > YOUNG_S
