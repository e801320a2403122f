from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from pathlib import Path

import pytest
from snf_extstorage.directory.copies import COPY, parse_copies, render_copy
from snf_extstorage.directory.kept import load, save
from snf_extstorage.directory.place import Place
from snf_extstorage.directory.record import BaseRecord, SnapshotRecord, VolumeRecord, decode, encode

from synnefo_light.errors import EnvironmentFault

RECORD = VolumeRecord(uuid="u", size=5, origin="map 7f", map="7f", holders=("a", "b"), generation=3, info="x")
RAW = encode("snf-volume", RECORD)


def test_a_record_comes_back_as_it_was() -> None:
    assert decode(RAW, "snf-volume", VolumeRecord, place="r") == RECORD


@pytest.mark.parametrize("at", range(len(RAW)))
def test_a_record_that_was_cut_or_changed_anywhere_is_refused(at: int) -> None:
    for torn in (RAW[:at], RAW[:at] + bytes([RAW[at] ^ 1]) + RAW[at + 1 :], RAW[:at] + bytes(len(RAW) - at)):
        with pytest.raises(EnvironmentFault, match=r"^r "):
            decode(torn, "snf-volume", VolumeRecord, place="r")


def test_a_newer_record_and_one_of_another_kind_are_refused_by_what_they_are() -> None:
    newer = RAW.replace(b"snf-volume 1 ", b"snf-volume 2 ", 1)
    with pytest.raises(EnvironmentFault, match="has format 2, this program knows 1"):
        decode(newer, "snf-volume", VolumeRecord, place="r")
    with pytest.raises(EnvironmentFault, match="not a record of kind snf-volume"):
        decode(encode("snf-base", BaseRecord(size=1)), "snf-volume", VolumeRecord, place="r")


def test_a_record_of_before_adoptions_and_clusters_were_written_down_is_read() -> None:
    body = b'{"exclusive":false,"generation":3,"holders":["a","b"],"info":"x","map":"7f","opened":false,'
    body += b'"origin":"map 7f","owed":[],"serial":0,"size":5,"uuid":"u"}\n'
    raw = f"snf-volume 1 {hashlib.sha256(body).hexdigest()}\n".encode() + body
    assert decode(raw, "snf-volume", VolumeRecord, place="r") == RECORD


def test_a_snapshot_of_when_it_said_what_it_became_is_read_and_another_strange_field_is_not() -> None:
    def raw(field: bytes) -> bytes:
        body = b'{"' + field + b'":null,"map":"7f","size":5,"volume":"v"}\n'
        return f"snf-snapshot 1 {hashlib.sha256(body).hexdigest()}\n".encode() + body

    read = decode(raw(b"committed"), "snf-snapshot", SnapshotRecord, place="r")
    assert read == SnapshotRecord(volume="v", size=5, map="7f")
    assert b"committed" not in encode("snf-snapshot", read)
    with pytest.raises(EnvironmentFault, match="strange"):
        decode(raw(b"astrange"), "snf-snapshot", SnapshotRecord, place="r")


def test_every_field_is_kept() -> None:
    for field in dataclasses.fields(VolumeRecord):
        assert f'"{field.name}":'.encode() in RAW


OLD = dataclasses.replace(RECORD, serial=4)
NEW = dataclasses.replace(RECORD, serial=5, holders=("c",))
OLD_COPY, NEW_COPY = (render_copy(record, place="r") for record in (OLD, NEW))


@pytest.mark.parametrize("at", [*range(len(encode("snf-volume", NEW)) + 1), COPY])
@pytest.mark.parametrize("first", [0, 1])
def test_a_rewrite_that_is_torn_anywhere_leaves_the_old_record_or_the_new(first: int, at: int) -> None:
    """What was there, the first copy torn, the first whole and the second torn."""
    torn = NEW_COPY[:at] + OLD_COPY[at:]
    whole = [OLD, NEW][torn == NEW_COPY]
    pair = (torn, OLD_COPY)[:: 1 - 2 * first]
    assert parse_copies(b"".join(pair), place="r")[0] == whole
    pair = (NEW_COPY, torn)[:: 1 - 2 * first]
    assert parse_copies(b"".join(pair), place="r")[0] == NEW


def test_the_copy_that_is_not_the_newest_is_told_for_it_is_written_first() -> None:
    assert parse_copies(OLD_COPY + NEW_COPY, place="r") == (NEW, 1)
    assert parse_copies(NEW_COPY + OLD_COPY, place="r") == (NEW, 0)
    assert parse_copies(bytes(COPY) + OLD_COPY, place="r") == (OLD, 1)
    assert parse_copies(NEW_COPY, place="r") == (NEW, 0)


def test_both_copies_damaged_or_one_by_a_newer_program_are_refused() -> None:
    with pytest.raises(EnvironmentFault, match="damaged"):
        parse_copies(OLD_COPY[:9] + bytes(COPY - 9) + NEW_COPY.replace(b"size", b"sizf"), place="r")
    with pytest.raises(EnvironmentFault, match="has format 2"):
        parse_copies(OLD_COPY + NEW_COPY.replace(b"snf-volume 1", b"snf-volume 2"), place="r")
    with pytest.raises(EnvironmentFault, match="at most 4096 are accepted"):
        render_copy(dataclasses.replace(RECORD, holders=("n" * COPY,)), place="r")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "volumes" / "v"
    folder.mkdir(parents=True)
    (folder / "record").write_bytes(2 * OLD_COPY)
    return Place(tmp_path)


def test_a_write_that_stopped_within_a_record_leaves_the_other_copy(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:150], at))
    with pytest.raises(OSError, match="Input/output error"):
        save(place, "v", NEW)
    assert load(place, "v") == OLD


def test_a_record_that_is_read_while_it_is_written_is_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.folder("volumes", "v") / "record"
    torn = [OLD_COPY[:90] + bytes(2 * COPY - 90), 2 * NEW_COPY]

    def write_next(seconds: float) -> None:
        path.write_bytes(torn.pop(0))

    write_next(0)
    monkeypatch.setattr(time, "sleep", write_next)
    assert load(place, "v") == NEW
