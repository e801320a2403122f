"""`snf-store snapshot`: an instance's disks become images, while it runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from snf_extstorage.catalog import Catalog, Cut
from snf_extstorage.commands import Out
from snf_extstorage.commands.commit import commit_one
from snf_extstorage.keeper import Keeper, keeper
from snf_extstorage.levels import drop_event, watch_level
from snf_extstorage.monitor import NotRunning
from snf_extstorage.placement import load_placement, plan_disks
from snf_extstorage.readable import readable_facts
from snf_extstorage.settings import Settings
from snf_extstorage.standstill import Wish
from snf_extstorage.stores import open_catalog
from snf_extstorage.volume import InUse, VolumeFacts
from synnefo_light.events import VolumeSnapshotted
from synnefo_light.ganeti import VolumeName
from synnefo_light.run import start_listening
from synnefo_light.store.names import Named

#: 16 TiB at 200 MB/s.
COMMIT_LIMIT_S: Final = 86400.0

NAME: Final = "snapshot"
SUMMARY: Final = "make images of an instance's disks in one cut, as after a power cut"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="INSTANCE[/DISK]", help="all of its disks, or those of a list with commas")
    parser.add_argument("name", metavar="NAME", help="disk 0 becomes NAME, disk 1 NAME-disk1")
    parser.add_argument("--freeze", action="store_true", help="have the guest's agent freeze its file systems")
    parser.add_argument("--commit", action="store_true", help="wait until it is in the store, too")
    parser.add_argument("--no-commit", action="store_true", help="do not put it into the store; `commit` will")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    # The keeper comes first: it is a fork, and Ceph's library has threads.
    with keeper(settings.run / "standstill") as keeping:
        catalog = open_catalog(settings)
        instance, _, wanted = arguments.instance.partition("/")
        disks = plan_disks(instance, wanted, load_placement(instance), list(readable_facts(catalog.volumes)))
        cut = plan_cut(disks, arguments.name)
        # One disk alone is one clone, which is a cut by itself.
        stop = len(cut) > 1 and not catalog.volumes.cuts_together
        wish = Wish(instance=instance, stop=stop, freeze=arguments.freeze)
        if stop or arguments.freeze:
            require_here(instance, disks.values(), settings.node_name)
        # What is to be written anyway is written before the guest stands still for it.
        catalog.volumes.flush([one.volume for one in cut])
        published = catalog.snapshot(cut, still=_still(keeping, catalog, wish, [one.volume for one in cut]))
    for text in describe(wish, keeping, published):
        out(text)
    tell(instance, keeping, zip(cut, published, strict=True))
    watch_level(settings, catalog.volumes)
    if arguments.commit:
        for named in published:
            out(f"{named.name} is map {commit_one(settings, catalog, named.name)}")
    elif not arguments.no_commit:
        _commit_later(arguments.config, [named.name for named in published])
    return 0


def plan_cut(disks: Mapping[int, VolumeFacts], name: str) -> Sequence[Cut]:
    """A single disk gets the name itself, whichever its number is."""
    alone = len(disks) == 1
    return [
        Cut(volume=volume.name, name=name if alone or number == 0 else f"{name}-disk{number}")
        for number, volume in disks.items()
    ]


def require_here(instance: str, disks: Iterable[VolumeFacts], node: str) -> None:
    """A guest is stopped and frozen from its own node alone. Raises InUse naming the other one."""
    others = sorted({holder for volume in disks for holder in volume.holders if holder != node})
    if others:
        raise InUse(
            f"{instance} is to stand still for a cut, but its disks are open on {' and '.join(others)}, and this "
            f"is {node}; call `snf-store snapshot` on {others[0]}"
        )


@contextlib.contextmanager
def _still(keeping: Keeper, catalog: Catalog, wish: Wish, volumes: Sequence[VolumeName]) -> Iterator[None]:
    """Nobody writes the volumes meanwhile, if that is what is wished for. Raises PeerError, InUse."""
    with contextlib.ExitStack() as standing:
        stopped = False
        if wish.stop or wish.freeze:
            try:
                standing.enter_context(keeping.standing(wish))
            except NotRunning:
                stopped = wish.stop
        if stopped:
            _require_closed(wish.instance, catalog, volumes)
        yield
    if stopped:  # and was not started in between
        _require_closed(wish.instance, catalog, volumes)


def _require_closed(instance: str, catalog: Catalog, volumes: Sequence[VolumeName]) -> None:
    for name in volumes:
        holders = catalog.volumes.facts(name).holders
        if holders:
            raise InUse(
                f"{instance} is to be cut on several disks, and no QEMU of it runs here, but {holders[0]} may write "
                f"volume {name}; stop the instance, or wait until its installation has ended"
            )


def describe(wish: Wish, keeping: Keeper, published: Sequence[Named]) -> Iterator[str]:
    """What came of it, for people."""
    stood, went = keeping.stood, keeping.went
    if stood.stopped:
        yield f"{wish.instance} stood still for {went.stopped_ms} ms"
    frozen = was_frozen(keeping)
    if wish.freeze and not frozen:
        why = stood.unfrozen or ("they were thawed before the cut ended" if stood.frozen else "it does not run")
        yield f"the file systems of {wish.instance} were not frozen: {why}"
    state = "with its file systems frozen" if frozen else "after a power cut"
    for named in published:
        yield f"{named.name} is an image now: as {wish.instance} would find its disk {state}"


def was_frozen(keeping: Keeper) -> bool:
    """Until after the cut: nobody else thawed anything meanwhile."""
    return 0 < keeping.stood.frozen <= keeping.went.thawed


def tell(instance: str, keeping: Keeper, made: Iterable[tuple[Cut, Named]]) -> None:
    for cut, named in made:
        detail = VolumeSnapshotted(
            instance=instance,
            volume=cut.volume,
            image=named.name,
            stopped_ms=keeping.went.stopped_ms,
            frozen=was_frozen(keeping),
        )
        drop_event("volume-snapshotted", detail)


def _commit_later(config: Path, names: Sequence[str]) -> None:
    """In a process of its own, which ends with the work; should it die, `snf-store upkeep` does it again."""
    program = Path(sys.argv[0]).resolve()
    with start_listening([program, "--config", config.resolve(), "commit", *names], limit_s=COMMIT_LIMIT_S):
        pass
