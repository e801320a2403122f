"""Whether the folder of volumes is as it should be; reads records and asks for sizes, no data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from snf_extstorage.directory.copies import parse_copies
from snf_extstorage.directory.place import KINDS, OURS, RECORD_LIMIT, Place
from snf_extstorage.directory.record import BaseRecord, Kind, SnapshotRecord, decode
from synnefo_light.errors import EnvironmentFault
from synnefo_light.files import TEMPORARY, read_bounded
from synnefo_light.resource_names import is_name
from synnefo_light.units import human

_RECORDS: Final[dict[str, tuple[Kind, type[SnapshotRecord | BaseRecord]]]] = {
    "snapshots": ("snf-snapshot", SnapshotRecord),
    "bases": ("snf-base", BaseRecord),
}
_PARTS: Final = frozenset({"disk", "record", "lock"})


def check_place(place: Place) -> Iterator[str]:
    """One sentence for each thing that is wrong, or that is nobody's. A name that somebody is just making is none."""
    for name in sorted(os.listdir(place.root)):
        if name not in OURS and not name.startswith(TEMPORARY):
            yield f"{place.root / name} is not ours; move it elsewhere"
    for kind in KINDS:
        for name in sorted(os.listdir(place.folder(kind))):
            if name.startswith(TEMPORARY):
                continue
            try:
                yield from _check_one(place, kind, name)
            except FileNotFoundError:
                continue  # removed meanwhile; what is missing while its folder stays is told below
            except OSError as e:
                yield f"{place.folder(kind, name)} cannot be read: {e.strerror}"


def _check_one(place: Place, kind: str, name: str) -> Iterator[str]:
    folder = place.folder(kind, name)
    if not is_name(name) or not folder.is_dir() or folder.is_symlink():
        yield f"{folder} is not ours; move it elsewhere"
        return
    parts = set(os.listdir(folder))
    for missing in sorted({"disk", "record"} - parts):
        yield f"{folder} has no {missing}, so it is not whole; restore or remove it"
    if kind == "volumes" and {"disk", "record"} <= parts and "lock" not in parts:
        yield f"{folder} has no lock; whoever changes the volume next makes it anew"
    for foreign in sorted(parts - _PARTS):
        if not foreign.startswith(TEMPORARY):
            yield f"{folder / foreign} is not ours; move it elsewhere"
    if not {"disk", "record"} <= parts:
        return
    try:
        raw, path = read_bounded(folder / "record", limit=RECORD_LIMIT), str(folder / "record")
        record = parse_copies(raw, place=path)[0] if kind == "volumes" else decode(raw, *_RECORDS[kind], place=path)
    except EnvironmentFault as e:
        yield str(e)
        return
    size = (folder / "disk").stat(follow_symlinks=False).st_size
    if size < record.size:
        yield f"{folder / 'disk'} has {human(size)}, but its record says {human(record.size)}; its end is lost"
