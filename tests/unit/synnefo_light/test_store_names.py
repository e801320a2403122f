"""What a name's record is, byte by byte, and what of it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synnefo_light.store.errors import Corrupt
from synnefo_light.store.formats import encode_record, parse_record
from synnefo_light.store.identity import MapId
from synnefo_light.store.names import EngineSnapshot, Entry, encode_entry, parse_entry

UUID = "11111111-1111-4111-8111-111111111111"
ENTRY = Entry(
    uuid=UUID,
    kind="snapshot",
    size=4096,
    created_ms=5,
    snapshot=EngineSnapshot(engine="directory", reference="golden-1"),
    properties={"OSFAMILY": "linux"},
)
JSON = (
    b'{"created_ms":5,"generation":1,"kind":"snapshot","map":null,"origin":"","parent":null,'
    b'"properties":{"OSFAMILY":"linux"},"size":4096,"snapshot":{"engine":"directory","reference":"golden-1"},'
    b'"uuid":"11111111-1111-4111-8111-111111111111"}'
)


def test_a_record_has_no_word_of_a_cut_where_there_is_none() -> None:
    """So a release that knows of none reads it, and records of before are read here."""
    assert parse_record(encode_entry(ENTRY), "name x") == JSON
    assert parse_entry(encode_record(JSON), "x") == ENTRY


def test_the_first_name_of_a_cut_has_what_the_others_will_be() -> None:
    head = replace(ENTRY, cut={"golden-disk1": replace(ENTRY, size=8192)})
    assert parse_entry(encode_entry(head), "golden") == head
    body = parse_record(encode_entry(head), "name golden")
    assert body == JSON.replace(b'"gen', b'"cut":{"golden-disk1":' + JSON.replace(b"4096", b"8192") + b'},"gen', 1)


@pytest.mark.parametrize(
    "cut",
    [
        {"../x": ENTRY},
        {"x": replace(ENTRY, cut={"y": ENTRY})},
        {"x": replace(ENTRY, map=MapId("0" * 64))},
    ],
)
def test_what_no_cut_can_have_is_refused(cut: dict[str, Entry]) -> None:
    with pytest.raises(ValueError, match="what is published next are snapshots under names"):
        replace(ENTRY, cut=cut)


def test_a_record_with_an_odd_cut_is_damaged() -> None:
    good = JSON.replace(b'"gen', b'"cut":{"x":' + JSON + b'},"gen', 1)
    assert set(parse_entry(encode_record(good), "golden").cut) == {"x"}
    with pytest.raises(Corrupt, match="name golden has a record that is none"):
        parse_entry(encode_record(good.replace(b'"cut":{"x"', b'"cut":{"_"')), "golden")
