"""`snf-store stats`: how much there is, and how much sharing saves."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.levels import plan_level
from snf_extstorage.readable import readable_facts
from snf_extstorage.settings import Settings
from snf_extstorage.stores import open_catalog
from synnefo_light.records import dump_json
from synnefo_light.store import pins, stats
from synnefo_light.store.store import Store
from synnefo_light.units import human

NAME: Final = "stats"
SUMMARY: Final = "how much there is, how much it takes, and how much sharing saves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object, in bytes")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    catalog = open_catalog(settings)
    figures, space = stats.measure(catalog.store), catalog.volumes.space()
    level = plan_level(space, "ok", settings)
    volumes = list(readable_facts(catalog.volumes))
    if arguments.json:
        more = {"free": space.free, "total": space.total, "level": level}
        out(dump_json({**dataclasses.asdict(figures), **more}).decode())
        return 0
    out(f"names     {figures.names}, {human(figures.logical)} as their owners see them")
    out(f"blocks    {figures.blocks}, {human(figures.stored)}; {human(figures.shared)} saved, {figures.ratio:.2f} to 1")
    out(f"garbage   {human(figures.garbage)}, for `snf-store gc`; {human(figures.pinned)} besides, which pins keep")
    for text in at_work(catalog.store):
        out(f"at work   {text}")
    out(f"volumes   {len(volumes)}, {human(sum(v.size for v in volumes))} as their instances see them")
    percent = space.free * 100 // space.total if space.total else 0
    marks = f"warning below {settings.warning_percent} percent, critical below {settings.critical_percent}"
    out(f"space     {human(space.free)} free of {human(space.total)}, {percent} percent: {level}")
    out(f"          {marks}, nothing new is made below {settings.reserve_percent}")
    return 0


def at_work(store: Store) -> Iterator[str]:
    """Operations that keep the collector from what they store; one that was killed does so until its pin expires."""
    for held in sorted(pins.living(store, store.backend.now()), key=lambda held: held.key):
        if pins.is_at_work(held) and held.pin.expires_ms is not None:
            until = time.strftime("%Y-%m-%d %H:%M", time.localtime(held.pin.expires_ms / 1000))
            yield f"{held.pin.owner}; if it was killed, what it stored is kept until {until}"
