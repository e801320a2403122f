"""`snf-store resume`: guests that stood still because their disks had no space go on."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.guests import drive_of, resume, starved
from snf_extstorage.levels import drop_event
from snf_extstorage.monitor import SOCKETS
from snf_extstorage.providers import open_volumes
from snf_extstorage.readable import readable_facts
from snf_extstorage.settings import Settings
from snf_extstorage.volume import Volumes
from synnefo_light.errors import Error, UserError
from synnefo_light.events import InstanceResumed
from synnefo_light.log import logger

NAME: Final = "resume"
SUMMARY: Final = "let guests of this node go on that stand still because their disks had no space"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="INSTANCE", nargs="*", help="all of them if none is named")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    volumes = open_volumes(settings)
    done = list(resume_all(volumes, arguments.instance))
    for instance in done:
        out(f"{instance} goes on")
    for instance in arguments.instance:
        if instance not in done:
            raise UserError(f"{instance} does not stand still on this node for want of space on our volumes")
    return 0


def resume_all(volumes: Volumes, wanted: Collection[str] = (), *, sockets: Path = SOCKETS) -> Iterator[str]:
    """Those that go on; all of this node that stand still for it, or those of `wanted`. One that fails is logged."""
    drives = None
    for path in sorted(sockets.glob("*.qmp")):
        instance = path.name.removesuffix(".qmp")
        if wanted and instance not in wanted:
            continue
        try:
            full = starved(instance, sockets=sockets)
            if not full:
                continue
            drives = _drives(volumes) if drives is None else drives
            if full <= drives:
                resume(instance, sockets=sockets)
                drop_event("instance-resumed", InstanceResumed(instance=instance, reason="space"))
                yield instance
        except Error as e:
            logger.warning("instance=%s %s", instance, e)
        except Exception as e:  # a bug of ours must not keep the others from going on
            logger.exception("instance=%s %s", instance, e)


def _drives(volumes: Volumes) -> frozenset[str]:
    """What QEMU calls our volumes."""
    return frozenset(drive_of(facts.uuid) for facts in readable_facts(volumes) if facts.uuid is not None)
