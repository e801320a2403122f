from __future__ import annotations

import dataclasses

import pytest
from snf_extstorage.directory.record import BaseRecord, VolumeRecord, decode, encode

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


def test_every_field_is_kept() -> None:
    for field in dataclasses.fields(VolumeRecord):
        assert f'"{field.name}":'.encode() in RAW
