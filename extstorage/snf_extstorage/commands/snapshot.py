"""`snf-store snapshot`: an instance's disks become images, while it runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.commands import Out
from snf_extstorage.guests import NotRunning, instance_of, stopped
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from snf_extstorage.volume import NotFound
from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.run import start_listening

#: 16 TiB at 200 MB/s.
COMMIT_LIMIT_S: Final = 86400.0

NAME: Final = "snapshot"
SUMMARY: Final = "make images of an instance's disks in one cut, as after a power cut"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="INSTANCE[/DISK]", help="all of its disks, or one by its number")
    parser.add_argument("name", metavar="NAME", help="disk 0 becomes NAME, disk 1 NAME-disk1")
    parser.add_argument("--commit", action="store_true", help="wait until it is in the store, too")
    parser.add_argument("--no-commit", action="store_true", help="do not put it into the store; `commit` will")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    catalog = open_catalog(settings)
    instance, _, disk = arguments.instance.partition("/")
    cut = plan_cut(instance, disk, volumes_of(catalog, instance), arguments.name)
    # What is to be written anyway is written before the guest stands still for it.
    catalog.volumes.flush([one.volume for one in cut])
    with contextlib.ExitStack() as guest:
        # One disk alone is one clone, which is a cut by itself.
        if len(cut) > 1 and not catalog.volumes.cuts_together:
            with contextlib.suppress(NotRunning):
                guest.enter_context(stopped(instance))
        published = catalog.snapshot(cut)
    for named in published:
        out(f"{named.name} is an image now: as {instance} would find its disk after a power cut")
    if arguments.commit:
        for named in published:
            out(f"{named.name} is map {catalog.commit(named.name)}")
    elif not arguments.no_commit:
        _commit_later(arguments.config, [named.name for named in published])
    return 0


def _commit_later(config: Path, names: Sequence[str]) -> None:
    """In a process of its own, which ends with the work; should it die, `snf-store commit` does it again."""
    program = Path(sys.argv[0]).resolve()
    with start_listening([program, "--config", config.resolve(), "commit", *names], limit_s=COMMIT_LIMIT_S):
        pass


def volumes_of(catalog: Catalog, instance: str) -> dict[int, VolumeName]:
    """An instance's volumes by the number of the disk, as Ganeti's notes and names have it."""
    found: dict[int, VolumeName] = {}
    for name in catalog.volumes.volumes():
        stem, dot, number = name.rpartition(".disk")
        if dot and stem and number.isascii() and number.isdigit():
            with contextlib.suppress(NotFound):
                if instance_of(catalog.volumes.facts(name).info) == instance:
                    found[int(number)] = name
    return found


def plan_cut(instance: str, disk: str, volumes: dict[int, VolumeName], name: str) -> Sequence[Cut]:
    """Raises UserError when there is no such instance or disk."""
    if not volumes:
        raise UserError(f"no volume here belongs to the instance {instance}; `snf-store volume list` shows whose are")
    if not disk:
        return [Cut(volume=volumes[n], name=name if n == 0 else f"{name}-disk{n}") for n in sorted(volumes)]
    if not (disk.isascii() and disk.isdigit() and int(disk) in volumes):
        numbers = ", ".join(map(str, sorted(volumes)))
        raise UserError(f"{instance} has no disk {disk} here; it has {numbers}")
    return [Cut(volume=volumes[int(disk)], name=name)]
