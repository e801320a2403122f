"""What does not belong into a store's directory, and what dead writers and the collector left in it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from synnefo_light.store.backend import IMMUTABLE, Instant, Kind, Stray
from synnefo_light.store.directory_layout import FANNED, FOLDERS, RECORDS, is_ours, is_shard

if TYPE_CHECKING:
    from synnefo_light.store.directory import Directory

_FOREIGN = "is not the store's"
_TEMPORARY = re.compile(r"[0-9a-f]{32}")


def find_strays(directory: Directory) -> Iterator[Stray]:
    """See `Backend.strays`. What others make or remove meanwhile is none."""
    yield from _among_objects(directory)
    yield from _among_leftovers(directory)


def _among_objects(directory: Directory) -> Iterator[Stray]:
    for entry in directory.entries(directory.path):
        if entry.name not in (*FOLDERS, *RECORDS):
            yield Stray(place=entry.path, why=_FOREIGN)
    for kind in FANNED:
        for folder in directory.entries(directory.path / kind.value):
            if not is_shard(folder.name) or not folder.is_dir(follow_symlinks=False):
                yield Stray(place=folder.path, why=_FOREIGN)
                continue
            for entry in directory.entries(Path(folder.path)):
                if not is_ours(kind, folder.name, entry.name) or not _is_file(entry):
                    yield Stray(place=entry.path, why=_FOREIGN)


def _among_leftovers(directory: Directory) -> Iterator[Stray]:
    old = directory.now() - directory.fresh_s
    for entry in directory.entries(directory.path / "tmp"):
        found = _stat(entry)
        if found is not None and not _TEMPORARY.fullmatch(entry.name):
            yield Stray(place=entry.path, why=_FOREIGN)
        elif found is not None and found.st_mtime < old:
            yield Stray(place=entry.path, why="was left by a writer that died")
    for bin_ in directory.entries(directory.path / "trash"):
        if _cutoff(bin_) is None:
            yield Stray(place=bin_.path, why=_FOREIGN)
            continue
        for entry in directory.entries(Path(bin_.path)):
            if _retired(entry.name) is None:
                yield Stray(place=entry.path, why=_FOREIGN)
    for entry in directory.entries(directory.path / "quarantine"):
        yield Stray(place=entry.path, why="was set aside because it is damaged; remove it when nobody needs it")


def sweep(directory: Directory, untouched_since: Instant) -> int:
    """See `Backend.sweep_leftovers`. Files that are not the store's stay."""
    gone = 0
    for entry in directory.entries(directory.path / "tmp"):
        found = _stat(entry)
        if found is not None and found.st_mtime < untouched_since and _TEMPORARY.fullmatch(entry.name):
            gone += _unlink(directory, entry)
    for bin_ in directory.entries(directory.path / "trash"):
        cutoff = _cutoff(bin_)
        if cutoff is not None:
            gone += _empty(directory, Path(bin_.path), cutoff, untouched_since)
    return gone


def _empty(directory: Directory, bin_: Path, cutoff: float, untouched_since: Instant) -> int:
    """Whatever was touched when the collector had looked already, comes back; the rest goes when it is old."""
    gone = 0
    for entry in directory.entries(bin_):
        found, retired = _stat(entry), _retired(entry.name)
        if found is None or retired is None:
            continue
        if found.st_mtime >= cutoff:
            directory.bring_back(*retired)
        elif found.st_ctime < untouched_since:
            gone += _unlink(directory, entry)
    with contextlib.suppress(OSError):
        os.rmdir(bin_)
    return gone


def _unlink(directory: Directory, entry: os.DirEntry[str]) -> int:
    with contextlib.suppress(FileNotFoundError), directory.writing():
        directory.files.unlink(Path(entry.path))
        return 1
    return 0


def _cutoff(bin_: os.DirEntry[str]) -> float | None:
    if bin_.name.isdecimal() and bin_.is_dir(follow_symlinks=False):
        return int(bin_.name) / 1000
    return None


def _retired(name: str) -> tuple[Kind, str] | None:
    folder, _, key = name.partition(".")
    kind = next((kind for kind in IMMUTABLE if kind.value == folder), None)
    return (kind, key) if kind is not None and is_ours(kind, key[:2], key) else None


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Or it is gone."""
    found = _stat(entry)
    return found is None or stat.S_ISREG(found.st_mode)
