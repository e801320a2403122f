"""`snf-store commit`: make snapshots that are not in the store yet maps of it."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.catalog import Catalog
from snf_extstorage.commands import Out
from snf_extstorage.levels import watch_level
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from synnefo_light.errors import Error
from synnefo_light.files import locked
from synnefo_light.store import cuts, names
from synnefo_light.store.identity import MapId

NAME: Final = "commit"
SUMMARY: Final = "put snapshots into the store; `snapshot` starts this by itself"

#: How long a commit of the same name by another process is waited for, as long as the largest takes.
WAIT_S: Final = 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="*", help="all that are not there yet if none is named")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    catalog = open_catalog(settings)
    for name in arguments.name or catalog.uncommitted():
        out(f"{name} is map {commit_one(settings, catalog, name)}")
    return 0


def commit_one(settings: Settings, catalog: Catalog, name: str, *, wait_s: float = WAIT_S) -> MapId:
    """The map of a snapshot, made if it is none yet. Raises Error; EnvironmentFault if another process is at it.

    That is told by a lock of this node, and InUse by the engine's claim, which is for all nodes. Should two be at it
    nevertheless, they end with the same map; whoever is second finds it, however far he came.
    """
    cuts.load(catalog.store, name)
    folder = settings.run / "commits"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(folder / name, wait_s=wait_s), catalog.claim(name, wait_s=wait_s):
        try:
            made = catalog.commit(name)
        except Error:
            found = names.load(catalog.store, name).entry.map
            if found is None:
                raise
            made = found
        (folder / name).unlink(missing_ok=True)
    watch_level(settings, catalog.volumes)
    return made
