"""How many events a spool takes, and how seldom that is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from synnefo_light.spool import FULL, LIMIT, SpoolFull, put


def holding(folder: Path, files: int) -> str:
    for n in range(files):
        os.close(os.open(folder / f"{n:019d}-event", os.O_WRONLY | os.O_CREAT))
    return str(folder)


def test_most_writers_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    scandir = os.scandir

    def seen(folder: str) -> object:
        counted.append(folder)
        return scandir(folder)

    monkeypatch.setattr("synnefo_light.spool.os.scandir", seen)
    for n in range(200):
        put(b"", f"{n}", folder=str(tmp_path), durable=False)
    assert len(counted) < 20 and len(os.listdir(tmp_path)) == 200
    put(b"", "last", folder=str(tmp_path), durable=False, limit=300)
    assert counted[-1] == str(tmp_path) and LIMIT > 300


def test_a_spool_that_is_too_full_is_found_out_and_stays_full_until_a_fourth_is_free(tmp_path: Path) -> None:
    folder, limit = holding(tmp_path, 2000), 2000
    with pytest.raises(SpoolFull, match="holds 2000 events"):
        for n in range(1000):  # one of five counts
            put(b"", f"{n}", folder=folder, durable=False, limit=limit)
    held = len(os.listdir(folder))
    for n in range(50):
        with pytest.raises(SpoolFull):
            put(b"", f"again{n}", folder=folder, durable=False, limit=limit)
    assert len(os.listdir(folder)) == held and (tmp_path / FULL).exists()
    for n in range(held - limit):
        (tmp_path / f"{n:019d}-event").unlink()
    put(b"", "one", folder=folder, durable=False, limit=limit)
    assert (tmp_path / FULL).exists()  # it is no event: there was one place free
    for n in range(held - limit, held - limit + 501):
        (tmp_path / f"{n:019d}-event").unlink()
    put(b"", "two", folder=folder, durable=False, limit=limit)
    assert not (tmp_path / FULL).exists()


def test_a_small_limit_is_held_to_the_event(tmp_path: Path) -> None:
    folder = holding(tmp_path, 399)
    put(b"", "last", folder=folder, durable=False, limit=400)
    for n in range(5):
        with pytest.raises(SpoolFull, match="holds 400 events"):
            put(b"", f"{n}", folder=folder, durable=False, limit=400)
    assert len(os.listdir(folder)) == 401 and (tmp_path / FULL).exists()
